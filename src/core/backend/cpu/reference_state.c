/* Reference: optimizer state in 8 and 4 bits. f32 arithmetic defines the codes, so that other
 * implementations can match them. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"
#include "core/base/dynamic_code.h"
#include "core/base/nibble_code.h"

#include <math.h>
#include <stdlib.h>

/* Decodes and encodes the values of one kind of block. */
typedef struct block_codec {
    nd_block_code kind;
    nd_dynamic_code dynamic;
} block_codec;

static block_codec codec_for(nd_block_code kind)
{
    block_codec c = {.kind = kind};
    if (kind != ND_BLOCK_LINEAR)
        nd_dynamic_code_fill(&c.dynamic, kind == ND_BLOCK_DYNAMIC);
    return c;
}

static int64_t block_end(const nd_blocks *q, int64_t k)
{
    const int64_t count = nd_view_count(nd_as_const(q->codes)), end = (k + 1) * q->block;
    return end < count ? end : count;
}

static uint8_t nearest_code(const nd_dynamic_code *code, float x, float scaled)
{
    const float a = fabsf(scaled);
    int index = 0;
    while (index + 1 < code->count && a > code->limits[index])
        index++;
    return (uint8_t)(index | (code->has_sign && signbit(x) ? ND_DYNAMIC_SIGN : 0));
}

/* `values` are block k, as doubles. */
static void encode_block(const block_codec *c, const nd_blocks *q, int64_t k, const double *values)
{
    const int64_t first = k * q->block, n = block_end(q, k) - first;
    float largest = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        const float magnitude = fabsf((float)values[i]);
        if (isnan(largest) || isnan(magnitude))
            largest = NAN;
        else if (magnitude > largest)
            largest = magnitude;
    }
    const float factor = nd_state_factor(c->kind == ND_BLOCK_LINEAR ? 127.0f : 1.0f, largest);
    ((float *)q->scales.data)[k] = largest < 0x1p-100f ? 0.0f : largest;
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)values[i], scaled = x * factor;
        if (c->kind == ND_BLOCK_LINEAR)
            ((int8_t *)q->codes.data)[first + i] = isnan(scaled) ? 0 : (int8_t)rintf(scaled);
        else
            ((uint8_t *)q->codes.data)[first + i] = nearest_code(&c->dynamic, x, scaled);
    }
}

static void decode_block(const block_codec *c, const nd_blocks *q, int64_t k, double *values)
{
    const int64_t first = k * q->block, n = block_end(q, k) - first;
    const float scale = ((const float *)q->scales.data)[k];
    for (int64_t i = 0; i < n; i++) {
        if (c->kind == ND_BLOCK_LINEAR) {
            values[i] = (float)((const int8_t *)q->codes.data)[first + i] * (scale / 127.0f);
            continue;
        }
        const uint8_t code = ((const uint8_t *)q->codes.data)[first + i];
        const bool negative = c->dynamic.has_sign && (code & ND_DYNAMIC_SIGN);
        const float magnitude = scale * c->dynamic.values[negative ? code ^ ND_DYNAMIC_SIGN : code];
        values[i] = negative ? -magnitude : magnitude;
    }
}

static nd_status quantize_blocks_reference(nd_backend *b, const nd_blocks *q, nd_cview x)
{
    (void)b;
    ND_REQUIRE(x.dtype == ND_F32 && nd_blocks_hold(q, nd_view_count(x)));
    const block_codec codec = codec_for(q->code);
    const int64_t blocks = nd_view_count(nd_as_const(q->scales));
    ND_AUTOFREE double *values = malloc((size_t)q->block * sizeof *values);
    ND_FAIL_IF(!values, ND_ENOMEM, "no memory for a block of %lld", (long long)q->block);
    for (int64_t k = 0; k < blocks; k++) {
        for (int64_t i = k * q->block; i < block_end(q, k); i++)
            values[i - k * q->block] = nd_load(x, i);
        encode_block(&codec, q, k, values);
    }
    return ND_OK;
}

static nd_status dequantize_blocks_reference(nd_backend *b, nd_view x, const nd_blocks *q)
{
    (void)b;
    ND_REQUIRE(x.dtype == ND_F32 && nd_blocks_hold(q, nd_view_count(nd_as_const(x))));
    const block_codec codec = codec_for(q->code);
    const int64_t blocks = nd_view_count(nd_as_const(q->scales));
    ND_AUTOFREE double *values = malloc((size_t)q->block * sizeof *values);
    ND_FAIL_IF(!values, ND_ENOMEM, "no memory for a block of %lld", (long long)q->block);
    for (int64_t k = 0; k < blocks; k++) {
        decode_block(&codec, q, k, values);
        for (int64_t i = k * q->block; i < block_end(q, k); i++)
            nd_store(x, i, values[i - k * q->block]);
    }
    return ND_OK;
}

