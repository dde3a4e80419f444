/* The durations of a step's phases on each rank, and which rank is slower than the others. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Reduction and gather include waiting; the other phases do not. With immediate updates the
 * reduction is part of the backward pass, and its waiting counts as ND_PHASE_WAIT alone. */
typedef enum nd_phase {
    ND_PHASE_DATA,             /* blocked on the loader */
    ND_PHASE_FORWARD_BACKWARD, /* all micro-batches */
    ND_PHASE_WAIT,             /* inside collectives, or for non-blocking ones to complete */
    ND_PHASE_REDUCTION,        /* of gradients, after the backward pass */
    ND_PHASE_UPDATE,           /* of masters */
    ND_PHASE_GATHER,           /* of weights */
    ND_PHASE_COUNT
} nd_phase;

/* Milliseconds of one rank's step. */
typedef struct nd_rank_times {
    float ms[ND_PHASE_COUNT];
} nd_rank_times;

typedef struct nd_phase_range {
    double min, median, max; /* over the ranks; the lower median of an even number */
    int rank;                /* of the maximum; the lowest one on a tie */
} nd_phase_range;

/* The times of all ranks in a step, summarized. */
typedef struct nd_times_summary {
    nd_phase_range phases[ND_PHASE_COUNT];
    nd_phase_range own; /* data, passes and update: work that does not involve other ranks */
} nd_times_summary;

/* How one rank compares with the median rank in what it does without the others. */
typedef struct nd_slow_rank {
    int64_t steps;  /* consecutive steps, up to the last, over 20 % longer than the median */
    nd_phase worst; /* of the last step: the own phase that was furthest above the median */
    double worst_ms, own_ms; /* what that phase took, and all own phases */
} nd_slow_rank;

enum { ND_SLOW_STEPS = 10 };

/* "data", "forward_backward" ... */
const char *nd_phase_name(nd_phase phase);

/* Summarises the times of `ranks` ranks, the first at `times`, `stride` bytes apart. `sorted`
 * [ranks] is scratch. Not collective. */
nd_times_summary nd_times_summarize(const nd_rank_times *times, int64_t stride, int ranks,
                                    double *sorted);

/* Adds a step to the counts of all ranks, slow[ranks]; `times` and `stride` as above, with their
 * `summary`. Callers report a rank when its `steps` reach ND_SLOW_STEPS, once per sequence; on a
 * slow host several ranks do together. Not collective. */
void nd_slow_ranks_add(nd_slow_rank *slow, const nd_rank_times *times, int64_t stride, int ranks,
                       const nd_times_summary *summary);
