/* The device of the conformance suites: the kernels of cuda/ on the host. */
#include "core/conformance.h"
#include "cuda/emulated_backend.h"
#include "dist/weights/code_kernels.h"

extern const nd_code_kernels nd_emulated_code_kernels;

nd_status nd_conformance_cudnn_device(nd_backend **backend);
const nd_code_kernels *nd_conformance_code_kernels(void);

const nd_code_kernels *nd_conformance_code_kernels(void)
{
    return &nd_emulated_code_kernels;
}

nd_status nd_conformance_device(nd_backend **backend)
{
    /* In turn: the faster int8 product, the library's, the project's own, that of every device. The
     * bits are the same. */
    static int made;
    const nd_cuda_options options = {.int8 = (nd_cuda_int8)(made++ % 4),
                                     .attention = ND_CUDA_ATTENTION_BUILTIN};
    return nd_emulated_backend_create_checked(&options, backend);
}

nd_status nd_conformance_cudnn_device(nd_backend **backend)
{
    const nd_cuda_options options = {.attention = ND_CUDA_ATTENTION_CUDNN};
    return nd_emulated_backend_create_checked(&options, backend);
}
