/* Replaces attention_cudnn.cu in builds without cuDNN. */
#include "attention.cuh"

#include "cuda_backend.h"

nd_status nd_cuda_library_attention_create(nd_cuda *cuda)
{
    return cuda->attention == ND_CUDA_ATTENTION_CUDNN
               ? ND_FAIL(ND_ECONFIG,
                         "[hardware] attention_backend = cudnn, but this build has no cuDNN")
               : ND_OK;
}

void nd_cuda_library_attention_destroy(nd_cuda *) {}

nd_status nd_cuda_attention_library(nd_backend *, nd_view, nd_view, nd_cview, nd_cview, nd_cview,
                                    const nd_attention_shape *, bool *done)
{
    *done = false;
    return ND_OK;
}

nd_status nd_cuda_attention_backward_library(nd_backend *, const nd_attention_gradients *,
                                             const nd_attention_shape *, bool *done)
{
    *done = false;
    return ND_OK;
}
