/* How long the phases of a step take on each rank, and which rank is slower than the others. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Reduction and gather contain the waiting in them; the others do not. With immediate updates the reduction is
 * a part of the backward pass, and what is waited for there counts as waiting alone. */
typedef enum nd_phase {
    ND_PHASE_DATA,             /* blocked on the loader */
    ND_PHASE_FORWARD_BACKWARD, /* all micro-batches */
    ND_PHASE_WAIT,             /* inside collectives, or until those begun before were done */
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
    double min, median, max; /* over the ranks; of an even number the lower median */
    int rank;                /* of the maximum; the lowest such */
} nd_phase_range;

/* All ranks' times of a step, summarised. */
typedef struct nd_times_summary {
    nd_phase_range phases[ND_PHASE_COUNT];
    nd_phase_range own; /* data, passes and update: what a rank does without the others */
} nd_times_summary;

/* How one rank compares with the median rank in what it does without the others. */
typedef struct nd_slow_rank {
    int64_t steps;  /* in a row in which it took 20 % longer; 0: the last was not one of them */
    nd_phase worst; /* of the last step: the phase that was furthest above the median, */
    double worst_ms, own_ms; /* what that took, and all of its own */
} nd_slow_rank;

enum { ND_SLOW_STEPS = 10 };

/* "data", "forward_backward" ... */
const char *nd_phase_name(nd_phase phase);

/* `times` of `ranks` ranks, the first at `times`, `stride` bytes apart. `sorted` [ranks] is scratch. Not
 * collective. */
nd_times_summary nd_times_summarize(const nd_rank_times *times, int64_t stride, int ranks,
                                    double *sorted);

/* Adds a step to what is known of each rank, slow[ranks]; `times` and `stride` as above, `summary` of them. A rank is to
 * be named when its `steps` reach ND_SLOW_STEPS, once for each such row of steps. Several are slow together where a host
 * is. Not collective. */
void nd_slow_ranks_add(nd_slow_rank *slow, const nd_rank_times *times, int64_t stride, int ranks,
                       const nd_times_summary *summary);
