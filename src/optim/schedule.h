/* Learning-rate schedules: a factor in [0, 1] for the peak learning rate of a parameter group. */
#pragma once

#include <stdint.h>

typedef enum nd_schedule_type {
    ND_SCHEDULE_WSD,     /* warm-up, constant, linear decay */
    ND_SCHEDULE_COSINE,  /* warm-up, then half a cosine */
    ND_SCHEDULE_CONSTANT /* warm-up, constant */
} nd_schedule_type;

typedef struct nd_schedule {
    nd_schedule_type type;
    int64_t total_steps;
    int64_t warmup_steps;
    double stable_ratio; /* WSD: the fraction of total_steps before the decay starts */
    double min_lr_ratio; /* the factor of the last step */
} nd_schedule;

/* The factor at `step`, 0 <= step < total_steps. Warm-up is (step + 1) / warmup_steps, so step 0
 * already updates; the last step has exactly min_lr_ratio (WSD and cosine). */
double nd_schedule_factor(const nd_schedule *schedule, int64_t step);
