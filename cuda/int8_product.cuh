/* The project's own int8 product, scaled as it is stored. */
#ifndef ND_CUDA_INT8_PRODUCT_CUH
#define ND_CUDA_INT8_PRODUCT_CUH

#include "context.cuh"

/* y[t,o] = sum_g s[o,g] (sum_{i in g} q[t,i] c[o,i]) a[t]/127; groups 0: one scale for all. */
nd_status nd_cuda_int8_product(nd_cuda *cuda, nd_view y, nd_cview q, const float *a, nd_cview c,
                               const float *s, int64_t groups);

#endif
