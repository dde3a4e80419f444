#include "core/model/collider.h"

#include "core/base/rng.h"
#include "core/model/token_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Merge sort of indices by value; stable, so that equal values keep their order. */
static void sort_ascending(const double *values, int32_t *order, int32_t *scratch, int64_t count)
{
    if (count < 2)
        return;
    const int64_t half = count / 2;
    sort_ascending(values, order, scratch, half);
    sort_ascending(values, order + half, scratch, count - half);
    for (int64_t i = 0; i < half; i++)
        scratch[i] = order[i];
    int64_t left = 0, right = half, out = 0;
    while (left < half)
        if (right < count && values[order[right]] < values[scratch[left]])
            order[out++] = order[right++];
        else
            order[out++] = scratch[left++];
}

/* The number of tokens filtered, which are the first in ascending order of loss. */
static int64_t count_filtered(nd_collider_params params, const double *losses, const int32_t *order,
                              int64_t tokens)
{
    const double lowest = losses[order[0]], highest = losses[order[tokens - 1]];
    const int64_t limit = (int64_t)floor(params.sparsity * (double)tokens);
    int64_t count = 0;
    if (!(highest > lowest))
        return 0;
    while (count < limit && (losses[order[count]] - lowest) / (highest - lowest) < params.threshold)
        count++;
    return count;
}

static bool all_finite(const double *losses, int64_t tokens)
{
    for (int64_t t = 0; t < tokens; t++)
        if (!isfinite(losses[t]))
            return false;
    return true;
}

static int64_t round_up(int64_t rows, int64_t limit)
{
    const int64_t rounded = (rows + ND_KEPT_ROUND - 1) / ND_KEPT_ROUND * ND_KEPT_ROUND;
    return rounded < limit ? rounded : limit;
}

/* Replaces marks of tokens by the indices of the marked ones, padded; returns their number. */
static int64_t indices_of_marked(int32_t *kept, int64_t tokens, int64_t *rows)
{
    int64_t count = 0;
    for (int64_t t = 0; t < tokens; t++)
        if (kept[t])
            kept[count++] = (int32_t)t;
    *rows = round_up(count, tokens);
    for (int64_t i = count; i < *rows; i++)
        kept[i] = -1;
    return count;
}

int64_t nd_collider_select(nd_collider_params params, const double *losses, int64_t tokens,
                           int32_t *order, int32_t *kept, int64_t *rows)
{
    int64_t filtered = 0;
    if (all_finite(losses, tokens)) {
        for (int64_t t = 0; t < tokens; t++)
            order[t] = (int32_t)t;
        sort_ascending(losses, order, kept, tokens);
        filtered = count_filtered(params, losses, order, tokens);
    }
    for (int64_t t = 0; t < tokens; t++)
        kept[t] = 1;
    for (int64_t i = 0; i < filtered; i++)
        kept[order[i]] = 0;
    return indices_of_marked(kept, tokens, rows);
}

nd_status nd_collider_create(nd_collider *c, nd_collider_params params, int64_t tokens)
{
    const size_t count = (size_t)tokens;
    *c = (nd_collider){.params = params, .tokens = tokens};
    c->kept = calloc(count, sizeof *c->kept);
    c->order = calloc(count, sizeof *c->order);
    c->losses = calloc(count, sizeof *c->losses);
    c->probability = calloc(count, sizeof *c->probability);
    c->transfer = calloc(2 * count, sizeof(double));
    return ND_CHECK(c->kept && c->order && c->losses && c->probability && c->transfer, ND_ENOMEM,
                    "no memory to choose among %lld tokens", (long long)tokens);
}

void nd_collider_destroy(nd_collider *c)
{
    free(c->kept);
    free(c->order);
    free(c->losses);
    free(c->probability);
    free(c->transfer);
    memset(c, 0, sizeof *c);
}

nd_status nd_collider_reserve(nd_collider *c, nd_dtype wide, nd_arena *arena)
{
    ND_TRY(nd_arena_reserve(arena, ND_I32, 1, c->tokens, &c->rows));
    if (c->params.rule == ND_COLLIDER_SAMPLE) {
        ND_TRY(nd_arena_reserve(arena, wide, 2 * c->tokens, 1, &c->measured));
        if (c->measured.data)
            c->norms = nd_view_rows(c->measured, c->tokens, c->tokens);
        ND_TRY(nd_arena_reserve(arena, wide, c->tokens, 1, &c->weights));
    }
    return nd_arena_reserve(arena, ND_I32, 1, c->tokens, &c->late);
}

static double transferred(const nd_collider *c, nd_dtype type, int64_t i)
{
    return type == ND_F64 ? ((const double *)c->transfer)[i]
                          : (double)((const float *)c->transfer)[i];
}

/* Downloads losses to c->losses and, with `sample`, norms to c->probability, waiting once. */
static nd_status download_losses(nd_collider *c, nd_backend *b, nd_cview nll)
{
    const bool sampled = c->norms.data != NULL;
    const nd_cview from = sampled ? nd_as_const(c->measured) : nll;
    if (sampled)
        ND_TRY(b->ops.copy(b, c->measured.data, nll.data, nd_view_bytes(nll)));
    ND_TRY(b->ops.download(b, c->transfer, from.data, nd_view_bytes(from)));
    for (int64_t t = 0; t < c->tokens; t++) {
        c->losses[t] = transferred(c, nll.dtype, t);
        c->probability[t] = sampled ? transferred(c, nll.dtype, c->tokens + t) : 1.0;
    }
    return ND_OK;
}

