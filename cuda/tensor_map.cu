/* Matrix descriptors for the tensor memory accelerator, encoded by a driver function that is looked
 * up at run time, so that the program starts without a driver. */
#include "hopper.cuh"
#include "int8_product.cuh"

typedef decltype(&cuTensorMapEncodeTiled) encode_function;

static nd_status find_encode(nd_cuda_hopper *hopper)
{
    cudaDriverEntryPointQueryResult found;
    if (hopper->encode_map)
        return ND_OK;
#if CUDART_VERSION >= 12050
    ND_CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &hopper->encode_map,
                                                 12000, cudaEnableDefault, &found));
#else
    ND_CUDA_TRY(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &hopper->encode_map,
                                        cudaEnableDefault, &found));
#endif
    return ND_CHECK(found == cudaDriverEntryPointSuccess && hopper->encode_map, ND_EINTERNAL,
                    "cuda: the driver has no cuTensorMapEncodeTiled (CUDA 12.0)");
}

nd_status nd_cuda_tensor_map(nd_cuda *cuda, nd_tensor_map *map, const void *x, int64_t rows,
                             int64_t width, int box)
{
    nd_cuda_hopper *hopper = nd_cuda_hopper_of(cuda);
    ND_TRY(find_encode(hopper));
    const encode_function encode = reinterpret_cast<encode_function>(hopper->encode_map);
    const cuuint64_t sizes[2] = {(cuuint64_t)width, (cuuint64_t)rows};
    const cuuint64_t strides[1] = {(cuuint64_t)width};
    const cuuint32_t box_sizes[2] = {ND_SWIZZLED_BYTES, (cuuint32_t)box}, steps[2] = {1, 1};
    const CUresult code =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void *>(x), sizes, strides,
               box_sizes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return ND_CHECK(code == CUDA_SUCCESS, ND_EINTERNAL,
                    "cuda: cuTensorMapEncodeTiled failed with %d for [%lld, %lld] bytes", (int)code,
                    (long long)rows, (long long)width);
}
