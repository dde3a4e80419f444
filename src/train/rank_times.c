#include "train/rank_times.h"

#include <stdlib.h>

static const double slow_factor = 1.2;

const char *nd_phase_name(nd_phase phase)
{
    static const char *const names[] = {"data",      "forward_backward", "wait",
                                        "reduction", "update",           "gather"};
    return names[phase];
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `values` [ranks] by rank; sorts them. */
static nd_phase_range range_of(double *values, int ranks)
{
    int slowest = 0;
    for (int r = 1; r < ranks; r++)
        if (values[r] > values[slowest])
            slowest = r;
    qsort(values, (size_t)ranks, sizeof *values, ascending);
    return (nd_phase_range){values[0], values[(ranks - 1) / 2], values[ranks - 1], slowest};
}

nd_times_summary nd_times_summarize(const nd_rank_times *times, int64_t stride, int ranks,
                                    double *sorted)
{
    static const bool own[ND_PHASE_COUNT] = {
        [ND_PHASE_DATA] = true, [ND_PHASE_FORWARD_BACKWARD] = true, [ND_PHASE_UPDATE] = true};
    nd_times_summary summary = {.own = {0}};
    for (int p = 0; p <= ND_PHASE_COUNT; p++) {
        for (int r = 0; r < ranks; r++) {
            const nd_rank_times *t =
                (const nd_rank_times *)((const char *)times + (int64_t)r * stride);
            sorted[r] = p < ND_PHASE_COUNT ? (double)t->ms[p] : 0.0;
            for (int q = 0; p == ND_PHASE_COUNT && q < ND_PHASE_COUNT; q++)
                sorted[r] += own[q] ? (double)t->ms[q] : 0.0;
        }
        *(p < ND_PHASE_COUNT ? &summary.phases[p] : &summary.own) = range_of(sorted, ranks);
    }
    return summary;
}

bool nd_slow_rank_found(nd_slow_rank *slow, const nd_times_summary *summary)
{
    const bool is_slow = summary->own.max > slow_factor * summary->own.median;
    if (!is_slow || summary->own.rank != slow->rank)
        *slow = (nd_slow_rank){is_slow ? summary->own.rank : -1, 0};
    return is_slow && ++slow->steps == ND_SLOW_STEPS;
}
