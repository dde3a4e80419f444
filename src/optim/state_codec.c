#include "optim/state_codec.h"

static nd_status reserve_fp32(nd_state *s, nd_arena *arena)
{
    return nd_arena_reserve(arena, ND_F32, s->rows, s->cols, &s->parts[0]);
}

static nd_status load_fp32(nd_backend *b, const nd_state *s, const nd_state_scratch *scratch,
                           nd_view into, nd_view *m)
{
    (void)b, (void)scratch, (void)into;
    *m = s->parts[0];
    return ND_OK;
}

static nd_status store_fp32(nd_backend *b, const nd_state *s, const nd_state_scratch *scratch,
                            nd_view m)
{
    (void)b, (void)scratch, (void)s, (void)m; /* the caller changed it in place */
    return ND_OK;
}

const nd_state_codec nd_state_fp32 = {"fp32", 1, {""}, reserve_fp32, load_fp32, store_fp32};

nd_blocks nd_state_blocks(const nd_state *s)
{
    const bool linear = s->codec == &nd_state_linear8;
    return (nd_blocks){.codes = s->parts[0],
                       .scales = s->parts[1],
                       .block = linear ? ND_STATE_LINEAR_BLOCK : ND_STATE_DYNAMIC_BLOCK,
                       .code = linear                           ? ND_BLOCK_LINEAR
                               : s->codec == &nd_state_dynamic8 ? ND_BLOCK_DYNAMIC
                                                                : ND_BLOCK_DYNAMIC_UNSIGNED};
}

static nd_status reserve_blocks(nd_state *s, nd_arena *arena)
{
    const nd_blocks q = nd_state_blocks(s);
    const int64_t blocks = (s->rows * s->cols + q.block - 1) / q.block;
    const nd_dtype codes = q.code == ND_BLOCK_LINEAR ? ND_I8 : ND_U8;
    ND_TRY(nd_arena_reserve(arena, codes, s->rows, s->cols, &s->parts[0]));
    return nd_arena_reserve(arena, ND_F32, 1, blocks, &s->parts[1]);
}

static nd_status load_blocks(nd_backend *b, const nd_state *s, const nd_state_scratch *scratch,
                             nd_view into, nd_view *m)
{
    (void)scratch;
    const nd_blocks q = nd_state_blocks(s);
    *m = nd_view_of(into.data, ND_F32, s->rows, s->cols);
    return b->ops.dequantize_blocks(b, *m, &q);
}

static nd_status store_blocks(nd_backend *b, const nd_state *s, const nd_state_scratch *scratch,
                              nd_view m)
{
    (void)scratch;
    const nd_blocks q = nd_state_blocks(s);
    return b->ops.quantize_blocks(b, &q, nd_as_const(m));
}

const nd_state_codec nd_state_linear8 = {"8-bit linear", 2,           {"_codes", "_scales"},
                                         reserve_blocks, load_blocks, store_blocks};
const nd_state_codec nd_state_dynamic8 = {"8-bit dynamic", 2,           {"_codes", "_scales"},
                                          reserve_blocks,  load_blocks, store_blocks};
static const nd_state_codec dynamic8_unsigned = {
    "8-bit dynamic, unsigned", 2, {"_codes", "_scales"}, reserve_blocks, load_blocks, store_blocks};

const nd_state_codec *nd_state_codec_momentum(int bits, int64_t rows, int64_t cols)
{
    if (bits == 32 || rows * cols < ND_STATE_QUANTIZED_MIN)
        return &nd_state_fp32;
    return bits == 4 ? &nd_state_low_rank4 : &nd_state_linear8;
}

const nd_state_codec *nd_state_codec_moment(int bits, int64_t rows, int64_t cols, bool second)
{
    if (bits == 32 || rows * cols < ND_STATE_QUANTIZED_MIN)
        return &nd_state_fp32;
    return second ? &dynamic8_unsigned : &nd_state_dynamic8;
}

nd_status nd_state_reserve(nd_state *s, const nd_state_codec *codec, int64_t rows, int64_t cols,
                           nd_arena *arena)
{
    s->codec = codec;
    s->rows = rows;
    s->cols = cols;
    return codec->reserve(s, arena);
}
