#include "core/model/layer.h"

static nd_dtype statistic_dtype(const nd_model_config *c)
{
    return c->compute == ND_F64 ? ND_F64 : ND_F32;
}

nd_status nd_layer_activations_reserve(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                       bool input_only, nd_layer_activations *acts)
{
    const nd_dtype type = c->compute, statistic = statistic_dtype(c);
    const bool quantized = c->ternary && c->activation_quant;
    const int64_t d = c->hidden_dim, wide = c->num_heads * c->head_dim;
    const int64_t kv = c->num_kv_heads * c->head_dim, f = c->ffn_dim;
    ND_TRY(nd_arena_reserve(arena, type, tokens, d, &acts->x));
    if (input_only)
        return ND_OK;
    ND_TRY(nd_arena_reserve(arena, statistic, tokens, 1, &acts->attn_norm_r));
    ND_TRY(nd_linear_input_reserve(arena, quantized, type, tokens, d, &acts->attn_in));
    ND_TRY(nd_arena_reserve(arena, type, tokens, wide, &acts->q));
    ND_TRY(nd_arena_reserve(arena, type, tokens, kv, &acts->k));
    ND_TRY(nd_arena_reserve(arena, type, tokens, kv, &acts->v));
    ND_TRY(nd_arena_reserve(arena, type, tokens, wide, &acts->o));
    ND_TRY(nd_arena_reserve(arena, statistic, tokens, c->num_heads, &acts->lse));
    ND_TRY(nd_linear_input_reserve(arena, quantized, type, tokens, wide, &acts->attn_out_in));
    ND_TRY(nd_arena_reserve(arena, type, tokens, d, &acts->x_mid));
    ND_TRY(nd_arena_reserve(arena, statistic, tokens, 1, &acts->ffn_norm_r));
    ND_TRY(nd_linear_input_reserve(arena, quantized, type, tokens, d, &acts->ffn_in));
    ND_TRY(nd_arena_reserve(arena, type, tokens, f, &acts->gate));
    ND_TRY(nd_arena_reserve(arena, type, tokens, f, &acts->up));
    ND_TRY(nd_linear_input_reserve(arena, quantized, type, tokens, f, &acts->ffn_out_in));
    if (c->arch == ND_ARCH_BITNET) {
        ND_TRY(nd_arena_reserve(arena, statistic, tokens, 1, &acts->attn_sub_norm_r));
        ND_TRY(nd_arena_reserve(arena, statistic, tokens, 1, &acts->ffn_sub_norm_r));
    }
    return ND_OK;
}

nd_status nd_layer_scratch_reserve(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                   bool training, nd_layer_scratch *scratch)
{
    const int64_t wide = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, c->hidden_dim, &scratch->hidden));
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, c->ffn_dim, &scratch->wide));
    if (training) {
        ND_TRY(nd_arena_reserve(arena, c->compute, tokens, wide, &scratch->heads));
        ND_TRY(nd_arena_reserve(arena, c->compute, tokens, wide, &scratch->dq));
        ND_TRY(nd_arena_reserve(arena, c->compute, tokens, kv, &scratch->dk));
        ND_TRY(nd_arena_reserve(arena, c->compute, tokens, kv, &scratch->dv));
    }
    if (c->ternary && !c->activation_quant) {
        const int64_t largest = c->ffn_dim > c->hidden_dim ? c->ffn_dim : c->hidden_dim;
        ND_TRY(nd_arena_reserve(arena, c->compute, largest, c->hidden_dim, &scratch->weight));
    }
    return ND_OK;
}

/* x := quantised or plain copy of the input (graphs without sub-norms). */
static nd_status store_input(nd_backend *b, const nd_linear_input *x, nd_cview input)
{
    if (x->quantized)
        return b->ops.quantize_rows(b, x->q, x->a, input);
    return b->ops.axpby(b, x->dense, 1.0f, input, 0.0f);
}

/* Rope for the rows that take part in this pass. */
static nd_rope_params rope_params(const nd_layer_pass *p, bool inverse)
{
    const nd_model_config *c = p->config;
    const nd_layer_span *span = &p->span;
    return (nd_rope_params){
        .style = c->arch == ND_ARCH_BITNET ? ND_ROPE_HALVES : ND_ROPE_PAIRS,
        .head_dim = c->head_dim,
        .seq_len = span->query_len,
        .start = span->start,
        .base = c->rope_base,
        .inverse = inverse,
        .rows = p->rows,
    };
}

