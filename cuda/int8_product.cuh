/* The project's own int8 product, scaled as it is stored. */
#pragma once

#include "context.cuh"

/* y[r,n] (+)= the product of left [y.rows, k] and rightᵀ, right [y.cols, k], scaled in one of three ways:
 *   groups 0        s a[r]/127 sum_k left[r,k] right[n,k]
 *   groups > 0      a[r]/127 sum_g s[n,g] sum_{k in g} left[r,k] right[n,k]     s: [y.cols, groups]
 *   row_width > 0   sum_g s[g,r]/127 sum_{k in g} left[r,k] right[n,k], groups of row_width (a multiple
 *                   of 32), the last one short                                  s: [groups, y.rows] */
struct nd_int8_product {
    nd_view y;
    const int8_t *left, *right;
    int64_t k;
    const float *a, *s;
    int64_t groups, row_width;
    bool add; /* not with groups */
};
nd_status nd_cuda_int8_product(nd_cuda *cuda, const nd_int8_product *product);

/* The same with one scale (groups 0), by this kernel or by cuBLASLt and a pass that scales, whichever was
 * faster when a shape of this kind was first met: both give the same bits. `sums`: nd_cuda_int8_room
 * bytes of the scratch. */
nd_status nd_cuda_int8_scaled(nd_backend *b, const nd_int8_product *product, void *sums);
size_t nd_cuda_int8_room(const nd_cuda *cuda, int64_t rows, int64_t cols);
