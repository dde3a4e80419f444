/* Generation: one token after another, with a cache of past keys and values. */
#pragma once

#include "core/model/model.h"

typedef struct nd_generator {
    nd_model *model;           /* not owned; only its weights are used */
    int64_t max_tokens;        /* longest sequence: prompt and continuation */
    int64_t chunk;             /* tokens of a prompt computed at once */
    int64_t length;            /* tokens in the cache */
    nd_view *keys, *values;    /* [num_layers][max_tokens, kv_heads*head_dim] */
    nd_layer_activations acts; /* of `chunk` tokens, shared by all layers */
    nd_layer_scratch scratch;
    nd_view tokens, x_last, x_final, final_r, logits;
} nd_generator;

typedef struct nd_sampling {
    double temperature; /* 0: the most likely token */
    int64_t top_k;      /* 0: all */
    uint64_t seed;
} nd_sampling;

/* Reserves caches and activations; run on a sizing arena, commit, run again. Errors: ND_ENOMEM. */
nd_status nd_generator_reserve(nd_generator *generator, nd_model *model, int64_t max_tokens,
                               nd_arena *arena);
void nd_generator_destroy(nd_generator *generator);

/* Runs `count` tokens through the model, after those already in the cache. `logits` [vocab_size],
 * in host memory, receives those of the last one. Errors: ND_EDATA when the cache is full,
 * ND_ENUMERIC when a logit is NaN. */
nd_status nd_generator_feed(nd_generator *generator, const int32_t *tokens, int64_t count,
                            float *logits);

/* Draws a token from softmax(logits / temperature) among the top_k. The draw depends on the seed
 * and `position` alone, so a seed reproduces the text. Overwrites `logits`. */
int32_t nd_sample_token(const nd_sampling *sampling, int64_t position, float *logits,
                        int64_t vocab_size);
