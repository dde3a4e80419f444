/* Sampling of tokens with unequal probabilities and a fixed sample size. With weights 1/p the
 * expected weighted sum over the sample is the sum over all tokens (Horvitz and Thompson, "A
 * generalization of sampling without replacement from a finite universe", JASA 47, 1952). */
#pragma once

#include <stdint.h>

/* p[t] = min(1, c score[t]), c such that their sum is `count` <= tokens. Scores are finite and
 * > 0. */
void nd_token_probabilities(const double *scores, int64_t tokens, int64_t count, double *p);

/* Systematic sampling: draws tokens of probability 1, and another one wherever the sum of
 * probabilities, in the given order, passes offset, offset + 1, ...; 0 <= offset < 1. Sets
 * chosen[t] to 1 for exactly `count` tokens, the sum of p, and to 0 for the others. Neighbors in
 * the order are seldom drawn together, so similar tokens should be neighbors. */
void nd_token_draw(const double *p, int64_t tokens, int64_t count, const int32_t *order,
                   double offset, int32_t *chosen);
