#include "core/model/layer.h"

static nd_status reserve_attention(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                   nd_layer_activations *acts)
{
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, c->num_heads * c->head_dim, &acts->o));
    return nd_arena_reserve(arena, nd_dtype_wide(c->compute), tokens, c->num_heads, &acts->lse);
}

/* All but gate and up. */
static nd_status reserve_narrow(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                nd_layer_activations *acts)
{
    const nd_dtype type = c->compute;
    const int64_t d = c->hidden_dim, wide = c->num_heads * c->head_dim;
    const int64_t kv = c->num_kv_heads * c->head_dim;
    ND_TRY(nd_arena_reserve(arena, type, tokens, d, &acts->x));
    ND_TRY(reserve_attention(arena, c, tokens, acts));
    ND_TRY(nd_arena_reserve(arena, type, tokens, wide, &acts->q));
    ND_TRY(nd_arena_reserve(arena, type, tokens, kv, &acts->k));
    ND_TRY(nd_arena_reserve(arena, type, tokens, kv, &acts->v));
    return nd_arena_reserve(arena, type, tokens, d, &acts->x_mid);
}

nd_status nd_layer_checkpoint_reserve(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                      nd_layer_activations *acts)
{
    if (c->recompute < ND_RECOMPUTE_LAYER)
        return reserve_narrow(arena, c, tokens, acts);
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, c->hidden_dim, &acts->x));
    return c->recompute == ND_RECOMPUTE_ATTENTION ? ND_OK
                                                  : reserve_attention(arena, c, tokens, acts);
}

nd_status nd_layer_activations_reserve(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                       nd_layer_activations *acts)
{
    ND_TRY(reserve_narrow(arena, c, tokens, acts));
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, c->ffn_dim, &acts->gate));
    return nd_arena_reserve(arena, c->compute, tokens, c->ffn_dim, &acts->up);
}

/* `wide`, and in the same memory the gradients of attention, whose backward pass begins when that
 * of the feed-forward network has ended. */
static nd_status reserve_wide(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                              bool training, nd_layer_scratch *scratch)
{
    const int64_t wide = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    const size_t start = arena->used;
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, c->ffn_dim, &scratch->wide));
    if (!training)
        return ND_OK;
    const size_t end = arena->used;
    arena->used = start;
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, wide, &scratch->heads));
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, wide, &scratch->dq));
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, kv, &scratch->dk));
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, kv, &scratch->dv));
    if (arena->used < end)
        arena->used = end;
    return ND_OK;
}

