#include "train/log/rank_times.h"

#include "core/base/grow.h"

static const double slow_factor = 1.2;

const char *nd_phase_name(nd_phase phase)
{
    static const char *const names[] = {"data",      "forward_backward", "wait",
                                        "reduction", "update",           "gather"};
    return names[phase];
}

/* `values` [ranks] by rank; sorts them. */
static nd_phase_range range_of(double *values, int ranks)
{
    int slowest = 0;
    for (int r = 1; r < ranks; r++)
        if (values[r] > values[slowest])
            slowest = r;
    qsort(values, (size_t)ranks, sizeof *values, nd_ascending);
    return (nd_phase_range){values[0], values[(ranks - 1) / 2], values[ranks - 1], slowest};
}

/* What a rank does without the others. */
static const bool own[ND_PHASE_COUNT] = {
    [ND_PHASE_DATA] = true, [ND_PHASE_FORWARD_BACKWARD] = true, [ND_PHASE_UPDATE] = true};

static const nd_rank_times *times_of(const nd_rank_times *times, int64_t stride, int rank)
{
    return (const nd_rank_times *)((const char *)times + (int64_t)rank * stride);
}

static double own_ms(const nd_rank_times *t)
{
    double ms = 0.0;
    for (int p = 0; p < ND_PHASE_COUNT; p++)
        ms += own[p] ? (double)t->ms[p] : 0.0;
    return ms;
}

nd_times_summary nd_times_summarize(const nd_rank_times *times, int64_t stride, int ranks,
                                    double *sorted)
{
    nd_times_summary summary = {.own = {0}};
    for (int p = 0; p <= ND_PHASE_COUNT; p++) {
        for (int r = 0; r < ranks; r++) {
            const nd_rank_times *t = times_of(times, stride, r);
            sorted[r] = p < ND_PHASE_COUNT ? (double)t->ms[p] : own_ms(t);
        }
        *(p < ND_PHASE_COUNT ? &summary.phases[p] : &summary.own) = range_of(sorted, ranks);
    }
    return summary;
}

void nd_slow_ranks_add(nd_slow_rank *slow, const nd_rank_times *times, int64_t stride, int ranks,
                       const nd_times_summary *summary)
{
    for (int r = 0; r < ranks; r++) {
        const nd_rank_times *t = times_of(times, stride, r);
        nd_slow_rank *s = &slow[r];
        double most = -1.0;
        s->own_ms = own_ms(t);
        s->steps = s->own_ms > slow_factor * summary->own.median ? s->steps + 1 : 0;
        for (int p = 0; p < ND_PHASE_COUNT; p++) {
            const double above = (double)t->ms[p] - summary->phases[p].median;
            if (!own[p] || above <= most)
                continue;
            most = above;
            s->worst = (nd_phase)p;
            s->worst_ms = (double)t->ms[p];
        }
    }
}
