#include "dist/reduction/gradient_wire.h"

#include "core/backend/row_kernels.h"

#include <math.h>
#include <string.h>

/* Values per scale on the wire in int8, and in residuals. Parts of messages are multiples
 * of both. */
enum {
    SCALE_BYTES = sizeof(float),
    INT8_BLOCK = ND_WIRE_BLOCK_BYTES - SCALE_BYTES,
    INT4_BLOCK = 2 * INT8_BLOCK,
    BF16_BLOCK = ND_WIRE_BLOCK_BYTES / 2,
    BLOCK_MAX = INT4_BLOCK
};

nd_gradient_wire nd_gradient_wire_for(nd_gradient_wire chosen, int64_t count)
{
    return count < ND_WIRE_ROUNDED_MIN ? ND_GRADIENT_WIRE_FP32 : chosen;
}

const char *nd_gradient_wire_name(nd_gradient_wire format)
{
    static const char *const names[] = {"fp32", "bf16", "int8", "int4"};
    return names[format];
}

static size_t blocks_bytes(int64_t count, int64_t block)
{
    return (size_t)(count + SCALE_BYTES * ((count + block - 1) / block));
}

size_t nd_gradient_wire_bytes(nd_gradient_wire format, int64_t count)
{
    switch (format) {
    case ND_GRADIENT_WIRE_FP32:
        break;
    case ND_GRADIENT_WIRE_BF16:
        return (size_t)count * sizeof(uint16_t);
    case ND_GRADIENT_WIRE_INT8:
        return blocks_bytes(count, INT8_BLOCK);
    case ND_GRADIENT_WIRE_INT4:
        return (size_t)((count + 1) / 2 + SCALE_BYTES * ((count + INT4_BLOCK - 1) / INT4_BLOCK));
    }
    return (size_t)count * sizeof(float);
}

int64_t nd_gradient_wire_values(nd_gradient_wire format, size_t bytes)
{
    switch (format) {
    case ND_GRADIENT_WIRE_FP32:
        break;
    case ND_GRADIENT_WIRE_BF16:
        return (int64_t)(bytes / sizeof(uint16_t));
    case ND_GRADIENT_WIRE_INT8:
        return (int64_t)bytes -
               SCALE_BYTES * (int64_t)((bytes + ND_WIRE_BLOCK_BYTES - 1) / ND_WIRE_BLOCK_BYTES);
    case ND_GRADIENT_WIRE_INT4:
        return 2 * nd_gradient_wire_values(ND_GRADIENT_WIRE_INT8, bytes);
    }
    return (int64_t)(bytes / sizeof(float));
}

size_t nd_gradient_residual_bytes(nd_gradient_wire format, int64_t count)
{
    switch (format) {
    case ND_GRADIENT_WIRE_FP32:
        break;
    case ND_GRADIENT_WIRE_BF16:
        return blocks_bytes(count, BF16_BLOCK);
    case ND_GRADIENT_WIRE_INT8:
        return blocks_bytes(count, INT8_BLOCK);
    case ND_GRADIENT_WIRE_INT4:
        return blocks_bytes(count, INT4_BLOCK);
    }
    return 0;
}

static void decode_block(const nd_row_kernels *k, float *x, const char *block, int64_t n)
{
    float scale;
    memcpy(&scale, block, SCALE_BYTES);
    k->load_i8(x, (const int8_t *)block + SCALE_BYTES, scale, n);
}

/* Below 2^-100 the factor could overflow: such a block is encoded as zeros. */
static void encode_block(const nd_row_kernels *k, char *block, const float *x, float largest,
                         int64_t n)
{
    const bool zeros = largest < 0x1p-100f;
    const float scale = !isfinite(largest) ? (float)NAN : zeros ? 0.0f : largest / 127.0f;
    memcpy(block, &scale, SCALE_BYTES);
    if (zeros || !isfinite(largest))
        memset(block + SCALE_BYTES, 0, (size_t)n);
    else
        k->quantize((int8_t *)block + SCALE_BYTES, x, 127.0f / largest, n);
}

