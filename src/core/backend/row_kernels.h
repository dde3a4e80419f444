/* Kernels on rows in host memory for use outside backend ops, such as encoding messages of
 * gradients. The formulas are in core/backend/cpu/fast_kernels.h, under the same names. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { ND_FLOATS_BLOCK = 256 };

typedef struct nd_row_kernels {
    void (*load_bf16)(float *y, const uint16_t *x, int64_t n);
    void (*store_bf16)(uint16_t *y, const float *x, int64_t n);
    void (*load_i8)(float *y, const int8_t *x, float scale, int64_t n);
    void (*quantize)(int8_t *q, const float *x, float factor, int64_t n);
    void (*add)(float *y, const float *x, const float *z, int64_t n);
    void (*axpby)(float *y, float alpha, const float *x, float beta, int64_t n);
    float (*max_magnitude)(const float *x, int64_t n);
    /* A block of dist/reduction/float_compression.h, n <= ND_FLOATS_BLOCK values, in at most 4 n +
     * 4 bytes, the same for every instruction set. Both return the bytes of the encoding, or 0: it
     * does not fit into `room` bytes, or what begins at `in` is none of n values. */
    int64_t (*compress_floats)(uint8_t *out, int64_t room, const float *x, int n);
    int64_t (*decompress_floats)(float *y, const uint8_t *in, int64_t length, int n, bool add);
} nd_row_kernels;

/* The kernels for the instruction set that this process uses ([hardware] cpu_isa). */
nd_row_kernels nd_row_kernels_in_force(void);