static nd_attention_shape attention_shape(const nd_layer_pass *p)
{
    const nd_model_config *c = p->config;
    const nd_layer_span *span = &p->span;
    return (nd_attention_shape){
        .sequences = span->sequences,
        .query_len = span->query_len,
        .key_len = span->start + span->query_len,
        .heads = c->num_heads,
        .kv_heads = c->num_kv_heads,
        .head_dim = c->head_dim,
        .rows = p->rows,
    };
}

static nd_status keys_and_values(const nd_layer_pass *p)
{
    nd_backend *b = p->backend;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *scratch = p->scratch;
    const nd_weight *const *w = p->weights.w;
    ND_TRY(nd_linear_input_norm(b, &acts->attn_in, acts->attn_norm_r, nd_as_const(acts->x),
                                w[ND_ATTN_NORM]));
    ND_TRY(nd_linear_forward(b, acts->k, &acts->attn_in, w[ND_ATTN_K], scratch->weight));
    ND_TRY(nd_linear_forward(b, acts->v, &acts->attn_in, w[ND_ATTN_V], scratch->weight));
    nd_rope_params rope = rope_params(p, false);
    rope.rows = (nd_cview){0}; /* keys of all tokens */
    return b->ops.rope(b, acts->k, &rope);
}

/* From the queries to x_mid; with `rows`, acts holds these rows only. */
static nd_status attention_forward(const nd_layer_pass *p)
{
    nd_backend *b = p->backend;
    const nd_model_config *c = p->config;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *scratch = p->scratch;
    const nd_weight *const *w = p->weights.w;
    ND_TRY(nd_linear_forward(b, acts->q, &acts->attn_in, w[ND_ATTN_Q], scratch->weight));
    const nd_rope_params rope = rope_params(p, false);
    ND_TRY(b->ops.rope(b, acts->q, &rope));
    const nd_attention_shape shape = attention_shape(p);
    ND_TRY(b->ops.attention(b, acts->o, acts->lse, nd_as_const(acts->q), nd_as_const(p->span.keys),
                            nd_as_const(p->span.values), &shape));
    if (c->arch == ND_ARCH_BITNET)
        ND_TRY(nd_linear_input_norm(b, &acts->attn_out_in, acts->attn_sub_norm_r,
                                    nd_as_const(acts->o), w[ND_ATTN_SUB_NORM]));
    else
        ND_TRY(store_input(b, &acts->attn_out_in, nd_as_const(acts->o)));
    ND_TRY(nd_linear_forward(b, scratch->hidden, &acts->attn_out_in, w[ND_ATTN_OUTPUT],
                             scratch->weight));
    return b->ops.add(b, acts->x_mid, nd_as_const(acts->x), nd_as_const(scratch->hidden));
}

static nd_status ffn_forward(const nd_layer_pass *p, nd_view x_next)
{
    nd_backend *b = p->backend;
    const nd_model_config *c = p->config;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *scratch = p->scratch;
    const nd_weight *const *w = p->weights.w;
    ND_TRY(nd_linear_input_norm(b, &acts->ffn_in, acts->ffn_norm_r, nd_as_const(acts->x_mid),
                                w[ND_FFN_NORM]));
    ND_TRY(nd_linear_forward(b, acts->gate, &acts->ffn_in, w[ND_FFN_GATE], scratch->weight));
    ND_TRY(nd_linear_forward(b, acts->up, &acts->ffn_in, w[ND_FFN_UP], scratch->weight));
    const nd_linear_input *out = &acts->ffn_out_in;
    if (c->arch == ND_ARCH_BITNET && out->quantized) {
        ND_TRY(b->ops.swiglu_rmsnorm_quantize(b, out->q, out->a, acts->ffn_sub_norm_r,
                                              nd_as_const(acts->gate), nd_as_const(acts->up),
                                              nd_as_const(w[ND_FFN_SUB_NORM]->dense)));
    } else {
        ND_TRY(b->ops.swiglu(b, scratch->wide, nd_as_const(acts->gate), nd_as_const(acts->up)));
        if (c->arch == ND_ARCH_BITNET)
            ND_TRY(nd_linear_input_norm(b, out, acts->ffn_sub_norm_r, nd_as_const(scratch->wide),
                                        w[ND_FFN_SUB_NORM]));
        else
            ND_TRY(store_input(b, out, nd_as_const(scratch->wide)));
    }
    if (!x_next.data)
        return ND_OK;
    ND_TRY(nd_linear_forward(b, scratch->hidden, out, w[ND_FFN_DOWN], scratch->weight));
    return b->ops.add(b, x_next, nd_as_const(acts->x_mid), nd_as_const(scratch->hidden));
}

