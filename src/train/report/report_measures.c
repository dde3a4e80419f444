#include "train/report/report_measures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double value(const nd_report_run *run, size_t i, size_t field)
{
    return *(const double *)((const char *)&run->steps[i] + field);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double nd_report_median_of(double *values, size_t count)
{
    if (count == 0)
        return NAN;
    qsort(values, count, sizeof *values, by_size);
    const double low = values[(count - 1) / 2], high = values[count / 2];
    return low == high ? low : 0.5 * (low + high); /* also of infinities */
}

double nd_report_median(const nd_report_run *run, size_t field)
{
    double *values = malloc((run->count + 1) * sizeof *values);
    size_t count = 0;
    if (!values)
        return NAN;
    for (size_t i = 0; i < run->count; i++)
        if (isfinite(value(run, i, field)))
            values[count++] = value(run, i, field);
    const double median = nd_report_median_of(values, count);
    free(values);
    return median;
}

double nd_report_tokens_per_second(const nd_report_run *run)
{
    double *values = malloc((run->count + 1) * sizeof *values);
    size_t count = 0;
    if (!values)
        return NAN;
    for (size_t i = 0; i < run->count; i++) {
        const nd_report_step *step = &run->steps[i];
        const double steps = i > 0 ? step->step - run->steps[i - 1].step : step->step;
        const double tokens = i > 0 ? step->tokens - run->steps[i - 1].tokens : step->tokens;
        if (steps == 1.0 && isfinite(tokens) && step->step_ms > 0.0)
            values[count++] = tokens / (step->step_ms * 1e-3);
    }
    const double median = nd_report_median_of(values, count);
    free(values);
    return median;
}

double nd_report_mean(const nd_report_run *run, size_t field)
{
    double sum = 0.0;
    size_t count = 0;
    for (size_t i = 0; i < run->count; i++)
        if (isfinite(value(run, i, field))) {
            sum += value(run, i, field);
            count++;
        }
    return count > 0 ? sum / (double)count : NAN;
}

/* fmax and fmin of NaN and a number are the number. */
double nd_report_largest(const nd_report_run *run, size_t field)
{
    double largest = NAN;
    for (size_t i = 0; i < run->count; i++)
        largest = fmax(largest, value(run, i, field));
    return largest;
}

double nd_report_smallest(const nd_report_run *run, size_t field)
{
    double smallest = NAN;
    for (size_t i = 0; i < run->count; i++)
        smallest = fmin(smallest, value(run, i, field));
    return smallest;
}

double nd_report_last(const nd_report_run *run, size_t field)
{
    for (size_t i = run->count; i > 0; i--)
        if (isfinite(value(run, i - 1, field)))
            return value(run, i - 1, field);
    return NAN;
}

double nd_report_share(const nd_report_run *run, size_t part, size_t whole)
{
    double parts = 0.0, wholes = 0.0;
    for (size_t i = 0; i < run->count; i++) {
        const double p = value(run, i, part), w = value(run, i, whole);
        if (isfinite(p) && isfinite(w)) {
            parts += p;
            wholes += w;
        }
    }
    return wholes > 0.0 ? parts / wholes : NAN;
}

double nd_report_memory(const nd_report *report, const nd_report_run *run, const char *category)
{
    for (int i = 0; i < report->category_count; i++)
        if (strcmp(report->categories[i], category) == 0)
            return run->memory[i];
    return NAN;
}

double nd_report_memory_total(const nd_report *report, const nd_report_run *run)
{
    double total = NAN;
    for (int i = 0; i < report->category_count; i++) {
        if (strcmp(report->categories[i], "program") == 0 ||
            strcmp(report->categories[i], "loader") == 0 || isnan(run->memory[i]))
            continue;
        total = isnan(total) ? run->memory[i] : total + run->memory[i];
    }
    return total;
}

nd_report_crossing nd_report_tokens_to_loss(const nd_report_run *run, double target, double *tokens)
{
    double last_tokens = NAN, last_loss = NAN;
    for (size_t i = 0; i < run->count; i++) {
        const nd_report_step *step = &run->steps[i];
        if (!isfinite(step->val_loss) || !isfinite(step->tokens))
            continue;
        if (step->val_loss <= target) {
            *tokens = step->tokens;
            if (isnan(last_loss))
                return ND_CROSSING_AT_FIRST;
            *tokens = last_tokens + (last_loss - target) / (last_loss - step->val_loss) *
                                        (step->tokens - last_tokens);
            return ND_CROSSING_FOUND;
        }
        last_tokens = step->tokens;
        last_loss = step->val_loss;
    }
    *tokens = isnan(last_loss) ? NAN : INFINITY;
    return isnan(last_loss) ? ND_CROSSING_NO_CURVE : ND_CROSSING_NEVER;
}

double nd_report_loss_at(const nd_report_run *run, double tokens)
{
    double last_tokens = NAN, last_loss = NAN;
    for (size_t i = 0; i < run->count; i++) {
        const nd_report_step *step = &run->steps[i];
        if (!isfinite(step->val_loss) || !isfinite(step->tokens))
            continue;
        if (step->tokens == tokens)
            return step->val_loss;
        if (step->tokens > tokens)
            return last_loss + (step->val_loss - last_loss) * (tokens - last_tokens) /
                                   (step->tokens - last_tokens);
        last_tokens = step->tokens;
        last_loss = step->val_loss;
    }
    return NAN;
}

double nd_report_tokens_saved(const nd_report_run *run, const nd_report_run *baseline,
                              double target)
{
    double mine = NAN, theirs = NAN;
    const nd_report_crossing crossing = nd_report_tokens_to_loss(baseline, target, &theirs);
    if (crossing != ND_CROSSING_FOUND)
        return NAN;
    nd_report_tokens_to_loss(run, target, &mine);
    return 1.0 - mine / theirs;
}

double nd_report_gradient_norms_within(const nd_report_run *run, double low, double high)
{
    const double warmup = run->config ? (double)run->config->training.warmup_steps : 0.0;
    size_t inside = 0, count = 0;
    for (size_t i = 0; i < run->count; i++) {
        const nd_report_step *step = &run->steps[i];
        if (step->step <= warmup || isnan(step->grad_norm))
            continue;
        count++;
        inside += step->grad_norm >= low && step->grad_norm <= high;
    }
    return count > 0 ? (double)inside / (double)count : NAN;
}
