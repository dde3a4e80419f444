/* Operations on rows in host memory, of the instruction set that is in force in this process ([hardware]
 * cpu_isa), for work that is no backend op: encoding gradients for messages. Formulas are beside their
 * namesakes in core/backend/cpu/fast_kernels.h. */
#pragma once

#include <stdint.h>

typedef struct nd_row_kernels {
    void (*load_bf16)(float *y, const uint16_t *x, int64_t n);
    void (*store_bf16)(uint16_t *y, const float *x, int64_t n);
    void (*load_i8)(float *y, const int8_t *x, float scale, int64_t n);
    void (*quantize)(int8_t *q, const float *x, float factor, int64_t n);
    void (*add)(float *y, const float *x, const float *z, int64_t n);
    void (*axpby)(float *y, float alpha, const float *x, float beta, int64_t n);
    float (*max_magnitude)(const float *x, int64_t n);
} nd_row_kernels;

nd_row_kernels nd_row_kernels_in_force(void);
