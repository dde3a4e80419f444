/* The device of the conformance suites: GPU 0. */
#include "changed_codes.h"
#include "cuda_backend.h"

#include <stdlib.h>
#include <string.h>

nd_status nd_conformance_device(nd_backend **backend);
nd_status nd_conformance_cudnn_device(nd_backend **backend);
const nd_code_kernels *nd_conformance_code_kernels(void);

const nd_code_kernels *nd_conformance_code_kernels(void)
{
    return &nd_cuda_code_kernels;
}

static void forget(nd_backend *b)
{
    free(b);
}

/* Opening a device with its libraries takes longer than most tests, and cuDNN's plans a second
 * each: one backend for the whole program. What is handed out shares it, and its owner's destroy
 * leaves it alone. */
static nd_status share(const nd_cuda_options *options, nd_backend **shared, nd_backend **backend)
{
    if (!*shared)
        ND_TRY(nd_cuda_backend_create(options, shared));
    *backend = malloc(sizeof **backend);
    if (!*backend)
        return ND_FAIL(ND_ENOMEM, "no memory for a backend");
    **backend = **shared;
    (*backend)->ops.destroy = forget;
    return ND_OK;
}

nd_status nd_conformance_device(nd_backend **backend)
{
    /* In turn: the faster int8 product, the library's, the project's own, that of every device. The
     * bits are the same. */
    static nd_backend *shared[4];
    static int made;
    const char *without = getenv("ND_CUDA_INT8");
    int turn = made++ % 4;
    if (without && strcmp(without, "mma") == 0 && turn != ND_CUDA_INT8_LIBRARY)
        turn = ND_CUDA_INT8_MMA;
    const nd_cuda_options options = {.int8 = (nd_cuda_int8)turn,
                                     .attention = ND_CUDA_ATTENTION_BUILTIN};
    return share(&options, &shared[turn], backend);
}

nd_status nd_conformance_cudnn_device(nd_backend **backend)
{
    static nd_backend *shared;
    const nd_cuda_options options = {.attention = ND_CUDA_ATTENTION_CUDNN};
    return share(&options, &shared, backend);
}
