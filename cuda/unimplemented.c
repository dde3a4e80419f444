/* The table that a backend starts from: every op says that it is missing. */
#include "unimplemented.h"

static nd_status allocate_unimplemented(nd_backend *b, size_t bytes, void **memory)
{
    (void)b, (void)bytes, (void)memory;
    return ND_FAIL(ND_EINTERNAL, "cuda: op allocate is not implemented");
}

static nd_status upload_unimplemented(nd_backend *b, void *device, const void *host, size_t bytes)
{
    (void)b, (void)device, (void)host, (void)bytes;
    return ND_FAIL(ND_EINTERNAL, "cuda: op upload is not implemented");
}

static nd_status download_unimplemented(nd_backend *b, void *host, const void *device, size_t bytes)
{
    (void)b, (void)host, (void)device, (void)bytes;
    return ND_FAIL(ND_EINTERNAL, "cuda: op download is not implemented");
}

static nd_status copy_unimplemented(nd_backend *b, void *destination, const void *source, size_t bytes)
{
    (void)b, (void)destination, (void)source, (void)bytes;
    return ND_FAIL(ND_EINTERNAL, "cuda: op copy is not implemented");
}

static nd_status zero_unimplemented(nd_backend *b, void *memory, size_t bytes)
{
    (void)b, (void)memory, (void)bytes;
    return ND_FAIL(ND_EINTERNAL, "cuda: op zero is not implemented");
}

static nd_status synchronize_unimplemented(nd_backend *b)
{
    (void)b;
    return ND_FAIL(ND_EINTERNAL, "cuda: op synchronize is not implemented");
}

static nd_status ternarize_unimplemented(nd_backend *b, nd_view c, nd_view s, nd_cview w)
{
    (void)b, (void)c, (void)s, (void)w;
    return ND_FAIL(ND_EINTERNAL, "cuda: op ternarize is not implemented");
}

static nd_status pack_codes_unimplemented(nd_backend *b, nd_view packed, nd_cview c)
{
    (void)b, (void)packed, (void)c;
    return ND_FAIL(ND_EINTERNAL, "cuda: op pack_codes is not implemented");
}

static nd_status unpack_codes_unimplemented(nd_backend *b, nd_view c, nd_cview packed)
{
    (void)b, (void)c, (void)packed;
    return ND_FAIL(ND_EINTERNAL, "cuda: op unpack_codes is not implemented");
}

static nd_status pack_trits_unimplemented(nd_backend *b, nd_view packed, nd_cview c)
{
    (void)b, (void)packed, (void)c;
    return ND_FAIL(ND_EINTERNAL, "cuda: op pack_trits is not implemented");
}

static nd_status unpack_trits_unimplemented(nd_backend *b, nd_view c, nd_cview packed)
{
    (void)b, (void)c, (void)packed;
    return ND_FAIL(ND_EINTERNAL, "cuda: op unpack_trits is not implemented");
}

static nd_status dequantize_codes_unimplemented(nd_backend *b, nd_view w, nd_cview c, nd_cview s)
{
    (void)b, (void)w, (void)c, (void)s;
    return ND_FAIL(ND_EINTERNAL, "cuda: op dequantize_codes is not implemented");
}

static nd_status quantize_rows_unimplemented(nd_backend *b, nd_view q, nd_view a, nd_cview x)
{
    (void)b, (void)q, (void)a, (void)x;
    return ND_FAIL(ND_EINTERNAL, "cuda: op quantize_rows is not implemented");
}

static nd_status ternary_gemm_unimplemented(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                                       nd_cview s)
{
    (void)b, (void)y, (void)q, (void)a, (void)c, (void)s;
    return ND_FAIL(ND_EINTERNAL, "cuda: op ternary_gemm is not implemented");
}

static nd_status ternary_gemm_dx_unimplemented(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                          nd_cview s, float beta)
{
    (void)b, (void)dx, (void)dy, (void)c, (void)s, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op ternary_gemm_dx is not implemented");
}

static nd_status ternary_gemm_dw_unimplemented(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                          nd_cview a, float beta)
{
    (void)b, (void)dw, (void)dy, (void)q, (void)a, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op ternary_gemm_dw is not implemented");
}

