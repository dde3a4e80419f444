/* Synthetic text: a chain whose next token depends on the two before it, so that a model can learn
 * it and the loss it can reach is known.
 *
 * Of the vocabulary, A = min(vocab_size, 256) tokens are used. Each has four successors, which
 * follow with probabilities 1/2, 1/4, 1/8, 1/8; the token before it decides which successor has
 * which probability. In nats a token, a model reaches about log(A) - 0.02 when it has learned which
 * tokens exist, 1.33 with the last token alone, and 1.213 (1.75 bits), the floor, with the last
 * two. Token t of a window is a pure function of (seed, window, t). */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

enum { ND_SYNTHETIC_ALPHABET = 256, ND_SYNTHETIC_SUCCESSORS = 4 };

/* Entropy of a token given all before it, in nats: 1.75 log 2. */
#define ND_SYNTHETIC_ENTROPY 1.2130075659799042

typedef struct nd_synthetic {
    uint64_t key;
    int32_t alphabet;
    int32_t tokens[ND_SYNTHETIC_ALPHABET];                              /* the tokens used */
    uint8_t successors[ND_SYNTHETIC_ALPHABET][ND_SYNTHETIC_SUCCESSORS]; /* indices into tokens */
    uint8_t rotation[ND_SYNTHETIC_ALPHABET]; /* how the token before last shifts the successors */
} nd_synthetic;

/* Errors: ND_ECONFIG when the vocabulary is below the number of successors. */
nd_status nd_synthetic_open(nd_synthetic *chain, uint64_t seed, int64_t vocab_size);

/* The first `count` tokens of window `index`. Thread-safe. */
void nd_synthetic_window(const nd_synthetic *chain, int64_t index, int64_t count, int32_t *tokens);