static nd_status adamw_blocks_reference(nd_backend *b, nd_view w, const nd_blocks *m,
                                        const nd_blocks *v, nd_cview g, const nd_adamw_params *p)
{
    (void)b;
    ND_REQUIRE(nd_is_float(w.dtype) && nd_is_float(g.dtype) && nd_same_shape(nd_as_const(w), g));
    ND_REQUIRE(nd_adamw_blocks_fit(m, v, nd_view_count(g)));
    const block_codec first = codec_for(m->code), second = codec_for(v->code);
    double moment1[ND_ADAMW_BLOCK_MAX], moment2[ND_ADAMW_BLOCK_MAX];
    const int64_t blocks = nd_view_count(nd_as_const(m->scales));
    for (int64_t k = 0; k < blocks; k++) {
        const int64_t at = k * m->block;
        decode_block(&first, m, k, moment1);
        decode_block(&second, v, k, moment2);
        nd_reference_adamw(w, at, block_end(m, k) - at, moment1, moment2, g, p);
        encode_block(&first, m, k, moment1);
        encode_block(&second, v, k, moment2);
    }
    return ND_OK;
}

static float tile_scale(const nd_tiles *q, int64_t i, int64_t j)
{
    const int64_t row_at = i * q->row_max.cols + j / ND_TILE;
    const int64_t column_at = i / ND_TILE * q->column_max.cols + j;
    const float row = nd_bf16_to_float(((const uint16_t *)q->row_max.data)[row_at]);
    const float column = nd_bf16_to_float(((const uint16_t *)q->column_max.data)[column_at]);
    return fminf(row, column);
}

/* max |x| over the part of a tile that lies in one row (step 1) or column (step x.cols). */
static uint16_t line_max(nd_cview x, int64_t first, int64_t step, int64_t n)
{
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(nd_load(x, first + i * step)));
    return nd_bf16_from_float((float)largest);
}

static int64_t tile_length(int64_t first, int64_t length)
{
    return length - first < ND_TILE ? length - first : ND_TILE;
}

static nd_status quantize_tiles_reference(nd_backend *b, const nd_tiles *q, nd_cview x)
{
    (void)b;
    ND_REQUIRE(x.dtype == ND_F32 && nd_tiles_hold(q, x));
    uint16_t *row_max = q->row_max.data, *column_max = q->column_max.data;
    uint8_t *codes = q->codes.data;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j += ND_TILE)
            row_max[i * q->row_max.cols + j / ND_TILE] =
                line_max(x, i * x.cols + j, 1, tile_length(j, x.cols));
    for (int64_t i = 0; i < x.rows; i += ND_TILE)
        for (int64_t j = 0; j < x.cols; j++)
            column_max[i / ND_TILE * x.cols + j] =
                line_max(x, i * x.cols + j, x.cols, tile_length(i, x.rows));
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j++) {
            const float value = (float)nd_load(x, i * x.cols + j);
            const float scaled = fabsf(value * nd_state_factor(1.0f, tile_scale(q, i, j)));
            int code = signbit(value) ? ND_NIBBLE_SIGN : 0;
            for (int k = 0; k < ND_NIBBLE_LEVELS - 1; k++)
                code += scaled > nd_nibble_limits[k];
            uint8_t *byte = &codes[i * q->codes.cols + j / 2];
            *byte = (uint8_t)(j % 2 == 0 ? code : *byte | code << 4);
        }
    return ND_OK;
}

static nd_status dequantize_tiles_reference(nd_backend *b, nd_view x, const nd_tiles *q, float beta)
{
    (void)b;
    ND_REQUIRE(x.dtype == ND_F32 && nd_tiles_hold(q, nd_as_const(x)));
    const uint8_t *codes = q->codes.data;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j++) {
            const int bits = codes[i * q->codes.cols + j / 2] >> (j % 2 * 4) & 15;
            const double level = (double)nd_nibble_levels[bits % ND_NIBBLE_LEVELS];
            const double value =
                (double)tile_scale(q, i, j) * (bits & ND_NIBBLE_SIGN ? -level : level);
            const int64_t at = i * x.cols + j;
            nd_store(x, at, (beta == 0.0f ? 0.0 : nd_load(nd_as_const(x), at)) + value);
        }
    return ND_OK;
}

void nd_reference_fill_state(nd_backend_ops *ops)
{
    ops->quantize_blocks = quantize_blocks_reference;
    ops->dequantize_blocks = dequantize_blocks_reference;
    ops->adamw_blocks = adamw_blocks_reference;
    ops->quantize_tiles = quantize_tiles_reference;
    ops->dequantize_tiles = dequantize_tiles_reference;
}