nd_status nd_layer_scratch_reserve(nd_arena *arena, const nd_model_config *c, int64_t tokens,
                                   bool training, nd_layer_scratch *scratch)
{
    const int64_t d = c->hidden_dim, f = c->ffn_dim;
    const int64_t widest = nd_larger(nd_larger(d, c->num_heads * c->head_dim), f);
    ND_TRY(nd_arena_reserve(arena, c->compute, tokens, d, &scratch->hidden));
    scratch->idle = arena->used;
    ND_TRY(reserve_wide(arena, c, tokens, training, scratch));
    ND_TRY(nd_linear_input_reserve(arena, c->ternary && c->activation_quant, c->compute, tokens,
                                   widest, &scratch->input));
    if (c->ternary && !c->activation_quant)
        ND_TRY(nd_arena_reserve(arena, c->compute, nd_larger(d, f), d, &scratch->weight));
    return ND_OK;
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

/* The inputs of projections, which the backward pass computes again. */

static nd_linear_input input_memory(const nd_layer_pass *p, int64_t width)
{
    return nd_linear_input_shaped(&p->scratch->input, p->acts->x.rows, width);
}

static nd_status norm_of(const nd_layer_pass *p, nd_view x, nd_layer_param norm,
                         nd_linear_input *input)
{
    *input = input_memory(p, x.cols);
    return nd_linear_input_norm(p->backend, input, nd_as_const(x), p->weights.w[norm]);
}

static nd_status attention_output_input(const nd_layer_pass *p, nd_linear_input *input)
{
    const nd_view o = p->acts->o;
    if (p->config->arch == ND_ARCH_BITNET)
        return norm_of(p, o, ND_ATTN_SUB_NORM, input);
    *input = input_memory(p, o.cols);
    return nd_linear_input_copy(p->backend, input, nd_as_const(o));
}

static nd_status ffn_output_input(const nd_layer_pass *p, nd_linear_input *input)
{
    nd_backend *b = p->backend;
    const nd_cview gate = nd_as_const(p->acts->gate), up = nd_as_const(p->acts->up);
    const nd_view wide = p->scratch->wide;
    *input = input_memory(p, gate.cols);
    if (p->config->arch == ND_ARCH_BITNET && input->quantized)
        return b->ops.swiglu_rmsnorm_quantize(b, input->q, input->a, input->r, gate, up,
                                              nd_as_const(p->weights.w[ND_FFN_SUB_NORM]->dense));
    ND_TRY(b->ops.swiglu(b, wide, gate, up));
    if (p->config->arch == ND_ARCH_BITNET)
        return norm_of(p, wide, ND_FFN_SUB_NORM, input);
    return nd_linear_input_copy(b, input, nd_as_const(wide));
}

static nd_status project(const nd_layer_pass *p, nd_view y, const nd_linear_input *input,
                         nd_layer_param which)
{
    return nd_linear_forward(p->backend, y, input, p->weights.w[which], p->scratch->weight);
}

static nd_status keys_and_values(const nd_layer_pass *p, const nd_linear_input *input)
{
    const nd_layer_activations *acts = p->acts;
    ND_TRY(project(p, acts->k, input, ND_ATTN_K));
    ND_TRY(project(p, acts->v, input, ND_ATTN_V));
    nd_rope_params rope = rope_params(p, false);
    rope.rows = (nd_cview){0}; /* keys of all tokens */
    return p->backend->ops.rope(p->backend, acts->k, &rope);
}

/* With `rows`, acts holds these rows only, here and below. */
static nd_status queries(const nd_layer_pass *p, const nd_linear_input *input)
{
    ND_TRY(project(p, p->acts->q, input, ND_ATTN_Q));
    const nd_rope_params rope = rope_params(p, false);
    return p->backend->ops.rope(p->backend, p->acts->q, &rope);
}

static nd_status attention_forward(const nd_layer_pass *p)
{
    nd_backend *b = p->backend;
    const nd_layer_activations *acts = p->acts;
    const nd_attention_shape shape = attention_shape(p);
    return b->ops.attention(b, acts->o, acts->lse, nd_as_const(acts->q), nd_as_const(p->span.keys),
                            nd_as_const(p->span.values), &shape);
}

static nd_status attention_output(const nd_layer_pass *p)
{
    nd_linear_input input;
    ND_TRY(attention_output_input(p, &input));
    ND_TRY(project(p, p->scratch->hidden, &input, ND_ATTN_OUTPUT));
    return p->backend->ops.add(p->backend, p->acts->x_mid, nd_as_const(p->acts->x),
                               nd_as_const(p->scratch->hidden));
}

static nd_status gate_and_up(const nd_layer_pass *p)
{
    nd_linear_input input;
    ND_TRY(norm_of(p, p->acts->x_mid, ND_FFN_NORM, &input));
    ND_TRY(project(p, p->acts->gate, &input, ND_FFN_GATE));
    return project(p, p->acts->up, &input, ND_FFN_UP);
}

/* The pass with its scratch cut to `rows` tokens, which *s holds. */
static nd_layer_pass cut_scratch(const nd_layer_pass *pass, int64_t rows, nd_layer_scratch *s)
{
    nd_layer_pass cut = *pass;
    nd_view *const views[] = {&s->hidden, &s->heads, &s->dq, &s->dk, &s->dv, &s->wide};
    *s = *pass->scratch;
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        views[i]->rows = rows;
    cut.scratch = s;
    return cut;
}

nd_status nd_layer_forward(const nd_layer_pass *pass, nd_view x_next)
{
    nd_layer_scratch scratch;
    const nd_layer_pass p = cut_scratch(pass, x_next.rows, &scratch);
    nd_linear_input input;
    ND_TRY(norm_of(&p, p.acts->x, ND_ATTN_NORM, &input));
    ND_TRY(keys_and_values(&p, &input));
    ND_TRY(queries(&p, &input));
    ND_TRY(attention_forward(&p));
    ND_TRY(attention_output(&p));
    ND_TRY(gate_and_up(&p));
    ND_TRY(ffn_output_input(&p, &input));
    ND_TRY(project(&p, scratch.hidden, &input, ND_FFN_DOWN));
    return p.backend->ops.add(p.backend, x_next, nd_as_const(p.acts->x_mid),
                              nd_as_const(scratch.hidden));
}

nd_status nd_layer_compact_rows(nd_backend *b, nd_view *const *views, int count, nd_cview rows)
{
    for (int i = 0; i < count; i++) {
        const nd_view all = *views[i];
        *views[i] = nd_view_rows(all, 0, rows.cols);
        ND_TRY(b->ops.gather_rows(b, *views[i], nd_as_const(all), rows));
    }
    return ND_OK;
}

/* All but gate and up, which get the same number of rows. */
static nd_status compact_narrow(nd_backend *b, nd_cview rows, nd_layer_activations *part)
{
    nd_view *const views[] = {&part->x, &part->q, &part->o, &part->lse, &part->x_mid};
    ND_TRY(nd_layer_compact_rows(b, views, 5, rows));
    part->gate.rows = part->up.rows = rows.cols;
    return ND_OK;
}

nd_status nd_layer_compact(nd_backend *b, const nd_layer_activations *acts, nd_cview rows,
                           nd_layer_activations *part)
{
    nd_view *const wide[] = {&part->gate, &part->up};
    *part = *acts;
    ND_TRY(nd_layer_compact_rows(b, wide, 2, rows));
    return compact_narrow(b, rows, part);
}

/* As nd_layer_compact, before the others have values. */
static nd_status compact_checkpoint(const nd_layer_pass *p, nd_layer_activations *part)
{
    nd_view *const kept[] = {&part->x, &part->o, &part->lse};
    const int count = p->config->recompute == ND_RECOMPUTE_ATTENTION ? 1 : 3;
    ND_TRY(nd_layer_compact_rows(p->backend, kept, count, p->rows));
    part->q.rows = part->o.rows = part->lse.rows = part->x.rows;
    part->x_mid.rows = part->gate.rows = part->up.rows = part->x.rows;
    return ND_OK;
}

/* Up to x_mid. */
static nd_status recompute_attention_half(const nd_layer_pass *whole, nd_layer_activations *part)
{
    nd_layer_scratch scratch;
    nd_linear_input input;
    ND_TRY(norm_of(whole, part->x, ND_ATTN_NORM, &input));
    ND_TRY(keys_and_values(whole, &input));
    if (whole->rows.data) {
        ND_TRY(compact_checkpoint(whole, part));
        ND_TRY(norm_of(whole, part->x, ND_ATTN_NORM, &input));
    }
    const nd_layer_pass p = cut_scratch(whole, part->x.rows, &scratch);
    ND_TRY(queries(&p, &input));
    if (p.config->recompute == ND_RECOMPUTE_ATTENTION)
        ND_TRY(attention_forward(&p));
    return attention_output(&p);
}

nd_status nd_layer_recompute(const nd_layer_pass *pass, nd_layer_activations *part)
{
    nd_layer_pass p = *pass;
    *part = *pass->acts;
    p.acts = part;
    if (p.config->recompute >= ND_RECOMPUTE_LAYER)
        ND_TRY(recompute_attention_half(&p, part));
    else if (p.rows.data)
        ND_TRY(compact_narrow(p.backend, p.rows, part));
    return gate_and_up(&p);
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

static nd_status norm_backward(const nd_layer_pass *p, nd_view dx, nd_cview dy, nd_view x,
                               nd_layer_param norm, nd_view r, const nd_layer_gradients *g,
                               float dx_beta)
{
    return p->backend->ops.rmsnorm_backward(p->backend, dx, g->dw[norm], dy, nd_as_const(x),
                                            nd_as_const(p->weights.w[norm]->dense), nd_as_const(r),
                                            dx_beta);
}

/* The down projection, its norm and the gated activation, whose gradients overwrite gate and up.
 * Quantized, one pass over these gives the projection's input and the gradients. */
static nd_status ffn_output_backward(const nd_layer_pass *p, nd_view dx,
                                     const nd_layer_gradients *g, float beta)
{
    nd_backend *b = p->backend;
    const nd_view gate = p->acts->gate, up = p->acts->up, dh = p->scratch->wide;
    const nd_weight *norm = p->weights.w[ND_FFN_SUB_NORM];
    const bool int8 = p->config->int8_gradients;
    nd_linear_input input = input_memory(p, gate.cols);
    const bool fused = p->config->arch == ND_ARCH_BITNET && input.quantized;
    if (!fused) {
        ND_TRY(ffn_output_input(p, &input));
        ND_TRY(
            nd_linear_backward_weight(b, g->dw[ND_FFN_DOWN], nd_as_const(dx), &input, int8, beta));
    }
    ND_TRY(nd_linear_backward_input(b, dh, nd_as_const(dx), p->weights.w[ND_FFN_DOWN], int8, 0.0f));
    if (p->config->arch != ND_ARCH_BITNET)
        return b->ops.swiglu_backward(b, gate, up, nd_as_const(dh), nd_as_const(gate),
                                      nd_as_const(up));
    ND_TRY(b->ops.swiglu_rmsnorm_backward(
        b, gate, up, g->dw[ND_FFN_SUB_NORM], fused ? input.q : (nd_view){0}, input.a, input.r,
        nd_as_const(dh), nd_as_const(gate), nd_as_const(up), nd_as_const(norm->dense)));
    return fused ? nd_linear_backward_weight(b, g->dw[ND_FFN_DOWN], nd_as_const(dx), &input, int8,
                                             beta)
                 : ND_OK;
}

nd_status nd_layer_ffn_backward(const nd_layer_pass *pass, nd_view dx, const nd_layer_gradients *g,
                                float beta)
{
    nd_layer_scratch scratch;
    const nd_layer_pass p = cut_scratch(pass, dx.rows, &scratch);
    const nd_layer_activations *acts = p.acts;
    const nd_view dgate = acts->gate, dup = acts->up, dn = p.scratch->hidden;
    nd_linear_input input;
    ND_TRY(ffn_output_backward(&p, dx, g, beta));
    ND_TRY(norm_of(&p, acts->x_mid, ND_FFN_NORM, &input));
    ND_TRY(projection_backward(&p, ND_FFN_GATE, &input, dgate, dn, 0.0f, g, beta));
    ND_TRY(projection_backward(&p, ND_FFN_UP, &input, dup, dn, 1.0f, g, beta));
    return norm_backward(&p, dx, nd_as_const(dn), acts->x_mid, ND_FFN_NORM, input.r, g, 1.0f);
}

nd_status nd_layer_attention_backward(const nd_layer_pass *pass, nd_view dx,
                                      const nd_layer_gradients *g, float beta)
{
    nd_layer_scratch scratch;
    const nd_layer_pass p = cut_scratch(pass, dx.rows, &scratch);
    nd_backend *b = p.backend;
    const nd_layer_activations *acts = p.acts;
    const nd_view dout = scratch.heads, dn = scratch.hidden;
    nd_linear_input input;
    ND_TRY(attention_output_input(&p, &input));
    ND_TRY(projection_backward(&p, ND_ATTN_OUTPUT, &input, dx, scratch.dq, 0.0f, g, beta));
    if (p.config->arch == ND_ARCH_BITNET)
        ND_TRY(norm_backward(&p, dout, nd_as_const(scratch.dq), acts->o, ND_ATTN_SUB_NORM, input.r,
                             g, 0.0f));
    else
        ND_TRY(b->ops.axpby(b, dout, 1.0f, nd_as_const(scratch.dq), 0.0f));
    const nd_attention_shape shape = attention_shape(&p);
    ND_TRY(b->ops.attention_backward(b, scratch.dq, scratch.dk, scratch.dv, nd_as_const(dout),
                                     nd_as_const(acts->o), nd_as_const(acts->lse),
                                     nd_as_const(acts->q), nd_as_const(acts->k),
                                     nd_as_const(acts->v), &shape));
    const nd_rope_params rope = rope_params(&p, true);
    ND_TRY(b->ops.rope(b, scratch.dq, &rope));
    ND_TRY(b->ops.rope(b, scratch.dk, &rope));
    ND_TRY(norm_of(&p, acts->x, ND_ATTN_NORM, &input));
    ND_TRY(projection_backward(&p, ND_ATTN_Q, &input, scratch.dq, dn, 0.0f, g, beta));
    ND_TRY(projection_backward(&p, ND_ATTN_K, &input, scratch.dk, dn, 1.0f, g, beta));
    ND_TRY(projection_backward(&p, ND_ATTN_V, &input, scratch.dv, dn, 1.0f, g, beta));
    return norm_backward(&p, dx, nd_as_const(dn), acts->x, ND_ATTN_NORM, input.r, g, 1.0f);
}
