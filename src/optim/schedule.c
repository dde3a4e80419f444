#include "optim/schedule.h"

#include <math.h>

/* Progress of `step` in (start, end]: 0 before start, 1 at the last step. */
static double progress(int64_t step, int64_t start, int64_t end)
{
    if (step < start)
        return 0.0;
    if (step >= end - 1)
        return 1.0;
    return (double)(step + 1 - start) / (double)(end - start);
}

double nd_schedule_factor(const nd_schedule *schedule, int64_t step)
{
    if (step < schedule->warmup_steps)
        return (double)(step + 1) / (double)schedule->warmup_steps;
    const double floor_ratio = schedule->min_lr_ratio;
    int64_t decay_start;
    switch (schedule->type) {
    case ND_SCHEDULE_WSD:
        decay_start = (int64_t)llround(schedule->stable_ratio * (double)schedule->total_steps);
        if (decay_start < schedule->warmup_steps)
            decay_start = schedule->warmup_steps;
        return 1.0 - (1.0 - floor_ratio) * progress(step, decay_start, schedule->total_steps);
    case ND_SCHEDULE_COSINE: {
        const double p = progress(step, schedule->warmup_steps, schedule->total_steps);
        return floor_ratio + (1.0 - floor_ratio) * 0.5 * (1.0 + cos(3.14159265358979323846 * p));
    }
    case ND_SCHEDULE_CONSTANT:
        break;
    }
    return 1.0;
}
