/* Fast layer: optimizer state in 8 and 4 bits. */
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/op_families.h"

/* Encodes and decodes blocks of one kind. */
typedef struct block_codec {
    const nd_fast_kernels *kernels;
    const nd_blocks *q;
    nd_dynamic_code dynamic;
} block_codec;

static block_codec codec_for(const nd_fast_kernels *kernels, const nd_blocks *q)
{
    block_codec c = {.kernels = kernels, .q = q};
    if (q->code != ND_BLOCK_LINEAR)
        nd_dynamic_code_fill(&c.dynamic, q->code == ND_BLOCK_DYNAMIC);
    return c;
}

static void encode_block(const block_codec *c, int64_t k, const float *x, int64_t n)
{
    const nd_blocks *q = c->q;
    const float largest = c->kernels->max_magnitude(x, n);
    ((float *)q->scales.data)[k] = largest < 0x1p-100f ? 0.0f : largest;
    if (q->code == ND_BLOCK_LINEAR)
        c->kernels->quantize((int8_t *)q->codes.data + k * q->block, x,
                             nd_state_factor(127.0f, largest), n);
    else
        c->kernels->encode_dynamic((uint8_t *)q->codes.data + k * q->block, x,
                                   nd_state_factor(1.0f, largest), &c->dynamic, n);
}

static void decode_block(const block_codec *c, int64_t k, float *x, int64_t n)
{
    const nd_blocks *q = c->q;
    const float scale = ((const float *)q->scales.data)[k];
    if (q->code == ND_BLOCK_LINEAR)
        c->kernels->load_i8(x, (const int8_t *)q->codes.data + k * q->block, scale / 127.0f, n);
    else
        c->kernels->decode_dynamic(x, (const uint8_t *)q->codes.data + k * q->block, scale,
                                   &c->dynamic, n);
}

static nd_status quantize_blocks_fast(nd_backend *b, const nd_blocks *q, nd_cview x)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t count = nd_view_count(x);
    ND_REQUIRE(x.dtype == ND_F32 && nd_blocks_hold(q, count));
    const block_codec codec = codec_for(fast->kernels, q);
    const float *values = x.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t k = 0; k < nd_view_count(nd_as_const(q->scales)); k++)
        encode_block(&codec, k, values + k * q->block, nd_fast_min(q->block, count - k * q->block));
    return ND_OK;
}

static nd_status dequantize_blocks_fast(nd_backend *b, nd_view x, const nd_blocks *q)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int64_t count = nd_view_count(nd_as_const(x));
    ND_REQUIRE(x.dtype == ND_F32 && nd_blocks_hold(q, count));
    const block_codec codec = codec_for(fast->kernels, q);
    float *values = x.data;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t k = 0; k < nd_view_count(nd_as_const(q->scales)); k++)
        decode_block(&codec, k, values + k * q->block, nd_fast_min(q->block, count - k * q->block));
    return ND_OK;
}

static nd_status adamw_blocks_fast(nd_backend *b, nd_view w, const nd_blocks *m, const nd_blocks *v,
                                   nd_cview g, const nd_adamw_params *p)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(w.dtype) || !nd_fast_covers(g.dtype))
        return fast->reference.adamw_blocks(b, w, m, v, g, p);
    const int64_t count = nd_view_count(g);
    ND_REQUIRE(nd_same_shape(nd_as_const(w), g) && nd_adamw_blocks_fit(m, v, count));
    const nd_fast_kernels *k = fast->kernels;
    const block_codec first = codec_for(k, m), second = codec_for(k, v);
    const nd_adamw_rule rule = nd_fast_adamw_rule(p);
    const int64_t block = m->block;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t i = 0; i < nd_view_count(nd_as_const(m->scales)); i++) {
        float moment1[ND_ADAMW_BLOCK_MAX], moment2[ND_ADAMW_BLOCK_MAX];
        float buffers[2][ND_ADAMW_BLOCK_MAX];
        const int64_t at = i * block, n = nd_fast_min(block, count - at);
        float *weights = nd_fast_target(w, at, buffers[0]);
        nd_fast_load(k, nd_as_const(w), at, n, weights);
        decode_block(&first, i, moment1, n);
        decode_block(&second, i, moment2, n);
        k->adamw(weights, moment1, moment2, nd_fast_load(k, g, at, n, buffers[1]), &rule, n);
        encode_block(&first, i, moment1, n);
        encode_block(&second, i, moment2, n);
        if (w.dtype == ND_BF16)
            k->store_bf16_stochastic((uint16_t *)w.data + at, weights, p->rounding_key,
                                     p->first_element + at, n);
    }
    return ND_OK;
}

