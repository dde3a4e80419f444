#include "core/model/token_sample.h"

#include <math.h>
#include <stdbool.h>

void nd_token_probabilities(const double *scores, int64_t tokens, int64_t count, double *p)
{
    bool more = true;
    for (int64_t t = 0; t < tokens; t++)
        p[t] = 0.0;
    while (more) { /* each round sets some p to 1, which raises c for the others */
        double rest = 0.0;
        int64_t certain = 0;
        for (int64_t t = 0; t < tokens; t++) {
            certain += p[t] >= 1.0;
            rest += p[t] >= 1.0 ? 0.0 : scores[t];
        }
        const double c = rest > 0.0 ? (double)(count - certain) / rest : 0.0;
        more = false;
        for (int64_t t = 0; t < tokens; t++)
            if (p[t] < 1.0) {
                p[t] = fmin(1.0, c * scores[t]);
                more |= p[t] >= 1.0;
            }
    }
}

void nd_token_draw(const double *p, int64_t tokens, int64_t count, const int32_t *order,
                   double offset, int32_t *chosen)
{
    double sum = 0.0, next = offset;
    int64_t left = count;
    for (int64_t t = 0; t < tokens; t++) {
        chosen[t] = p[t] >= 1.0;
        left -= chosen[t];
    }
    for (int64_t i = 0; i < tokens && left > 0; i++) {
        if (p[order[i]] >= 1.0)
            continue;
        sum += p[order[i]];
        if (sum > next) {
            chosen[order[i]] = 1;
            next += 1.0;
            left--;
        }
    }
    for (int64_t i = tokens - 1; left > 0; i--) /* rounding may leave the sum just below count */
        if (!chosen[order[i]]) {
            chosen[order[i]] = 1;
            left--;
        }
}
