/* How many ternary codes change in a step, over a real run, and what it would take to send only
 * those.
 *
 *   bench_flips --config FILE [--steps N] [--set SECTION.KEY=VALUE]...
 *
 * Columns, means of ten steps: part of the codes that changed; bits a code of five codes to a byte;
 * of a bit for each group of five codes and the changed groups; of a byte for each change, 7 bits
 * of distance and one that says which of the two other codes, 127 for a longer distance; and the
 * entropy of independent changes with that bit, below which no code of theirs can come. */
#include "bench_run.h"

#include "train/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 10, LONGEST = 127 };

typedef struct tally {
    double codes, changed, groups, changed_groups, distance_bytes;
} tally;

static void compare(const int8_t *before, const int8_t *now, int64_t count, tally *t)
{
    int64_t last = -1;
    for (int64_t first = 0; first < count; first += 5) {
        bool any = false;
        for (int64_t i = first; i < first + 5 && i < count; i++) {
            if (before[i] == now[i])
                continue;
            any = true;
            t->changed += 1.0;
            t->distance_bytes += (double)((i - last - 1) / LONGEST + 1);
            last = i;
        }
        t->groups += 1.0;
        t->changed_groups += any;
    }
    t->codes += (double)count;
}

static double entropy(double p)
{
    return p > 0.0 && p < 1.0 ? -p * log2(p) - (1.0 - p) * log2(1.0 - p) + p : 0.0;
}

static void print(const nd_run *run, const tally *t, double lr, double loss)
{
    const double p = t->changed / t->codes;
    printf("%6lld  lr %.5f  loss %.4f  changed %8.5f %%  trits 1.600  groups %.3f  distances %.3f  "
           "entropy %.3f\n",
           (long long)run->position.step, lr, loss, 100.0 * p,
           (t->groups + 8.0 * t->changed_groups) / t->codes, 8.0 * t->distance_bytes / t->codes,
           entropy(p));
    fflush(stdout);
}

/* Copies the model's codes to `before`, or with `t` compares them with those there. */
static void go_through(const nd_run *run, int8_t *before, tally *t)
{
    for (int64_t i = 0; i < run->model->params.count; i++) {
        const nd_view c = run->model->weights[i].codes;
        const int64_t count = nd_view_count(nd_as_const(c));
        if (!run->model->weights[i].ternary)
            continue;
        if (t)
            compare(before, c.data, count, t);
        else
            memcpy(before, c.data, (size_t)count);
        before += count;
    }
}

static nd_status measure(nd_run *run, int64_t steps)
{
    ND_AUTOFREE int8_t *before = malloc((size_t)nd_params_ternary(&run->model->params));
    ND_FAIL_IF(!before, ND_ENOMEM, "no memory for a copy of the codes");
    tally t = {0};
    for (int64_t step = 0; step < steps; step++) {
        nd_step_result result = {0};
        go_through(run, before, NULL);
        ND_TRY(nd_step_run(run, false, &result));
        go_through(run, before, &t);
        if ((step + 1) % WINDOW == 0) {
            print(run, &t, result.lr, result.loss);
            t = (tally){0};
        }
    }
    return ND_OK;
}

int main(int argc, char **argv)
{
    static const char *forced[] = {"hardware.target=cpu", "hardware.pack_ternary_weights=false",
                                   NULL};
    const bench_program program = {.name = "bench_flips",
                                   .summary = "Ternary codes that change in a step.",
                                   .count = "--steps",
                                   .count_most = 1000000,
                                   .forced = forced,
                                   .measure = measure};
    return bench_main(&program, argc, argv);
}
