#include "train/health.h"

#include <math.h>
#include <string.h>

double nd_health_score(const nd_health *health, double loss)
{
    const double n = (double)health->recent_count;
    double mean = 0.0, variance = 0.0;
    if (health->recent_count < ND_HEALTH_ENOUGH)
        return 0.0;
    for (int64_t i = 0; i < health->recent_count; i++)
        mean += health->recent[i] / n;
    for (int64_t i = 0; i < health->recent_count; i++)
        variance += (health->recent[i] - mean) * (health->recent[i] - mean) / (n - 1.0);
    const double least = 1e-6 * fabs(mean) + 1e-12; /* equal losses have no deviation */
    return (loss - mean) / fmax(sqrt(variance), least);
}

void nd_health_end_step(nd_health *health, bool good, double loss)
{
    if (!good) {
        health->skipped++;
        health->consecutive_skips++;
        return;
    }
    health->consecutive_skips = 0;
    if (health->recent_count == ND_HEALTH_WINDOW) {
        memmove(health->recent, health->recent + 1, sizeof health->recent - sizeof(double));
        health->recent_count--;
    }
    health->recent[health->recent_count++] = loss;
}

void nd_health_roll_back(nd_health *health, const nd_health *before)
{
    health->skipped = before->skipped;
    health->rollbacks = before->rollbacks + 1;
    health->consecutive_skips = 0;
}