/* Sorts tokens for systematic sampling: by target, then by input token, so that tokens with similar
 * gradients are neighbors; ties are broken at random. */
static void order_by_similarity(nd_collider *c, const nd_collider_tokens *tokens)
{
    const uint64_t key = nd_rng_key(c->params.seed, "collider order");
    const uint64_t first = (uint64_t)c->draw.sample * (uint64_t)c->tokens;
    for (int64_t t = 0; t < c->tokens; t++) {
        const double random = nd_rng_uniform(key, first + (uint64_t)t);
        const double before = ((double)tokens->inputs[t] + random) / (double)tokens->vocabulary;
        c->losses[t] = (double)tokens->targets[t * tokens->stride] + before;
        c->order[t] = (int32_t)t;
    }
    sort_ascending(c->losses, c->order, c->kept, c->tokens);
}

/* Added to every score; bounds the weight of a token with vanishing error. */
static const double score_floor = 0.02;

/* Draws tokens by the norms in c->probability, which become probabilities; overwrites losses. */
static int64_t sample(nd_collider *c, const nd_collider_tokens *ids, int64_t *rows)
{
    const int64_t tokens = c->tokens;
    const int64_t count = tokens - (int64_t)floor(c->params.sparsity * (double)tokens);
    double *scores = c->losses;
    *rows = tokens;
    if (!all_finite(c->losses, tokens) || !all_finite(c->probability, tokens))
        return tokens;
    for (int64_t t = 0; t < tokens; t++)
        scores[t] = c->probability[t] + score_floor;
    nd_token_probabilities(scores, tokens, count, c->probability);
    order_by_similarity(c, ids);
    const uint64_t key = nd_rng_key(c->params.seed, "collider");
    nd_token_draw(c->probability, tokens, count, c->order,
                  nd_rng_uniform(key, (uint64_t)c->draw.sample), c->kept);
    return indices_of_marked(c->kept, tokens, rows);
}

/* Weights 1/p of kept rows, 0 for padding. */
static nd_status upload_weights(nd_collider *c, nd_backend *b, int64_t rows, nd_cview *weight)
{
    for (int64_t i = 0; i < rows; i++) {
        const double factor = c->kept[i] < 0 ? 0.0 : 1.0 / c->probability[c->kept[i]];
        if (c->weights.dtype == ND_F64)
            ((double *)c->transfer)[i] = factor;
        else
            ((float *)c->transfer)[i] = (float)factor;
    }
    *weight = nd_cview_rows(nd_as_const(c->weights), 0, rows);
    return b->ops.upload(b, c->weights.data, c->transfer, nd_view_bytes(*weight));
}

nd_status nd_collider_choose(nd_collider *c, nd_backend *b, nd_cview nll,
                             const nd_collider_tokens *ids, nd_cview *rows, nd_cview *weight,
                             int64_t *count)
{
    const bool sampled = c->params.rule == ND_COLLIDER_SAMPLE;
    const bool excess = c->params.rule == ND_COLLIDER_EXCESS;
    int64_t used = 0;
    *rows = *weight = (nd_cview){0};
    ND_FAIL_IF(excess && !c->draw.reference, ND_ECONFIG,
               "[training] collider_rule = excess: no reference model is loaded here; use "
               "collider_rule = sample or loss");
    ND_TRY(download_losses(c, b, nll));
    for (int64_t t = 0; excess && t < c->tokens; t++)
        c->losses[t] -= c->draw.reference[t];
    *count = sampled
                 ? sample(c, ids, &used)
                 : nd_collider_select(c->params, c->losses, c->tokens, c->order, c->kept, &used);
    if (*count == c->tokens)
        return ND_OK;
    if (sampled)
        ND_TRY(upload_weights(c, b, used, weight));
    *rows = nd_cview_of(c->rows.data, ND_I32, 1, used);
    return b->ops.upload(b, c->rows.data, c->kept, nd_view_bytes(*rows));
}

nd_status nd_collider_split(nd_collider *c, nd_backend *b, nd_cview chosen, int64_t first,
                            int64_t *before, nd_cview *rows)
{
    int64_t early = 0;
    while (early < chosen.cols && c->kept[early] >= 0 && c->kept[early] < first)
        early++;
    early = round_up(early, chosen.cols);
    for (int64_t i = early; i < chosen.cols; i++)
        c->order[i] = c->kept[i] < 0 ? -1 : c->kept[i] - (int32_t)first;
    *before = early;
    *rows = nd_cview_of(c->late.data, ND_I32, 1, chosen.cols - early);
    return b->ops.upload(b, c->late.data, c->order + early, nd_view_bytes(*rows));
}

void nd_collider_compact_targets(const nd_collider *c, nd_cview rows, int64_t length, int offsets,
                                 int32_t *targets)
{
    enum { FILTERED = 0, KEPT = 1 };
    const bool all = c->params.rule == ND_COLLIDER_SAMPLE; /* predict every target */
    int32_t *state = c->order; /* [tokens]; the order is no longer needed */
    memset(state, 0, (size_t)c->tokens * sizeof *state);
    for (int64_t i = 0; i < rows.cols; i++)
        if (c->kept[i] >= 0)
            state[c->kept[i]] = KEPT;
    for (int64_t i = 0; i < rows.cols; i++) {
        const int64_t token = c->kept[i];
        for (int j = 0; j < offsets; j++) {
            int32_t target = -1;
            if (token >= 0 &&
                (all || (token % length + j < length && state[token + j] != FILTERED)))
                target = targets[token * offsets + j];
            targets[i * offsets + j] = target;
        }
    }
}
