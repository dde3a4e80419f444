/* Whether the results of a step are usable, and the statistics of those that were not.
 *
 * All ranks judge the same shared numbers, so they reach the same verdict without communication. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { ND_HEALTH_WINDOW = 64, ND_HEALTH_ENOUGH = 16 };

typedef enum nd_verdict {
    ND_VERDICT_GOOD,
    ND_VERDICT_LOSS,    /* a loss is not finite; `culprit` is its micro-batch */
    ND_VERDICT_SPIKE,   /* the loss is `score` standard deviations above the recent ones */
    ND_VERDICT_GRADIENT /* a gradient is not finite; `culprit` is its parameter */
} nd_verdict;

/* The judgement of one step. */
typedef struct nd_judgement {
    nd_verdict verdict;
    int64_t culprit;
    double score;
} nd_judgement;

/* The health of a run; saved in checkpoints. */
typedef struct nd_health {
    int64_t skipped;                 /* steps without an update so far */
    int64_t consecutive_skips;       /* of these, steps since the last update */
    int64_t rollbacks;               /* returns to a checkpoint so far */
    double recent[ND_HEALTH_WINDOW]; /* losses of the latest steps with updates, oldest first */
    int64_t recent_count;
} nd_health;

/* Standard deviations of `loss` above the recent mean; 0 with fewer than ND_HEALTH_ENOUGH. */
double nd_health_score(const nd_health *health, double loss);

/* Counts the step and, when it was good, records its loss. */
void nd_health_end_step(nd_health *health, bool good, double loss);

/* After a rollback restored an older state: keeps the counts of `before`, the state before the
 * rollback, and counts the rollback. */
void nd_health_roll_back(nd_health *health, const nd_health *before);
