#include "optim/mtp_schedule.h"

#include <math.h>
#include <string.h>

/* The fraction of target j's weight at `progress` through the run. */
static double schedule_factor(const nd_config *config, int64_t j, double progress)
{
    if (progress >= config->training.mtp_until)
        return 0.0;
    const int64_t extras = config->training.mtp_n_tokens - 1;
    switch ((nd_mtp_schedule)config->training.mtp_schedule) {
    case ND_MTP_CONSTANT:
        return 1.0;
    case ND_MTP_LINEAR:
        return 1.0 - progress;
    case ND_MTP_THIRDS:
        break;
    }
    if (progress < 1.0 / 3.0)
        return 1.0;
    return progress < 2.0 / 3.0 && j <= (extras + 1) / 2 ? 1.0 : 0.0;
}

void nd_mtp_weights(const nd_config *config, int64_t step, float weights[ND_OFFSETS_MAX])
{
    const double progress = (double)step / (double)config->training.total_steps;
    memset(weights, 0, ND_OFFSETS_MAX * sizeof *weights);
    weights[0] = 1.0f;
    for (int64_t j = 1; config->training.use_mtp && j < config->training.mtp_n_tokens; j++)
        weights[j] = (float)(config->training.mtp_weight * pow(2.0, 1.0 - (double)j) *
                             schedule_factor(config, j, progress));
}