nd_status nd_layer_forward(const nd_layer_pass *p, nd_view x_next)
{
    ND_TRY(keys_and_values(p));
    ND_TRY(attention_forward(p));
    return ffn_forward(p, x_next);
}

/* The scratch cut to `rows` tokens. */
static nd_layer_scratch scratch_rows(const nd_layer_scratch *scratch, int64_t rows)
{
    nd_layer_scratch out = *scratch;
    nd_view *const views[] = {&out.hidden, &out.heads, &out.dq, &out.dk, &out.dv, &out.wide};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        *views[i] = nd_view_rows(*views[i], 0, rows);
    return out;
}

nd_status nd_layer_compact_rows(nd_backend *b, nd_view *view, nd_cview rows)
{
    const nd_view all = *view;
    if (!all.data)
        return ND_OK;
    *view = nd_view_rows(all, 0, rows.cols);
    return b->ops.gather_rows(b, *view, nd_as_const(all), rows);
}

nd_status nd_layer_compact(nd_backend *b, const nd_layer_activations *acts, nd_cview rows,
                           nd_layer_extent extent, nd_layer_activations *part)
{
    *part = *acts;
    nd_linear_input *const inputs[] = {&part->attn_in, &part->attn_out_in, &part->ffn_in,
                                       &part->ffn_out_in};
    nd_view *views[24] = {&part->x, &part->attn_norm_r};
    size_t count = 2, compacted = 0;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        views[count++] = &inputs[i]->q;
        views[count++] = &inputs[i]->a;
        views[count++] = &inputs[i]->dense;
        if (i == 0 && extent == ND_LAYER_INPUTS)
            compacted = count;
    }
    nd_view *const others[] = {&part->q,         &part->o,    &part->lse, &part->attn_sub_norm_r,
                               &part->x_mid,     &part->gate, &part->up,  &part->ffn_sub_norm_r,
                               &part->ffn_norm_r};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        views[count++] = others[i];
    if (extent == ND_LAYER_ALL)
        compacted = count;
    for (size_t i = 0; i < count; i++)
        if (i < compacted)
            ND_TRY(nd_layer_compact_rows(b, views[i], rows));
        else if (views[i]->data)
            *views[i] = nd_view_rows(*views[i], 0, rows.cols);
    return ND_OK;
}

nd_status nd_layer_recompute(const nd_layer_pass *p, nd_layer_activations *part)
{
    nd_layer_pass compacted_pass = *p;
    *part = *p->acts;
    ND_TRY(keys_and_values(p));
    if (p->rows.data)
        ND_TRY(nd_layer_compact(p->backend, p->acts, p->rows, ND_LAYER_INPUTS, part));
    const nd_layer_scratch scratch = scratch_rows(p->scratch, part->x.rows);
    compacted_pass.acts = part;
    compacted_pass.scratch = &scratch;
    ND_TRY(attention_forward(&compacted_pass));
    return ffn_forward(&compacted_pass, (nd_view){0});
}

/* Backward through a projection y = x Wᵀ: dw = beta dw + ..., then dx = dx_beta dx + ... */
static nd_status projection_backward(const nd_layer_pass *p, nd_layer_param which,
                                     const nd_linear_input *x, nd_view dy, nd_view dx,
                                     float dx_beta, const nd_layer_gradients *g, float beta)
{
    const bool int8 = p->config->int8_gradients;
    ND_TRY(nd_linear_backward_weight(p->backend, g->dw[which], nd_as_const(dy), x, int8, beta));
    return nd_linear_backward_input(p->backend, dx, nd_as_const(dy), p->weights.w[which], int8,
                                    dx_beta);
}