static nd_status ternary_gemm_dx_int8_unimplemented(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                               nd_cview s, float beta)
{
    (void)b, (void)dx, (void)dy, (void)c, (void)s, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op ternary_gemm_dx_int8 is not implemented");
}

static nd_status ternary_gemm_dw_int8_unimplemented(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                               nd_cview a, float beta)
{
    (void)b, (void)dw, (void)dy, (void)q, (void)a, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op ternary_gemm_dw_int8 is not implemented");
}

static nd_status gemm_unimplemented(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                               bool transpose_b, float alpha, float beta)
{
    (void)b, (void)c, (void)a, (void)transpose_a, (void)bb, (void)transpose_b, (void)alpha,
        (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op gemm is not implemented");
}

static nd_status gemm_symmetric_unimplemented(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                         float alpha)
{
    (void)b, (void)c, (void)a, (void)transpose_a, (void)alpha;
    return ND_FAIL(ND_EINTERNAL, "cuda: op gemm_symmetric is not implemented");
}

static nd_status rmsnorm_unimplemented(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview w)
{
    (void)b, (void)y, (void)r, (void)x, (void)w;
    return ND_FAIL(ND_EINTERNAL, "cuda: op rmsnorm is not implemented");
}

static nd_status rmsnorm_quantize_unimplemented(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                           nd_cview x, nd_cview w)
{
    (void)b, (void)q, (void)a, (void)r, (void)x, (void)w;
    return ND_FAIL(ND_EINTERNAL, "cuda: op rmsnorm_quantize is not implemented");
}

static nd_status rmsnorm_backward_unimplemented(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy,
                                           nd_cview x, nd_cview w, nd_cview r, float beta)
{
    (void)b, (void)dx, (void)dw, (void)dy, (void)x, (void)w, (void)r, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op rmsnorm_backward is not implemented");
}

static nd_status swiglu_unimplemented(nd_backend *b, nd_view h, nd_cview gate, nd_cview up)
{
    (void)b, (void)h, (void)gate, (void)up;
    return ND_FAIL(ND_EINTERNAL, "cuda: op swiglu is not implemented");
}

static nd_status swiglu_rmsnorm_quantize_unimplemented(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                                  nd_cview gate, nd_cview up, nd_cview w)
{
    (void)b, (void)q, (void)a, (void)r, (void)gate, (void)up, (void)w;
    return ND_FAIL(ND_EINTERNAL, "cuda: op swiglu_rmsnorm_quantize is not implemented");
}

static nd_status swiglu_backward_unimplemented(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                          nd_cview gate, nd_cview up)
{
    (void)b, (void)dgate, (void)dup, (void)dh, (void)gate, (void)up;
    return ND_FAIL(ND_EINTERNAL, "cuda: op swiglu_backward is not implemented");
}

static nd_status swiglu_rmsnorm_backward_unimplemented(nd_backend *b, nd_view dgate, nd_view dup,
                                                  nd_view dw, nd_cview dy, nd_cview gate,
                                                  nd_cview up, nd_cview w, nd_cview r)
{
    (void)b, (void)dgate, (void)dup, (void)dw, (void)dy, (void)gate, (void)up, (void)w, (void)r;
    return ND_FAIL(ND_EINTERNAL, "cuda: op swiglu_rmsnorm_backward is not implemented");
}

static nd_status rope_unimplemented(nd_backend *b, nd_view x, const nd_rope_params *params)
{
    (void)b, (void)x, (void)params;
    return ND_FAIL(ND_EINTERNAL, "cuda: op rope is not implemented");
}

static nd_status add_unimplemented(nd_backend *b, nd_view y, nd_cview x, nd_cview z)
{
    (void)b, (void)y, (void)x, (void)z;
    return ND_FAIL(ND_EINTERNAL, "cuda: op add is not implemented");
}

static nd_status attention_unimplemented(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *shape)
{
    (void)b, (void)o, (void)lse, (void)q, (void)k, (void)v, (void)shape;
    return ND_FAIL(ND_EINTERNAL, "cuda: op attention is not implemented");
}

static nd_status gather_rows_unimplemented(nd_backend *b, nd_view y, nd_cview x, nd_cview rows)
{
    (void)b, (void)y, (void)x, (void)rows;
    return ND_FAIL(ND_EINTERNAL, "cuda: op gather_rows is not implemented");
}

static nd_status attention_backward_unimplemented(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                             nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                             nd_cview k, nd_cview v,
                                             const nd_attention_shape *shape)
{
    (void)b, (void)dq, (void)dk, (void)dv, (void)dout, (void)o, (void)lse, (void)q, (void)k,
        (void)v, (void)shape;
    return ND_FAIL(ND_EINTERNAL, "cuda: op attention_backward is not implemented");
}

static nd_status embedding_unimplemented(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens)
{
    (void)b, (void)x, (void)table, (void)tokens;
    return ND_FAIL(ND_EINTERNAL, "cuda: op embedding is not implemented");
}

static nd_status embedding_backward_unimplemented(nd_backend *b, nd_view dtable, nd_cview dx,
                                             nd_cview tokens)
{
    (void)b, (void)dtable, (void)dx, (void)tokens;
    return ND_FAIL(ND_EINTERNAL, "cuda: op embedding_backward is not implemented");
}

static nd_status cross_entropy_unimplemented(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                        nd_cview targets, const nd_cross_entropy_params *params)
{
    (void)b, (void)nll, (void)total, (void)logits, (void)targets, (void)params;
    return ND_FAIL(ND_EINTERNAL, "cuda: op cross_entropy is not implemented");
}

static nd_status sum_squares_unimplemented(nd_backend *b, nd_view out, nd_cview x)
{
    (void)b, (void)out, (void)x;
    return ND_FAIL(ND_EINTERNAL, "cuda: op sum_squares is not implemented");
}

static nd_status sum_unimplemented(nd_backend *b, nd_view out, nd_cview x)
{
    (void)b, (void)out, (void)x;
    return ND_FAIL(ND_EINTERNAL, "cuda: op sum is not implemented");
}

static nd_status axpby_unimplemented(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta)
{
    (void)b, (void)y, (void)alpha, (void)x, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op axpby is not implemented");
}

static nd_status divide_by_norm_unimplemented(nd_backend *b, nd_view y, nd_cview x, nd_cview squares,
                                         double factor)
{
    (void)b, (void)y, (void)x, (void)squares, (void)factor;
    return ND_FAIL(ND_EINTERNAL, "cuda: op divide_by_norm is not implemented");
}

static nd_status momentum_unimplemented(nd_backend *b, nd_view u, nd_view m, nd_cview g, float beta,
                                   float scale, bool nesterov)
{
    (void)b, (void)u, (void)m, (void)g, (void)beta, (void)scale, (void)nesterov;
    return ND_FAIL(ND_EINTERNAL, "cuda: op momentum is not implemented");
}

static nd_status apply_update_unimplemented(nd_backend *b, nd_view w, nd_cview u,
                                       const nd_update_params *params)
{
    (void)b, (void)w, (void)u, (void)params;
    return ND_FAIL(ND_EINTERNAL, "cuda: op apply_update is not implemented");
}

static nd_status adamw_unimplemented(nd_backend *b, nd_view w, nd_view m, nd_view v, nd_cview g,
                                const nd_adamw_params *params)
{
    (void)b, (void)w, (void)m, (void)v, (void)g, (void)params;
    return ND_FAIL(ND_EINTERNAL, "cuda: op adamw is not implemented");
}

static nd_status quantize_blocks_unimplemented(nd_backend *b, const nd_blocks *q, nd_cview x)
{
    (void)b, (void)q, (void)x;
    return ND_FAIL(ND_EINTERNAL, "cuda: op quantize_blocks is not implemented");
}

static nd_status dequantize_blocks_unimplemented(nd_backend *b, nd_view x, const nd_blocks *q)
{
    (void)b, (void)x, (void)q;
    return ND_FAIL(ND_EINTERNAL, "cuda: op dequantize_blocks is not implemented");
}

static nd_status adamw_blocks_unimplemented(nd_backend *b, nd_view w, const nd_blocks *m,
                                       const nd_blocks *v, nd_cview g,
                                       const nd_adamw_params *params)
{
    (void)b, (void)w, (void)m, (void)v, (void)g, (void)params;
    return ND_FAIL(ND_EINTERNAL, "cuda: op adamw_blocks is not implemented");
}

static nd_status quantize_tiles_unimplemented(nd_backend *b, const nd_tiles *q, nd_cview x)
{
    (void)b, (void)q, (void)x;
    return ND_FAIL(ND_EINTERNAL, "cuda: op quantize_tiles is not implemented");
}

static nd_status dequantize_tiles_unimplemented(nd_backend *b, nd_view x, const nd_tiles *q, float beta)
{
    (void)b, (void)x, (void)q, (void)beta;
    return ND_FAIL(ND_EINTERNAL, "cuda: op dequantize_tiles is not implemented");
}

void nd_unimplemented_ops(nd_backend_ops *ops)
{
    ops->allocate = allocate_unimplemented;
    ops->upload = upload_unimplemented;
    ops->download = download_unimplemented;
    ops->copy = copy_unimplemented;
    ops->zero = zero_unimplemented;
    ops->synchronize = synchronize_unimplemented;
    ops->ternarize = ternarize_unimplemented;
    ops->pack_codes = pack_codes_unimplemented;
    ops->unpack_codes = unpack_codes_unimplemented;
    ops->pack_trits = pack_trits_unimplemented;
    ops->unpack_trits = unpack_trits_unimplemented;
    ops->dequantize_codes = dequantize_codes_unimplemented;
    ops->quantize_rows = quantize_rows_unimplemented;
    ops->ternary_gemm = ternary_gemm_unimplemented;
    ops->ternary_gemm_dx = ternary_gemm_dx_unimplemented;
    ops->ternary_gemm_dw = ternary_gemm_dw_unimplemented;
    ops->ternary_gemm_dx_int8 = ternary_gemm_dx_int8_unimplemented;
    ops->ternary_gemm_dw_int8 = ternary_gemm_dw_int8_unimplemented;
    ops->gemm = gemm_unimplemented;
    ops->gemm_symmetric = gemm_symmetric_unimplemented;
    ops->rmsnorm = rmsnorm_unimplemented;
    ops->rmsnorm_quantize = rmsnorm_quantize_unimplemented;
    ops->rmsnorm_backward = rmsnorm_backward_unimplemented;
    ops->swiglu = swiglu_unimplemented;
    ops->swiglu_rmsnorm_quantize = swiglu_rmsnorm_quantize_unimplemented;
    ops->swiglu_backward = swiglu_backward_unimplemented;
    ops->swiglu_rmsnorm_backward = swiglu_rmsnorm_backward_unimplemented;
    ops->rope = rope_unimplemented;
    ops->add = add_unimplemented;
    ops->attention = attention_unimplemented;
    ops->gather_rows = gather_rows_unimplemented;
    ops->attention_backward = attention_backward_unimplemented;
    ops->embedding = embedding_unimplemented;
    ops->embedding_backward = embedding_backward_unimplemented;
    ops->cross_entropy = cross_entropy_unimplemented;
    ops->sum_squares = sum_squares_unimplemented;
    ops->sum = sum_unimplemented;
    ops->axpby = axpby_unimplemented;
    ops->divide_by_norm = divide_by_norm_unimplemented;
    ops->momentum = momentum_unimplemented;
    ops->apply_update = apply_update_unimplemented;
    ops->adamw = adamw_unimplemented;
    ops->quantize_blocks = quantize_blocks_unimplemented;
    ops->dequantize_blocks = dequantize_blocks_unimplemented;
    ops->adamw_blocks = adamw_blocks_unimplemented;
    ops->quantize_tiles = quantize_tiles_unimplemented;
    ops->dequantize_tiles = dequantize_tiles_unimplemented;
}

int nd_unimplemented_count(const nd_backend_ops *ops)
{
    int count = 0;
    count += !ops->allocate || ops->allocate == allocate_unimplemented;
    count += !ops->upload || ops->upload == upload_unimplemented;
    count += !ops->download || ops->download == download_unimplemented;
    count += !ops->copy || ops->copy == copy_unimplemented;
    count += !ops->zero || ops->zero == zero_unimplemented;
    count += !ops->synchronize || ops->synchronize == synchronize_unimplemented;
    count += !ops->ternarize || ops->ternarize == ternarize_unimplemented;
    count += !ops->pack_codes || ops->pack_codes == pack_codes_unimplemented;
    count += !ops->unpack_codes || ops->unpack_codes == unpack_codes_unimplemented;
    count += !ops->pack_trits || ops->pack_trits == pack_trits_unimplemented;
    count += !ops->unpack_trits || ops->unpack_trits == unpack_trits_unimplemented;
    count += !ops->dequantize_codes || ops->dequantize_codes == dequantize_codes_unimplemented;
    count += !ops->quantize_rows || ops->quantize_rows == quantize_rows_unimplemented;
    count += !ops->ternary_gemm || ops->ternary_gemm == ternary_gemm_unimplemented;
    count += !ops->ternary_gemm_dx || ops->ternary_gemm_dx == ternary_gemm_dx_unimplemented;
    count += !ops->ternary_gemm_dw || ops->ternary_gemm_dw == ternary_gemm_dw_unimplemented;
    count +=
        !ops->ternary_gemm_dx_int8 || ops->ternary_gemm_dx_int8 == ternary_gemm_dx_int8_unimplemented;
    count +=
        !ops->ternary_gemm_dw_int8 || ops->ternary_gemm_dw_int8 == ternary_gemm_dw_int8_unimplemented;
    count += !ops->gemm || ops->gemm == gemm_unimplemented;
    count += !ops->gemm_symmetric || ops->gemm_symmetric == gemm_symmetric_unimplemented;
    count += !ops->rmsnorm || ops->rmsnorm == rmsnorm_unimplemented;
    count += !ops->rmsnorm_quantize || ops->rmsnorm_quantize == rmsnorm_quantize_unimplemented;
    count += !ops->rmsnorm_backward || ops->rmsnorm_backward == rmsnorm_backward_unimplemented;
    count += !ops->swiglu || ops->swiglu == swiglu_unimplemented;
    count += !ops->swiglu_rmsnorm_quantize ||
             ops->swiglu_rmsnorm_quantize == swiglu_rmsnorm_quantize_unimplemented;
    count += !ops->swiglu_backward || ops->swiglu_backward == swiglu_backward_unimplemented;
    count += !ops->swiglu_rmsnorm_backward ||
             ops->swiglu_rmsnorm_backward == swiglu_rmsnorm_backward_unimplemented;
    count += !ops->rope || ops->rope == rope_unimplemented;
    count += !ops->add || ops->add == add_unimplemented;
    count += !ops->attention || ops->attention == attention_unimplemented;
    count += !ops->gather_rows || ops->gather_rows == gather_rows_unimplemented;
    count += !ops->attention_backward || ops->attention_backward == attention_backward_unimplemented;
    count += !ops->embedding || ops->embedding == embedding_unimplemented;
    count += !ops->embedding_backward || ops->embedding_backward == embedding_backward_unimplemented;
    count += !ops->cross_entropy || ops->cross_entropy == cross_entropy_unimplemented;
    count += !ops->sum_squares || ops->sum_squares == sum_squares_unimplemented;
    count += !ops->sum || ops->sum == sum_unimplemented;
    count += !ops->axpby || ops->axpby == axpby_unimplemented;
    count += !ops->divide_by_norm || ops->divide_by_norm == divide_by_norm_unimplemented;
    count += !ops->momentum || ops->momentum == momentum_unimplemented;
    count += !ops->apply_update || ops->apply_update == apply_update_unimplemented;
    count += !ops->adamw || ops->adamw == adamw_unimplemented;
    count += !ops->quantize_blocks || ops->quantize_blocks == quantize_blocks_unimplemented;
    count += !ops->dequantize_blocks || ops->dequantize_blocks == dequantize_blocks_unimplemented;
    count += !ops->adamw_blocks || ops->adamw_blocks == adamw_blocks_unimplemented;
    count += !ops->quantize_tiles || ops->quantize_tiles == quantize_tiles_unimplemented;
    count += !ops->dequantize_tiles || ops->dequantize_tiles == dequantize_tiles_unimplemented;
    return count;
}
