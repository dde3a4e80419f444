/* A product of oneDNN's own, as large as one likes, by all threads: what the machine gives. */
#pragma once

#include "core/backend/cpu/onednn.h"

typedef struct peak_product {
    int64_t m, n, k;
    nd_onednn *onednn;
    nd_onednn_call *call;
    void *operands[ND_ONEDNN_OPERANDS];
} peak_product;

/* [m, k] x [k, n] of type `in`, the right operand packed. False if oneDNN has no such product. */
bool peak_create(peak_product *p, int64_t m, int64_t n, int64_t k, nd_dtype in, nd_dtype out);
void peak_destroy(peak_product *p);

/* FLOP/s of one execution. */
double peak_measure(const peak_product *p);
