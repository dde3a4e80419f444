#include "support/wrapped_ops.h"

#include <stdlib.h>

#define BYTES(pointer, count, is_written)                                                          \
    (argument)                                                                                     \
    {                                                                                              \
        (void **)(uintptr_t) & (pointer), count, is_written                                        \
    }
#define VIEW(v, is_written)                                                                        \
    BYTES((v).data, (size_t)((v).rows * (v).cols) * nd_dtype_size((v).dtype), is_written)
#define IN(v) VIEW(v, false)
#define OUT(v) VIEW(v, true)

/* Runs `call` of the backend `i` with the arguments translated. */
#define WRAP(op, call, ...)                                                                        \
    wrapper *w = wrapper_of(b);                                                                    \
    nd_backend *i = w->inner;                                                                      \
    argument list[] = {__VA_ARGS__};                                                               \
    nd_status status = w->enter(w, #op, list, (int)(sizeof list / sizeof *list));                  \
    if (status == ND_OK)                                                                           \
        status = i->ops.op call;                                                                   \
    const nd_status left = w->leave ? w->leave(w, #op) : ND_OK;                                    \
    return status != ND_OK ? status : left

static nd_status wrapped_copy(nd_backend *b, void *to, const void *from, size_t bytes)
{
    WRAP(copy, (i, to, from, bytes), BYTES(to, bytes, true), BYTES(from, bytes, false));
}

static nd_status wrapped_zero(nd_backend *b, void *memory, size_t bytes)
{
    WRAP(zero, (i, memory, bytes), BYTES(memory, bytes, true));
}

static nd_status wrapped_ternarize(nd_backend *b, nd_view c, nd_view s, nd_cview x)
{
    WRAP(ternarize, (i, c, s, x), OUT(c), OUT(s), IN(x));
}

static nd_status wrapped_pack_codes(nd_backend *b, nd_view packed, nd_cview c)
{
    WRAP(pack_codes, (i, packed, c), OUT(packed), IN(c));
}

static nd_status wrapped_unpack_codes(nd_backend *b, nd_view c, nd_cview packed)
{
    WRAP(unpack_codes, (i, c, packed), OUT(c), IN(packed));
}

static nd_status wrapped_pack_trits(nd_backend *b, nd_view packed, nd_cview c)
{
    WRAP(pack_trits, (i, packed, c), OUT(packed), IN(c));
}

static nd_status wrapped_unpack_trits(nd_backend *b, nd_view c, nd_cview packed)
{
    WRAP(unpack_trits, (i, c, packed), OUT(c), IN(packed));
}

static nd_status wrapped_dequantize_codes(nd_backend *b, nd_view x, nd_cview c, nd_cview s)
{
    WRAP(dequantize_codes, (i, x, c, s), OUT(x), IN(c), IN(s));
}

static nd_status wrapped_quantize_rows(nd_backend *b, nd_view q, nd_view a, nd_cview x)
{
    WRAP(quantize_rows, (i, q, a, x), OUT(q), OUT(a), IN(x));
}

static nd_status wrapped_ternary_gemm(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                                      nd_cview s)
{
    WRAP(ternary_gemm, (i, y, q, a, c, s), OUT(y), IN(q), IN(a), IN(c), IN(s));
}

static nd_status wrapped_ternary_gemm_dx(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                         nd_cview s, float beta)
{
    WRAP(ternary_gemm_dx, (i, dx, dy, c, s, beta), OUT(dx), IN(dy), IN(c), IN(s));
}

static nd_status wrapped_ternary_gemm_dw(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                         nd_cview a, float beta)
{
    WRAP(ternary_gemm_dw, (i, dw, dy, q, a, beta), OUT(dw), IN(dy), IN(q), IN(a));
}

static nd_status wrapped_ternary_gemm_dx_int8(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                              nd_cview s, float beta)
{
    WRAP(ternary_gemm_dx_int8, (i, dx, dy, c, s, beta), OUT(dx), IN(dy), IN(c), IN(s));
}

static nd_status wrapped_ternary_gemm_dw_int8(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                              nd_cview a, float beta)
{
    WRAP(ternary_gemm_dw_int8, (i, dw, dy, q, a, beta), OUT(dw), IN(dy), IN(q), IN(a));
}

static nd_status wrapped_gemm(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                              bool transpose_b, float alpha, float beta)
{
    WRAP(gemm, (i, c, a, transpose_a, bb, transpose_b, alpha, beta), OUT(c), IN(a), IN(bb));
}

static nd_status wrapped_gemm_symmetric(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                        float alpha)
{
    WRAP(gemm_symmetric, (i, c, a, transpose_a, alpha), OUT(c), IN(a));
}

static nd_status wrapped_rmsnorm(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview g)
{
    WRAP(rmsnorm, (i, y, r, x, g), OUT(y), OUT(r), IN(x), IN(g));
}

static nd_status wrapped_rmsnorm_quantize(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                          nd_cview x, nd_cview g)
{
    WRAP(rmsnorm_quantize, (i, q, a, r, x, g), OUT(q), OUT(a), OUT(r), IN(x), IN(g));
}

static nd_status wrapped_rmsnorm_backward(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy,
                                          nd_cview x, nd_cview g, nd_cview r, float beta)
{
    WRAP(rmsnorm_backward, (i, dx, dw, dy, x, g, r, beta), OUT(dx), OUT(dw), IN(dy), IN(x), IN(g),
         IN(r));
}

static nd_status wrapped_swiglu(nd_backend *b, nd_view h, nd_cview gate, nd_cview up)
{
    WRAP(swiglu, (i, h, gate, up), OUT(h), IN(gate), IN(up));
}

static nd_status wrapped_swiglu_rmsnorm_quantize(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                                 nd_cview gate, nd_cview up, nd_cview g)
{
    WRAP(swiglu_rmsnorm_quantize, (i, q, a, r, gate, up, g), OUT(q), OUT(a), OUT(r), IN(gate),
         IN(up), IN(g));
}

static nd_status wrapped_swiglu_backward(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                         nd_cview gate, nd_cview up)
{
    WRAP(swiglu_backward, (i, dgate, dup, dh, gate, up), OUT(dgate), OUT(dup), IN(dh), IN(gate),
         IN(up));
}

static nd_status wrapped_swiglu_rmsnorm_backward(nd_backend *b, nd_view dgate, nd_view dup,
                                                 nd_view dw, nd_cview dy, nd_cview gate,
                                                 nd_cview up, nd_cview g, nd_cview r)
{
    WRAP(swiglu_rmsnorm_backward, (i, dgate, dup, dw, dy, gate, up, g, r), OUT(dgate), OUT(dup),
         OUT(dw), IN(dy), IN(gate), IN(up), IN(g), IN(r));
}

static nd_status wrapped_rope(nd_backend *b, nd_view x, const nd_rope_params *params)
{
    nd_rope_params p = *params;
    WRAP(rope, (i, x, &p), OUT(x), IN(p.rows));
}

static nd_status wrapped_add(nd_backend *b, nd_view y, nd_cview x, nd_cview z)
{
    WRAP(add, (i, y, x, z), OUT(y), IN(x), IN(z));
}

static nd_status wrapped_attention(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                   nd_cview v, const nd_attention_shape *shape)
{
    nd_attention_shape s = *shape;
    WRAP(attention, (i, o, lse, q, k, v, &s), OUT(o), OUT(lse), IN(q), IN(k), IN(v), IN(s.rows));
}

static nd_status wrapped_gather_rows(nd_backend *b, nd_view y, nd_cview x, nd_cview rows)
{
    WRAP(gather_rows, (i, y, x, rows), OUT(y), IN(x), IN(rows));
}

static nd_status wrapped_attention_backward(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                            nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                            nd_cview k, nd_cview v, const nd_attention_shape *shape)
{
    nd_attention_shape s = *shape;
    WRAP(attention_backward, (i, dq, dk, dv, dout, o, lse, q, k, v, &s), OUT(dq), OUT(dk), OUT(dv),
         IN(dout), IN(o), IN(lse), IN(q), IN(k), IN(v), IN(s.rows));
}

static nd_status wrapped_embedding(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens)
{
    WRAP(embedding, (i, x, table, tokens), OUT(x), IN(table), IN(tokens));
}

static nd_status wrapped_embedding_backward(nd_backend *b, nd_view dtable, nd_cview dx,
                                            nd_cview tokens)
{
    WRAP(embedding_backward, (i, dtable, dx, tokens), OUT(dtable), IN(dx), IN(tokens));
}

static nd_status wrapped_cross_entropy(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                       nd_cview targets, const nd_cross_entropy_params *params)
{
    WRAP(cross_entropy, (i, nll, total, logits, targets, params), OUT(nll), OUT(total), OUT(logits),
         IN(targets));
}

static nd_status wrapped_sum_squares(nd_backend *b, nd_view out, nd_cview x)
{
    WRAP(sum_squares, (i, out, x), OUT(out), IN(x));
}

static nd_status wrapped_sum(nd_backend *b, nd_view out, nd_cview x)
{
    WRAP(sum, (i, out, x), OUT(out), IN(x));
}

static nd_status wrapped_axpby(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta)
{
    WRAP(axpby, (i, y, alpha, x, beta), OUT(y), IN(x));
}

static nd_status wrapped_divide_by_norm(nd_backend *b, nd_view y, nd_cview x, nd_cview squares,
                                        double factor)
{
    WRAP(divide_by_norm, (i, y, x, squares, factor), OUT(y), IN(x), IN(squares));
}

static nd_status wrapped_momentum(nd_backend *b, nd_view u, nd_view m, nd_cview g, float beta,
                                  float scale, bool nesterov)
{
    WRAP(momentum, (i, u, m, g, beta, scale, nesterov), OUT(u), OUT(m), IN(g));
}

static nd_status wrapped_apply_update(nd_backend *b, nd_view x, nd_cview u,
                                      const nd_update_params *params)
{
    WRAP(apply_update, (i, x, u, params), OUT(x), IN(u));
}

static nd_status wrapped_adamw(nd_backend *b, nd_view x, nd_view m, nd_view v, nd_cview g,
                               const nd_adamw_params *params)
{
    WRAP(adamw, (i, x, m, v, g, params), OUT(x), OUT(m), OUT(v), IN(g));
}

static nd_status wrapped_quantize_blocks(nd_backend *b, const nd_blocks *blocks, nd_cview x)
{
    nd_blocks q = *blocks;
    WRAP(quantize_blocks, (i, &q, x), OUT(q.codes), OUT(q.scales), IN(x));
}

static nd_status wrapped_dequantize_blocks(nd_backend *b, nd_view x, const nd_blocks *blocks)
{
    nd_blocks q = *blocks;
    WRAP(dequantize_blocks, (i, x, &q), OUT(x), IN(q.codes), IN(q.scales));
}

static nd_status wrapped_adamw_blocks(nd_backend *b, nd_view x, const nd_blocks *first,
                                      const nd_blocks *second, nd_cview g,
                                      const nd_adamw_params *params)
{
    nd_blocks m = *first, v = *second;
    WRAP(adamw_blocks, (i, x, &m, &v, g, params), OUT(x), OUT(m.codes), OUT(m.scales), OUT(v.codes),
         OUT(v.scales), IN(g));
}

static nd_status wrapped_quantize_tiles(nd_backend *b, const nd_tiles *tiles, nd_cview x)
{
    nd_tiles q = *tiles;
    WRAP(quantize_tiles, (i, &q, x), OUT(q.codes), OUT(q.row_max), OUT(q.column_max), IN(x));
}

static nd_status wrapped_dequantize_tiles(nd_backend *b, nd_view x, const nd_tiles *tiles,
                                          float beta)
{
    nd_tiles q = *tiles;
    WRAP(dequantize_tiles, (i, x, &q, beta), OUT(x), IN(q.codes), IN(q.row_max), IN(q.column_max));
}

static nd_status wrapped_synchronize(nd_backend *b)
{
    wrapper_of(b)->waits++;
    return inner_of(b)->ops.synchronize(inner_of(b));
}

static size_t wrapped_workspace_bytes(const nd_backend *b)
{
    return inner_of(b)->ops.workspace_bytes(inner_of(b));
}

static void wrapped_destroy(nd_backend *b)
{
    nd_backend_destroy(inner_of(b));
    free(b->context);
    free(b);
}

const nd_backend_ops nd_wrapped_ops = {
    .destroy = wrapped_destroy,
    .workspace_bytes = wrapped_workspace_bytes,
    .copy = wrapped_copy,
    .zero = wrapped_zero,
    .synchronize = wrapped_synchronize,
    .ternarize = wrapped_ternarize,
    .pack_codes = wrapped_pack_codes,
    .unpack_codes = wrapped_unpack_codes,
    .pack_trits = wrapped_pack_trits,
    .unpack_trits = wrapped_unpack_trits,
    .dequantize_codes = wrapped_dequantize_codes,
    .quantize_rows = wrapped_quantize_rows,
    .ternary_gemm = wrapped_ternary_gemm,
    .ternary_gemm_dx = wrapped_ternary_gemm_dx,
    .ternary_gemm_dw = wrapped_ternary_gemm_dw,
    .ternary_gemm_dx_int8 = wrapped_ternary_gemm_dx_int8,
    .ternary_gemm_dw_int8 = wrapped_ternary_gemm_dw_int8,
    .gemm = wrapped_gemm,
    .gemm_symmetric = wrapped_gemm_symmetric,
    .rmsnorm = wrapped_rmsnorm,
    .rmsnorm_quantize = wrapped_rmsnorm_quantize,
    .rmsnorm_backward = wrapped_rmsnorm_backward,
    .swiglu = wrapped_swiglu,
    .swiglu_rmsnorm_quantize = wrapped_swiglu_rmsnorm_quantize,
    .swiglu_backward = wrapped_swiglu_backward,
    .swiglu_rmsnorm_backward = wrapped_swiglu_rmsnorm_backward,
    .rope = wrapped_rope,
    .add = wrapped_add,
    .attention = wrapped_attention,
    .gather_rows = wrapped_gather_rows,
    .attention_backward = wrapped_attention_backward,
    .embedding = wrapped_embedding,
    .embedding_backward = wrapped_embedding_backward,
    .cross_entropy = wrapped_cross_entropy,
    .sum_squares = wrapped_sum_squares,
    .sum = wrapped_sum,
    .axpby = wrapped_axpby,
    .divide_by_norm = wrapped_divide_by_norm,
    .momentum = wrapped_momentum,
    .apply_update = wrapped_apply_update,
    .adamw = wrapped_adamw,
    .quantize_blocks = wrapped_quantize_blocks,
    .dequantize_blocks = wrapped_dequantize_blocks,
    .adamw_blocks = wrapped_adamw_blocks,
    .quantize_tiles = wrapped_quantize_tiles,
    .dequantize_tiles = wrapped_dequantize_tiles,
};
