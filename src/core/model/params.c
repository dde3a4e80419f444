#include "core/model/params.h"

#include "core/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const layer_names[ND_LAYER_PARAM_COUNT] = {
    "attn_norm", "attn_q",   "attn_k", "attn_v",       "attn_sub_norm", "attn_output",
    "ffn_norm",  "ffn_gate", "ffn_up", "ffn_sub_norm", "ffn_down"};

static bool is_sub_norm(nd_layer_param which)
{
    return which == ND_ATTN_SUB_NORM || which == ND_FFN_SUB_NORM;
}

/* Shape and initial spread of a layer's parameter: 1/sqrt(inputs) for projections, smaller by
 * sqrt(2 layers) for those that write to the residual stream (GPT-2). */
static nd_param layer_param(const nd_model_config *c, int64_t layer, nd_layer_param which)
{
    const int64_t d = c->hidden_dim, f = c->ffn_dim, kv = c->num_kv_heads * c->head_dim;
    nd_param p = {.role = ND_ROLE_TERNARY, .layer = layer, .rows = d, .cols = d};
    const float residual = 1.0f / sqrtf(2.0f * (float)c->num_layers);
    float spread = 1.0f;
    switch (which) {
    case ND_ATTN_NORM:
    case ND_ATTN_SUB_NORM:
    case ND_FFN_NORM:
        p.role = ND_ROLE_NORM;
        p.rows = 1;
        break;
    case ND_FFN_SUB_NORM:
        p.role = ND_ROLE_NORM;
        p.rows = 1;
        p.cols = f;
        break;
    case ND_ATTN_K:
    case ND_ATTN_V:
        p.rows = kv;
        break;
    case ND_ATTN_OUTPUT:
        spread = residual;
        break;
    case ND_FFN_GATE:
    case ND_FFN_UP:
        p.rows = f;
        break;
    case ND_FFN_DOWN:
        p.cols = f;
        spread = residual;
        break;
    case ND_ATTN_Q:
    case ND_LAYER_PARAM_COUNT:
        break;
    }
    p.init_std = p.role == ND_ROLE_NORM ? 0.0f : spread / sqrtf((float)p.cols);
    snprintf(p.name, sizeof p.name, "blk.%lld.%s.weight", (long long)layer, layer_names[which]);
    return p;
}

/* A block predicts token t+2+head from the previous prediction's state and its embedding. */
static nd_param *add_block(const nd_model_config *c, const nd_params *params, int64_t head,
                           nd_param *next)
{
    static const char *const names[ND_MTP_PARAM_COUNT] = {"hidden_norm", "hidden_proj", "embd_norm",
                                                          "embd_proj", "output_norm"};
    const int64_t d = c->hidden_dim, number = head + 1;
    for (int which = 0; which < ND_MTP_PARAM_COUNT; which++) {
        if (which == ND_MTP_OUTPUT_NORM)
            for (int l = 0; l < ND_LAYER_PARAM_COUNT; l++)
                if (params->has_sub_norms || !is_sub_norm((nd_layer_param)l)) {
                    *next = layer_param(c, -1, (nd_layer_param)l);
                    snprintf(next->name, sizeof next->name, "mtp.%lld.blk.%s.weight",
                             (long long)number, layer_names[l]);
                    next++;
                }
        const bool norm = which != ND_MTP_HIDDEN_PROJ && which != ND_MTP_EMBEDDING_PROJ;
        *next = (nd_param){.role = norm ? ND_ROLE_NORM : ND_ROLE_TERNARY,
                           .layer = -1,
                           .rows = norm ? 1 : d,
                           .cols = d,
                           .init_std = norm ? 0.0f : 1.0f / sqrtf((float)d)};
        snprintf(next->name, sizeof next->name, "mtp.%lld.%s.weight", (long long)number,
                 names[which]);
        next++;
    }
    return next;
}

static nd_param *add_separate_head(const nd_model_config *c, int64_t head, nd_param *next)
{
    *next = (nd_param){"", ND_ROLE_HEAD, -1, c->vocab_size, c->hidden_dim, 0.02f};
    snprintf(next->name, sizeof next->name, "mtp.%lld.output.weight", (long long)(head + 1));
    return next + 1;
}

