/* Generates text token by token, for `sample` with and without --chat. */
#pragma once

#include "core/model/generate.h"
#include "exchange/out_file.h"
#include "train/checkpoint/load_model.h"

typedef struct nd_sampler {
    const nd_loaded_model *loaded;
    nd_sampling sampling;
    int64_t draws;           /* number of tokens drawn so far */
    bool ids;                /* print token ids instead of text */
    const char *stop;        /* text that ends a reply; NULL: none */
    nd_out_file *logits_out; /* f32 [fed tokens, vocab_size]; NULL: not written */

    nd_generator generator;
    nd_arena arena;
    float *logits; /* after the last token fed */
} nd_sampler;

typedef enum nd_reply_end {
    ND_REPLY_MARK,   /* the model ended the document */
    ND_REPLY_STOP,   /* the stop text appeared */
    ND_REPLY_LENGTH, /* max_tokens */
    ND_REPLY_FULL    /* the context is full */
} nd_reply_end;

/* The caller has set the fields above `generator`. The cache of keys and values grows as tokens are
 * fed. */
nd_status nd_sampler_open(nd_sampler *sampler);
void nd_sampler_close(nd_sampler *sampler);

/* The token that separates documents; -1 when the tokenizer has none. */
int32_t nd_sampler_mark(const nd_sampler *sampler);

/* Reserves memory for `tokens` tokens in all, or for max_seq_len where that is less; the cache
 * keeps its content. Errors: ND_ENOMEM. */
nd_status nd_sampler_reserve(nd_sampler *sampler, int64_t tokens);

/* Tokens that still fit the context, max_seq_len. */
int64_t nd_sampler_remaining(const nd_sampler *sampler);

/* Runs tokens through the model. Errors: ND_EDATA when they do not fit. */
nd_status nd_sampler_feed(nd_sampler *sampler, const int32_t *tokens, size_t count);

/* Draws and prints at most `max_tokens` tokens, which are then in the cache, except `*rest`: the
 * printed part of a token that the stop text cut (the caller frees it; NULL when there is none). */
nd_status nd_sampler_reply(nd_sampler *sampler, int64_t max_tokens, nd_reply_end *end, char **rest);
