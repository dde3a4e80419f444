#include "core/model/layer.h"

#include "core/model/collider.h"

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
static nd_status pass_into(nd_backend *b, const nd_linear_input *x, nd_cview input)
{
    if (x->quantized)
        return b->ops.quantize_rows(b, x->q, x->a, input);
    return b->ops.axpby(b, x->dense, 1.0f, input, 0.0f);
}

static nd_rope_params rope_params(const nd_model_config *c, const nd_layer_span *span, bool inverse)
{
    return (nd_rope_params){
        .style = c->arch == ND_ARCH_BITNET ? ND_ROPE_HALVES : ND_ROPE_PAIRS,
        .head_dim = c->head_dim,
        .seq_len = span->query_len,
        .start = span->start,
        .base = c->rope_base,
        .inverse = inverse,
    };
}

static nd_attention_shape attention_shape(const nd_model_config *c, const nd_layer_span *span)
{
    return (nd_attention_shape){
        .sequences = span->sequences,
        .query_len = span->query_len,
        .key_len = span->start + span->query_len,
        .heads = c->num_heads,
        .kv_heads = c->num_kv_heads,
        .head_dim = c->head_dim,
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
    const nd_rope_params rope = rope_params(p->config, &p->span, false);
    return b->ops.rope(b, acts->k, &rope);
}

/* What follows keys and values, up to x_mid; with `rows` acts holds these rows. */
static nd_status queries_to_middle(const nd_layer_pass *p)
{
    nd_backend *b = p->backend;
    const nd_model_config *c = p->config;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *scratch = p->scratch;
    const nd_weight *const *w = p->weights.w;
    ND_TRY(nd_linear_forward(b, acts->q, &acts->attn_in, w[ND_ATTN_Q], scratch->weight));
    nd_rope_params rope = rope_params(c, &p->span, false);
    rope.rows = p->rows;
    ND_TRY(b->ops.rope(b, acts->q, &rope));
    nd_attention_shape shape = attention_shape(c, &p->span);
    shape.rows = p->rows;
    ND_TRY(b->ops.attention(b, acts->o, acts->lse, nd_as_const(acts->q), nd_as_const(p->span.keys),
                            nd_as_const(p->span.values), &shape));
    if (c->arch == ND_ARCH_BITNET)
        ND_TRY(nd_linear_input_norm(b, &acts->attn_out_in, acts->attn_sub_norm_r,
                                    nd_as_const(acts->o), w[ND_ATTN_SUB_NORM]));
    else
        ND_TRY(pass_into(b, &acts->attn_out_in, nd_as_const(acts->o)));
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
            ND_TRY(pass_into(b, out, nd_as_const(scratch->wide)));
    }
    if (!x_next.data)
        return ND_OK;
    ND_TRY(nd_linear_forward(b, scratch->hidden, out, w[ND_FFN_DOWN], scratch->weight));
    return b->ops.add(b, x_next, nd_as_const(acts->x_mid), nd_as_const(scratch->hidden));
}

nd_status nd_layer_forward(const nd_layer_pass *p, nd_view x_next)
{
    ND_TRY(keys_and_values(p));
    ND_TRY(queries_to_middle(p));
    return ffn_forward(p, x_next);
}

/* The scratch of `rows` tokens. */
static nd_layer_scratch scratch_rows(const nd_layer_scratch *scratch, int64_t rows)
{
    nd_layer_scratch out = *scratch;
    nd_view *const views[] = {&out.hidden, &out.heads, &out.dq, &out.dk, &out.dv, &out.wide};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        *views[i] = nd_view_rows(*views[i], 0, rows);
    return out;
}

nd_status nd_layer_recompute(const nd_layer_pass *p, nd_layer_activations *part)
{
    nd_layer_pass narrowed = *p;
    *part = *p->acts;
    ND_TRY(keys_and_values(p));
    if (p->rows.data)
        ND_TRY(nd_collider_compact(p->backend, p->acts, p->rows, ND_COLLIDER_INPUTS, part));
    const nd_layer_scratch scratch = scratch_rows(p->scratch, part->x.rows);
    narrowed.acts = part;
    narrowed.scratch = &scratch;
    ND_TRY(queries_to_middle(&narrowed));
    return ffn_forward(&narrowed, (nd_view){0});
}

