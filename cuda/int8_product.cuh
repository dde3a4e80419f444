/* The project's own int8 product, which scales results while storing them. */
#pragma once

#include "context.cuh"

/* y[r,n] (+)= the product of left [y.rows, k] and rightᵀ, right [y.cols, k], scaled in one of three
 * ways:
 *   groups 0        s a[r]/127 sum_k left[r,k] right[n,k]
 *   groups > 0      a[r]/127 sum_g s[n,g] sum_{k in g} left[r,k] right[n,k]     s: [y.cols, groups]
 *   row_width > 0   sum_g s[g,r]/127 sum_{k in g} left[r,k] right[n,k], groups of row_width (a
 *                   multiple of 32), the last one shorter                   s: [groups, y.rows] */
struct nd_int8_product {
    nd_view y;
    const int8_t *left, *right;
    int64_t k;
    const float *a, *s;
    int64_t groups, row_width;
    bool add; /* not with groups */
};
nd_status nd_cuda_int8_product(nd_backend *b, const nd_int8_product *product);

/* The product with instructions that every device has (mma.sync); the reference for
 * nd_cuda_int8_hopper. */
nd_status nd_cuda_int8_mma(nd_cuda *cuda, const nd_int8_product *product);

/* The product with instructions of compute capability 9.0 (wgmma, TMA), with equal bits. It takes
 * groups 0, row_width a multiple of 128 with y in f32, or 0 with y in f32 or bf16, k a multiple of
 * 16, y.cols of 8, and left, right and y aligned to 16. */
bool nd_cuda_int8_hopper_takes(const nd_int8_product *product);
nd_status nd_cuda_int8_hopper(nd_cuda *cuda, const nd_int8_product *product);

/* Whether the instructions of compute capability 9.0 are used. */
enum nd_hopper_state { ND_HOPPER_UNKNOWN, ND_HOPPER_EXACT, ND_HOPPER_REFUSED };
struct nd_cuda_hopper {
    nd_hopper_state state;
    void *encode_map; /* the driver's function */
};
nd_cuda_hopper *nd_cuda_hopper_of(nd_cuda *cuda);

/* The product with one scale (groups 0), by nd_cuda_int8_product or by cuBLASLt and a scaling pass,
 * whichever was faster when a shape of this kind was first used; the bits are equal. `sums`:
 * nd_cuda_int8_scratch bytes of the scratch. */
nd_status nd_cuda_int8_scaled(nd_backend *b, const nd_int8_product *product, void *sums);
size_t nd_cuda_int8_scratch(const nd_cuda *cuda, int64_t rows, int64_t cols);
