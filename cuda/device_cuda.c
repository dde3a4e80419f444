#include "dist/device.h"

#include "changed_codes.h"
#include "cuda_backend.h"
#include "device_choice.h"
#if ND_HAVE_NCCL
#include "nccl_comm.h"
#endif

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* After a kernel fault the process has no device, so the environment says what to avoid. */
static nd_cuda_int8 int8_choice(const char *name)
{
    return name && strcmp(name, "mma") == 0 ? ND_CUDA_INT8_MMA : ND_CUDA_INT8_FASTEST;
}

nd_status nd_device_backend_create(nd_device_choice choice, const nd_comm *comm,
                                   nd_backend **backend)
{
    char reason[256] = "";
    nd_cuda_options options = {.int8 = int8_choice(getenv("ND_CUDA_INT8")),
                               .attention = (nd_cuda_attention)choice.attention};
    *backend = NULL;
    if (choice.target == ND_TARGET_CPU)
        return ND_OK;
    ND_TRY(nd_choose_device(choice.target == ND_TARGET_CUDA,
                            nd_cuda_device_count(reason, sizeof reason),
                            getenv("CUDA_VISIBLE_DEVICES"), comm->local_rank, comm->local_size,
                            reason, &options.device));
    if (options.device >= 0)
        return nd_cuda_backend_create(&options, backend);
    return ND_CHECK(choice.attention != ND_ATTENTION_CUDNN, ND_ECONFIG,
                    "[hardware] attention_backend = cudnn needs a GPU, and there is none: %s; use "
                    "attention_backend = auto",
                    reason);
}

bool nd_device_owns(const nd_backend *backend)
{
    return strcmp(backend->ops.name, "cuda") == 0;
}

size_t nd_device_memory_left(const nd_backend *backend)
{
    return nd_device_owns(backend) ? nd_cuda_memory_left() : SIZE_MAX;
}

const nd_code_kernels *nd_device_code_kernels(const nd_backend *backend)
{
    return nd_device_owns(backend) ? &nd_cuda_code_kernels : NULL;
}

nd_status nd_device_attach(nd_comm *comm)
{
#if ND_HAVE_NCCL
    if (comm->size > 1 && comm->device && nd_device_owns(comm->device))
        return nd_nccl_attach(comm, comm->device);
#else
    (void)comm;
#endif
    return ND_OK;
}

void nd_device_detach(nd_comm *comm)
{
#if ND_HAVE_NCCL
    nd_nccl_detach(comm);
#else
    (void)comm;
#endif
}