static void decode_block4(float *x, const char *block, int64_t n)
{
    const unsigned char *codes = (const unsigned char *)block + SCALE_BYTES;
    float scale;
    memcpy(&scale, block, SCALE_BYTES);
    for (int64_t i = 0; i < n; i++)
        x[i] = scale * (float)((codes[i / 2] >> 4 * (i % 2) & 15) - 8);
}

/* Codes 1 to 15: rint(7 x / max|x|) + 8. */
static void encode_block4(const nd_row_kernels *k, char *block, const float *x, float largest,
                          int64_t n)
{
    const bool zeros = largest < 0x1p-100f || !isfinite(largest);
    const float scale = !isfinite(largest) ? (float)NAN : zeros ? 0.0f : largest / 7.0f;
    int8_t codes[INT4_BLOCK + 1] = {0};
    memcpy(block, &scale, SCALE_BYTES);
    if (!zeros)
        k->quantize(codes, x, 7.0f / largest, n);
    for (int64_t i = 0; i < n; i += 2)
        block[SCALE_BYTES + i / 2] = (char)((codes[i] + 8) | (codes[i + 1] + 8) << 4);
}

/* Encodes one block; `wire` and `residual` point to its start in them. */
static void send_block(const nd_row_kernels *k, nd_gradient_wire format, char *wire,
                       const float *values, char *residual, int64_t n)
{
    float x[BLOCK_MAX], sent[BLOCK_MAX];
    memcpy(x, values, (size_t)n * sizeof *x);
    if (residual) {
        decode_block(k, sent, residual, n);
        k->add(x, x, sent, n);
    }
    const float largest = k->max_magnitude(x, n);
    if (format == ND_GRADIENT_WIRE_BF16) {
        k->store_bf16((uint16_t *)wire, x, n);
        k->load_bf16(sent, (const uint16_t *)wire, n);
    } else if (format == ND_GRADIENT_WIRE_INT4) {
        encode_block4(k, wire, x, largest, n);
        decode_block4(sent, wire, n);
    } else {
        encode_block(k, wire, x, largest, n);
        decode_block(k, sent, wire, n);
    }
    if (!residual)
        return;
    k->axpby(x, -1.0f, sent, 1.0f, n);
    const float lost = k->max_magnitude(x, n);
    if (isfinite(lost))
        encode_block(k, residual, x, lost, n);
}

/* Values that share a block of the message and of the residual. */
static int64_t block_of(nd_gradient_wire format)
{
    return format == ND_GRADIENT_WIRE_BF16   ? BF16_BLOCK
           : format == ND_GRADIENT_WIRE_INT4 ? INT4_BLOCK
                                             : INT8_BLOCK;
}

void nd_gradient_wire_encode(nd_gradient_wire format, void *wire, const float *values,
                             void *residual, int64_t count)
{
    const nd_row_kernels kernels = nd_row_kernels_in_force(), *k = &kernels;
    const int64_t block = block_of(format);
    char *out = wire, *kept = residual;
    if (format == ND_GRADIENT_WIRE_FP32) {
        memcpy(wire, values, (size_t)count * sizeof *values);
        return;
    }
    for (int64_t at = 0; at < count; at += block)
        send_block(k, format, out + nd_gradient_wire_bytes(format, at), values + at,
                   kept ? kept + blocks_bytes(at, block) : NULL,
                   count - at < block ? count - at : block);
}

void nd_gradient_wire_add(nd_gradient_wire format, float *into, const void *wire, int64_t count)
{
    const nd_row_kernels kernels = nd_row_kernels_in_force(), *k = &kernels;
    if (format == ND_GRADIENT_WIRE_FP32) {
        k->add(into, into, wire, count);
        return;
    }
    const int64_t block = format == ND_GRADIENT_WIRE_INT4 ? INT4_BLOCK : INT8_BLOCK;
    for (int64_t at = 0; at < count; at += block) {
        const int64_t n = count - at < block ? count - at : block;
        const char *in = (const char *)wire + nd_gradient_wire_bytes(format, at);
        float theirs[BLOCK_MAX];
        if (format == ND_GRADIENT_WIRE_BF16)
            k->load_bf16(theirs, (const uint16_t *)in, n);
        else if (format == ND_GRADIENT_WIRE_INT4)
            decode_block4(theirs, in, n);
        else
            decode_block(k, theirs, in, n);
        k->add(into + at, into + at, theirs, n);
    }
}
