#include "core/model/generate.h"

#include "core/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_TOKENS = 128 };

nd_status nd_generator_reserve(nd_generator *g, nd_model *model, int64_t max_tokens,
                               nd_arena *arena)
{
    const nd_model_config *c = &model->config;
    const nd_dtype wide = nd_dtype_wide(c->compute);
    const int64_t kv = c->num_kv_heads * c->head_dim;
    g->model = model;
    g->max_tokens = max_tokens;
    g->chunk = max_tokens < CHUNK_TOKENS ? max_tokens : CHUNK_TOKENS;
    if (!g->keys)
        g->keys = calloc((size_t)c->num_layers, sizeof *g->keys);
    if (!g->values)
        g->values = calloc((size_t)c->num_layers, sizeof *g->values);
    ND_FAIL_IF(!g->keys || !g->values, ND_ENOMEM, "no memory for the table of caches");
    for (int64_t l = 0; l < c->num_layers; l++) {
        ND_TRY(nd_arena_reserve(arena, c->compute, max_tokens, kv, &g->keys[l]));
        ND_TRY(nd_arena_reserve(arena, c->compute, max_tokens, kv, &g->values[l]));
    }
    ND_TRY(nd_layer_activations_reserve(arena, c, g->chunk, &g->acts));
    ND_TRY(nd_layer_scratch_reserve(arena, c, g->chunk, false, &g->scratch));
    ND_TRY(nd_arena_reserve(arena, ND_I32, 1, g->chunk, &g->tokens));
    ND_TRY(nd_arena_reserve(arena, c->compute, g->chunk, c->hidden_dim, &g->x_last));
    ND_TRY(nd_arena_reserve(arena, c->compute, 1, c->hidden_dim, &g->x_final));
    ND_TRY(nd_arena_reserve(arena, wide, 1, 1, &g->final_r));
    return nd_arena_reserve(arena, ND_F32, 1, c->vocab_size, &g->logits);
}

void nd_generator_destroy(nd_generator *g)
{
    free(g->keys);
    free(g->values);
    memset(g, 0, sizeof *g);
}

/* The activations of `rows` new tokens, with their keys and values stored in the caches. */
static nd_layer_activations first_rows(const nd_generator *g, int64_t layer, int64_t rows)
{
    nd_layer_activations a = g->acts;
    nd_view *const views[] = {&a.x, &a.q, &a.o, &a.lse, &a.x_mid, &a.gate, &a.up};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++)
        views[i]->rows = rows;
    a.k = nd_view_rows(g->keys[layer], g->length, rows);
    a.v = nd_view_rows(g->values[layer], g->length, rows);
    return a;
}

static nd_status feed_chunk(nd_generator *g, const int32_t *tokens, int64_t count)
{
    const nd_model *m = g->model;
    nd_backend *b = m->backend;
    const nd_view ids = nd_view_of(g->tokens.data, ND_I32, 1, count);
    nd_view x = nd_view_rows(g->acts.x, 0, count), next = nd_view_rows(g->x_last, 0, count);
    ND_TRY(b->ops.upload(b, ids.data, tokens, nd_view_bytes(nd_as_const(ids))));
    ND_TRY(b->ops.embedding(b, x, nd_model_dense(m, nd_params_embedding(&m->params)),
                            nd_as_const(ids)));
    for (int64_t l = 0; l < m->config.num_layers; l++) {
        nd_layer_activations acts = first_rows(g, l, count);
        nd_layer_pass pass = nd_model_layer_pass(m, &acts, nd_params_layer_index, l);
        pass.scratch = &g->scratch;
        pass.span = (nd_layer_span){
            .sequences = 1,
            .query_len = count,
            .start = g->length,
            .keys = nd_view_rows(g->keys[l], 0, g->length + count),
            .values = nd_view_rows(g->values[l], 0, g->length + count),
        };
        acts.x = x;
        ND_TRY(nd_layer_forward(&pass, next));
        const nd_view previous = x;
        x = next;
        next = previous;
    }
    g->length += count;
    const nd_view last = nd_view_rows(x, count - 1, 1);
    return b->ops.rmsnorm(b, g->x_final, g->final_r, nd_as_const(last),
                          nd_model_dense(m, nd_params_output_norm(&m->params)));
}

nd_status nd_generator_feed(nd_generator *g, const int32_t *tokens, int64_t count, float *logits)
{
    const nd_model *m = g->model;
    nd_backend *b = m->backend;
    ND_FAIL_IF(count < 1 || g->length + count > g->max_tokens, ND_EDATA,
               "%lld tokens after %lld do not fit in a context of %lld", (long long)count,
               (long long)g->length, (long long)g->max_tokens);
    for (int64_t at = 0; at < count; at += g->chunk)
        ND_TRY(feed_chunk(g, tokens + at, count - at < g->chunk ? count - at : g->chunk));
    ND_TRY(b->ops.gemm(b, g->logits, nd_as_const(g->x_final), false,
                       nd_model_dense(m, nd_params_head(&m->params)), true, 1.0f, 0.0f));
    ND_TRY(b->ops.download(b, logits, g->logits.data, nd_view_bytes(nd_as_const(g->logits))));
    for (int64_t i = 0; i < nd_model_pieces(m); i++)
        ND_FAIL_IF(isnan(logits[i]), ND_ENUMERIC,
                   "the model's logits are not finite: its weights hold NaN or infinite values, or "
                   "too large ones");
    return ND_OK;
}

/* An integer that orders as `x` does: its bits, reversed where negative. */
static uint32_t order_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

/* The order of the k-th largest logit, bit by bit: the largest that k logits reach. */
static uint32_t kth_largest(const float *logits, int64_t vocab_size, int64_t k)
{
    uint32_t found = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        int64_t reached = 0;
        for (int64_t i = 0; i < vocab_size; i++)
            reached += order_of(logits[i]) >= (found | bit);
        found |= reached >= k ? bit : 0;
    }
    return found;
}

int32_t nd_sample_token(const nd_sampling *sampling, int64_t position, float *logits,
                        int64_t vocab_size)
{
    int64_t most_likely = 0;
    for (int64_t i = 1; i < vocab_size; i++)
        if (logits[i] > logits[most_likely])
            most_likely = i;
    if (sampling->temperature <= 0.0)
        return (int32_t)most_likely;
    const float largest = logits[most_likely];
    const bool all = sampling->top_k <= 0 || sampling->top_k >= vocab_size;
    const uint32_t least = all ? 0 : kth_largest(logits, vocab_size, sampling->top_k);
    double sum = 0.0;
    for (int64_t i = 0; i < vocab_size; i++) {
        const double scaled = (double)(logits[i] - largest) / sampling->temperature;
        logits[i] = order_of(logits[i]) >= least ? (float)exp(scaled) : 0.0f;
        sum += (double)logits[i];
    }
    const uint64_t key = nd_rng_key(sampling->seed, "sample");
    double left = nd_rng_uniform(key, (uint64_t)position) * sum;
    for (int64_t i = 0; i < vocab_size; i++) {
        left -= (double)logits[i];
        if (left < 0.0 && logits[i] > 0.0f)
            return (int32_t)i;
    }
    return (int32_t)most_likely;
}