nd_status nd_params_create(const nd_model_config *c, nd_params *params)
{
    memset(params, 0, sizeof *params);
    params->has_sub_norms = c->arch == ND_ARCH_BITNET;
    params->has_head = !c->tied;
    params->layers = c->num_layers;
    params->per_layer = ND_LAYER_PARAM_COUNT - (params->has_sub_norms ? 0 : 2);
    params->extra_heads = nd_model_extra_heads(c);
    params->per_extra_head =
        c->mtp_form == ND_MTP_SEQUENTIAL ? ND_MTP_PARAM_COUNT + params->per_layer : 1;
    params->count = 2 + (params->has_head ? 1 : 0) + params->per_layer * c->num_layers +
                    params->extra_heads * params->per_extra_head;
    params->list = calloc((size_t)params->count, sizeof *params->list);
    ND_FAIL_IF(!params->list, ND_ENOMEM, "no memory for the table of %lld parameters",
               (long long)params->count);
    nd_param *next = params->list;
    *next++ =
        (nd_param){"token_embd.weight", ND_ROLE_EMBEDDING, -1, c->vocab_size, c->hidden_dim, 0.02f};
    for (int64_t layer = 0; layer < c->num_layers; layer++)
        for (int which = 0; which < ND_LAYER_PARAM_COUNT; which++)
            if (params->has_sub_norms || !is_sub_norm((nd_layer_param)which))
                *next++ = layer_param(c, layer, (nd_layer_param)which);
    *next++ = (nd_param){"output_norm.weight", ND_ROLE_NORM, -1, 1, c->hidden_dim, 0.0f};
    if (params->has_head)
        *next++ =
            (nd_param){"output.weight", ND_ROLE_HEAD, -1, c->vocab_size, c->hidden_dim, 0.02f};
    for (int64_t head = 0; head < params->extra_heads; head++)
        next = c->mtp_form == ND_MTP_SEQUENTIAL ? add_block(c, params, head, next)
                                                : add_separate_head(c, head, next);
    return ND_OK;
}

void nd_params_destroy(nd_params *params)
{
    free(params->list);
    memset(params, 0, sizeof *params);
}

/* Position among a layer's parameters; -1 if the graph lacks it. */
static int64_t offset_in_layer(const nd_params *params, nd_layer_param which)
{
    if (params->has_sub_norms)
        return which;
    if (is_sub_norm(which))
        return -1;
    return (int64_t)which - (which > ND_ATTN_SUB_NORM) - (which > ND_FFN_SUB_NORM);
}

int64_t nd_params_layer_index(const nd_params *params, int64_t layer, nd_layer_param which)
{
    const int64_t offset = offset_in_layer(params, which);
    return offset < 0 ? -1 : 1 + layer * params->per_layer + offset;
}

int64_t nd_params_mtp_first(const nd_params *params, int64_t head)
{
    return params->count - (params->extra_heads - head) * params->per_extra_head;
}

int64_t nd_params_mtp_index(const nd_params *params, int64_t head, nd_mtp_param which)
{
    return nd_params_mtp_first(params, head) + which +
           (which == ND_MTP_OUTPUT_NORM ? params->per_layer : 0);
}

int64_t nd_params_mtp_layer_index(const nd_params *params, int64_t head, nd_layer_param which)
{
    const int64_t offset = offset_in_layer(params, which);
    return offset < 0 ? -1 : nd_params_mtp_first(params, head) + ND_MTP_OUTPUT_NORM + offset;
}

int64_t nd_params_embedding(const nd_params *params)
{
    (void)params;
    return 0;
}

int64_t nd_params_output_norm(const nd_params *params)
{
    return 1 + params->layers * params->per_layer;
}

int64_t nd_params_head(const nd_params *params)
{
    return params->has_head ? nd_params_output_norm(params) + 1 : nd_params_embedding(params);
}

int64_t nd_params_find(const nd_params *params, const char *name)
{
    for (int64_t i = 0; i < params->count; i++)
        if (strcmp(params->list[i].name, name) == 0)
            return i;
    return -1;
}

int64_t nd_params_largest(const nd_params *params, nd_param_role role)
{
    int64_t largest = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const nd_param *p = &params->list[i];
        if (p->role == role && p->rows * p->cols > largest)
            largest = p->rows * p->cols;
    }
    return largest;
}

int64_t nd_params_total(const nd_params *params)
{
    int64_t total = 0;
    for (int64_t i = 0; i < params->count; i++)
        total += params->list[i].rows * params->list[i].cols;
    return total;
}

int64_t nd_params_ternary(const nd_params *params)
{
    int64_t total = 0;
    for (int64_t i = 0; i < params->count; i++)
        if (params->list[i].role == ND_ROLE_TERNARY)
            total += params->list[i].rows * params->list[i].cols;
    return total;
}

nd_view nd_params_layer_span(const nd_params *params, const nd_view *views, int64_t layers)
{
    const int64_t first = 1; /* after the embedding */
    return layers > 0 ? nd_view_span(views[first], views[first + layers * params->per_layer - 1])
                      : (nd_view){0};
}

void nd_param_initialize(const nd_param *param, uint64_t seed, int64_t first, int64_t count,
                         float *values)
{
    enum { PART = 1 << 16 };
    const uint64_t key = nd_rng_key(seed, param->name);
#pragma omp parallel for if (count > PART)
    for (int64_t at = 0; at < count; at += PART) {
        const int64_t end = at + PART < count ? at + PART : count;
        if (param->role != ND_ROLE_NORM)
            nd_rng_normal_fill(key, (uint64_t)(first + at), param->init_std, values + at, end - at);
        for (int64_t i = at; param->role == ND_ROLE_NORM && i < end; i++)
            values[i] = 1.0f;
    }
}