/* The position of a tile in a matrix and in its codes. */
typedef struct tile {
    int64_t rows, cols; /* of this tile, at most ND_TILE */
    int64_t at, stride; /* first element in the matrix; distance of rows */
    uint8_t *codes;     /* first byte; rows are q->codes.cols apart */
    uint16_t *row_max;  /* rows are q->row_max.cols apart */
    uint16_t *column_max;
} tile;

static tile tile_at(const nd_tiles *q, int64_t rows, int64_t cols, int64_t number)
{
    const int64_t tiles_in_row = q->row_max.cols, i = number / tiles_in_row * ND_TILE,
                  j = number % tiles_in_row * ND_TILE;
    return (tile){
        .rows = nd_fast_min(ND_TILE, rows - i),
        .cols = nd_fast_min(ND_TILE, cols - j),
        .at = i * cols + j,
        .stride = cols,
        .codes = (uint8_t *)q->codes.data + i * q->codes.cols + j / 2,
        .row_max = (uint16_t *)q->row_max.data + i * tiles_in_row + j / ND_TILE,
        .column_max = (uint16_t *)q->column_max.data + i / ND_TILE * cols + j,
    };
}

static nd_status quantize_tiles_fast(nd_backend *b, const nd_tiles *q, nd_cview x)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const nd_fast_kernels *k = fast->kernels;
    ND_REQUIRE(x.dtype == ND_F32 && nd_tiles_hold(q, x));
    const int64_t tiles = q->row_max.cols * q->column_max.rows;
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(x)))
    for (int64_t number = 0; number < tiles; number++) {
        const tile t = tile_at(q, x.rows, x.cols, number);
        const float *values = (const float *)x.data + t.at;
        float columns[ND_TILE] = {0.0f}, factors[ND_TILE];
        for (int64_t i = 0; i < t.rows; i++) {
            const float *row = values + i * t.stride;
            k->max_columns(columns, row, 1.0f, t.cols);
            t.row_max[i * q->row_max.cols] = nd_bf16_from_float(k->max_magnitude(row, t.cols));
        }
        k->store_bf16(t.column_max, columns, t.cols);
        for (int64_t j = 0; j < t.cols; j++)
            factors[j] = nd_state_factor(1.0f, nd_bf16_to_float(t.column_max[j]));
        for (int64_t i = 0; i < t.rows; i++) {
            const float largest = nd_bf16_to_float(t.row_max[i * q->row_max.cols]);
            k->encode_nibbles(t.codes + i * q->codes.cols, values + i * t.stride,
                              nd_state_factor(1.0f, largest), factors, t.cols);
        }
    }
    return ND_OK;
}

static nd_status dequantize_tiles_fast(nd_backend *b, nd_view x, const nd_tiles *q, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const nd_fast_kernels *k = fast->kernels;
    ND_REQUIRE(x.dtype == ND_F32 && nd_tiles_hold(q, nd_as_const(x)));
    const int64_t tiles = q->row_max.cols * q->column_max.rows;
#pragma omp parallel for num_threads(nd_fast_team(fast, nd_view_count(nd_as_const(x))))
    for (int64_t number = 0; number < tiles; number++) {
        const tile t = tile_at(q, x.rows, x.cols, number);
        float *values = (float *)x.data + t.at;
        float scales[ND_TILE];
        for (int64_t j = 0; j < t.cols; j++)
            scales[j] = nd_bf16_to_float(t.column_max[j]);
        for (int64_t i = 0; i < t.rows; i++) {
            const float scale = nd_bf16_to_float(t.row_max[i * q->row_max.cols]);
            k->decode_nibbles(values + i * t.stride, t.codes + i * q->codes.cols, scale, scales,
                              beta, t.cols);
        }
    }
    return ND_OK;
}

void nd_fast_fill_state(nd_backend_ops *ops)
{
    ops->quantize_blocks = quantize_blocks_fast;
    ops->dequantize_blocks = dequantize_blocks_fast;
    ops->adamw_blocks = adamw_blocks_fast;
    ops->quantize_tiles = quantize_tiles_fast;
    ops->dequantize_tiles = dequantize_tiles_fast;
}