static nd_status ffn_backward(const nd_layer_pass *p, nd_view dx, const nd_layer_gradients *g,
                              float beta)
{
    nd_backend *b = p->backend;
    const nd_model_config *c = p->config;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *scratch = p->scratch;
    const nd_weight *const *w = p->weights.w;
    const nd_view dh = scratch->wide, dgate = acts->gate, dup = acts->up, dn = scratch->hidden;
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_FFN_DOWN], nd_as_const(dx), &acts->ffn_out_in,
                                     c->int8_gradients, beta));
    ND_TRY(
        nd_linear_backward_input(b, dh, nd_as_const(dx), w[ND_FFN_DOWN], c->int8_gradients, 0.0f));
    if (c->arch == ND_ARCH_BITNET)
        ND_TRY(b->ops.swiglu_rmsnorm_backward(
            b, dgate, dup, g->dw[ND_FFN_SUB_NORM], nd_as_const(dh), nd_as_const(acts->gate),
            nd_as_const(acts->up), nd_as_const(w[ND_FFN_SUB_NORM]->dense),
            nd_as_const(acts->ffn_sub_norm_r)));
    else
        ND_TRY(b->ops.swiglu_backward(b, dgate, dup, nd_as_const(dh), nd_as_const(acts->gate),
                                      nd_as_const(acts->up)));
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_FFN_GATE], nd_as_const(dgate), &acts->ffn_in,
                                     c->int8_gradients, beta));
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_FFN_UP], nd_as_const(dup), &acts->ffn_in,
                                     c->int8_gradients, beta));
    ND_TRY(nd_linear_backward_input(b, dn, nd_as_const(dgate), w[ND_FFN_GATE], c->int8_gradients,
                                    0.0f));
    ND_TRY(
        nd_linear_backward_input(b, dn, nd_as_const(dup), w[ND_FFN_UP], c->int8_gradients, 1.0f));
    return b->ops.rmsnorm_backward(b, dx, g->dw[ND_FFN_NORM], nd_as_const(dn),
                                   nd_as_const(acts->x_mid), nd_as_const(w[ND_FFN_NORM]->dense),
                                   nd_as_const(acts->ffn_norm_r), 1.0f);
}

static nd_status attention_backward(const nd_layer_pass *p, nd_view dx, const nd_layer_gradients *g,
                                    float beta)
{
    nd_backend *b = p->backend;
    const nd_model_config *c = p->config;
    const nd_layer_activations *acts = p->acts;
    const nd_layer_scratch *s = p->scratch;
    const nd_weight *const *w = p->weights.w;
    nd_view dout = s->heads;
    const nd_view dn = s->hidden;
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_ATTN_OUTPUT], nd_as_const(dx), &acts->attn_out_in,
                                     c->int8_gradients, beta));
    ND_TRY(nd_linear_backward_input(b, s->dq, nd_as_const(dx), w[ND_ATTN_OUTPUT], c->int8_gradients,
                                    0.0f));
    if (c->arch == ND_ARCH_BITNET)
        ND_TRY(b->ops.rmsnorm_backward(
            b, dout, g->dw[ND_ATTN_SUB_NORM], nd_as_const(s->dq), nd_as_const(acts->o),
            nd_as_const(w[ND_ATTN_SUB_NORM]->dense), nd_as_const(acts->attn_sub_norm_r), 0.0f));
    else
        ND_TRY(b->ops.axpby(b, dout, 1.0f, nd_as_const(s->dq), 0.0f));
    nd_attention_shape shape = attention_shape(c, &p->span);
    shape.rows = p->rows;
    ND_TRY(b->ops.attention_backward(
        b, s->dq, s->dk, s->dv, nd_as_const(dout), nd_as_const(acts->o), nd_as_const(acts->lse),
        nd_as_const(acts->q), nd_as_const(acts->k), nd_as_const(acts->v), &shape));
    nd_rope_params rope = rope_params(c, &p->span, true);
    rope.rows = p->rows;
    ND_TRY(b->ops.rope(b, s->dq, &rope));
    ND_TRY(b->ops.rope(b, s->dk, &rope));
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_ATTN_Q], nd_as_const(s->dq), &acts->attn_in,
                                     c->int8_gradients, beta));
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_ATTN_K], nd_as_const(s->dk), &acts->attn_in,
                                     c->int8_gradients, beta));
    ND_TRY(nd_linear_backward_weight(b, g->dw[ND_ATTN_V], nd_as_const(s->dv), &acts->attn_in,
                                     c->int8_gradients, beta));
    ND_TRY(
        nd_linear_backward_input(b, dn, nd_as_const(s->dq), w[ND_ATTN_Q], c->int8_gradients, 0.0f));
    ND_TRY(
        nd_linear_backward_input(b, dn, nd_as_const(s->dk), w[ND_ATTN_K], c->int8_gradients, 1.0f));
    ND_TRY(
        nd_linear_backward_input(b, dn, nd_as_const(s->dv), w[ND_ATTN_V], c->int8_gradients, 1.0f));
    return b->ops.rmsnorm_backward(b, dx, g->dw[ND_ATTN_NORM], nd_as_const(dn),
                                   nd_as_const(acts->x), nd_as_const(w[ND_ATTN_NORM]->dense),
                                   nd_as_const(acts->attn_norm_r), 1.0f);
}

nd_status nd_layer_backward(const nd_layer_pass *pass, nd_view dx, const nd_layer_gradients *g,
                            float beta)
{
    const nd_layer_scratch scratch = scratch_rows(pass->scratch, dx.rows);
    nd_layer_pass narrowed = *pass;
    narrowed.scratch = &scratch;
    ND_TRY(ffn_backward(&narrowed, dx, g, beta));
    return attention_backward(&narrowed, dx, g, beta);
}
