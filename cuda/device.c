#include "dist/device.h"

#include "cuda_backend.h"
#include "device_choice.h"
#if ND_HAVE_NCCL
#include "nccl_comm.h"
#endif

#include <string.h>

nd_status nd_device_backend_create(nd_target target, const nd_comm *comm, nd_backend **backend)
{
    char reason[256] = "";
    nd_cuda_options options = {.own_int8 = false};
    *backend = NULL;
    if (target == ND_TARGET_CPU)
        return ND_OK;
    ND_TRY(nd_choose_device(target == ND_TARGET_CUDA, nd_cuda_device_count(reason, sizeof reason),
                            comm->local_rank, comm->local_size, reason, &options.device));
    return options.device < 0 ? ND_OK : nd_cuda_backend_create(&options, backend);
}

bool nd_device_owns(const nd_backend *backend)
{
    return strcmp(backend->ops.name, "cuda") == 0;
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
