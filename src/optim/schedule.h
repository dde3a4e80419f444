/* Learning-rate schedules: a factor in (0, 1] to multiply a group's peak rate with. */
#pragma once

#include <stdint.h>

typedef enum nd_schedule_type {
    ND_SCHEDULE_WSD,     /* warm up, stay, decay linearly */
    ND_SCHEDULE_COSINE,  /* warm up, then half a cosine */
    ND_SCHEDULE_CONSTANT /* warm up, stay */
} nd_schedule_type;

typedef struct nd_schedule {
    nd_schedule_type type;
    int64_t total_steps;
    int64_t warmup_steps;
    double stable_ratio; /* WSD: the part of total_steps before the decay starts */
    double min_lr_ratio; /* the factor that the last step ends on */
} nd_schedule;

/* The factor at `step`, 0 <= step < total_steps. Warm-up is (step + 1) / warmup_steps, so that step
 * 0 already moves; the last step has min_lr_ratio exactly (WSD and cosine). */
double nd_schedule_factor(const nd_schedule *schedule, int64_t step);