static nd_status ffn_backward(const nd_layer_pass *p, nd_view dx, const nd_layer_gradients *g,
                              float beta)
{
    nd_backend *b = p->backend;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *scratch = p->scratch;
    const nd_weight *const *w = p->weights.w;
    const nd_view dh = scratch->wide, dgate = acts->gate, dup = acts->up, dn = scratch->hidden;
    ND_TRY(projection_backward(p, ND_FFN_DOWN, &acts->ffn_out_in, dx, dh, 0.0f, g, beta));
    if (p->config->arch == ND_ARCH_BITNET)
        ND_TRY(b->ops.swiglu_rmsnorm_backward(
            b, dgate, dup, g->dw[ND_FFN_SUB_NORM], nd_as_const(dh), nd_as_const(acts->gate),
            nd_as_const(acts->up), nd_as_const(w[ND_FFN_SUB_NORM]->dense),
            nd_as_const(acts->ffn_sub_norm_r)));
    else
        ND_TRY(b->ops.swiglu_backward(b, dgate, dup, nd_as_const(dh), nd_as_const(acts->gate),
                                      nd_as_const(acts->up)));
    ND_TRY(projection_backward(p, ND_FFN_GATE, &acts->ffn_in, dgate, dn, 0.0f, g, beta));
    ND_TRY(projection_backward(p, ND_FFN_UP, &acts->ffn_in, dup, dn, 1.0f, g, beta));
    return b->ops.rmsnorm_backward(b, dx, g->dw[ND_FFN_NORM], nd_as_const(dn),
                                   nd_as_const(acts->x_mid), nd_as_const(w[ND_FFN_NORM]->dense),
                                   nd_as_const(acts->ffn_norm_r), 1.0f);
}

static nd_status attention_backward(const nd_layer_pass *p, nd_view dx, const nd_layer_gradients *g,
                                    float beta)
{
    nd_backend *b = p->backend;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *s = p->scratch;
    const nd_weight *const *w = p->weights.w;
    nd_view dout = s->heads;
    const nd_view dn = s->hidden;
    ND_TRY(projection_backward(p, ND_ATTN_OUTPUT, &acts->attn_out_in, dx, s->dq, 0.0f, g, beta));
    if (p->config->arch == ND_ARCH_BITNET)
        ND_TRY(b->ops.rmsnorm_backward(
            b, dout, g->dw[ND_ATTN_SUB_NORM], nd_as_const(s->dq), nd_as_const(acts->o),
            nd_as_const(w[ND_ATTN_SUB_NORM]->dense), nd_as_const(acts->attn_sub_norm_r), 0.0f));
    else
        ND_TRY(b->ops.axpby(b, dout, 1.0f, nd_as_const(s->dq), 0.0f));
    const nd_attention_shape shape = attention_shape(p);
    ND_TRY(b->ops.attention_backward(
        b, s->dq, s->dk, s->dv, nd_as_const(dout), nd_as_const(acts->o), nd_as_const(acts->lse),
        nd_as_const(acts->q), nd_as_const(acts->k), nd_as_const(acts->v), &shape));
    const nd_rope_params rope = rope_params(p, true);
    ND_TRY(b->ops.rope(b, s->dq, &rope));
    ND_TRY(b->ops.rope(b, s->dk, &rope));
    ND_TRY(projection_backward(p, ND_ATTN_Q, &acts->attn_in, s->dq, dn, 0.0f, g, beta));
    ND_TRY(projection_backward(p, ND_ATTN_K, &acts->attn_in, s->dk, dn, 1.0f, g, beta));
    ND_TRY(projection_backward(p, ND_ATTN_V, &acts->attn_in, s->dv, dn, 1.0f, g, beta));
    return b->ops.rmsnorm_backward(b, dx, g->dw[ND_ATTN_NORM], nd_as_const(dn),
                                   nd_as_const(acts->x), nd_as_const(w[ND_ATTN_NORM]->dense),
                                   nd_as_const(acts->attn_norm_r), 1.0f);
}

nd_status nd_layer_backward(const nd_layer_pass *pass, nd_view dx, const nd_layer_gradients *g,
                            float beta)
{
    const nd_layer_scratch scratch = scratch_rows(pass->scratch, dx.rows);
    nd_layer_pass compacted_pass = *pass;
    compacted_pass.scratch = &scratch;
    ND_TRY(ffn_backward(&compacted_pass, dx, g, beta));
    return attention_backward(&compacted_pass, dx, g, beta);
}
