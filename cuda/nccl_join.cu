/* How a rank joins NCCL's communicators, and what it creates on its GPU for them. */
#include "nccl_context.cuh"

#include "library.h"
#include "nccl_bootstrap.h"

#include <stdlib.h>
#include <string.h>

static_assert(sizeof(ncclUniqueId) == ND_NCCL_ID_BYTES, "an id is broadcast as bytes");

namespace
{

/* How long ranks may need to open the communicator, seconds. */
const double JOIN_SECONDS = 120.0;
/* Set to 1, NCCL (2.26 and later) begins the kernels of all communicators in the order of the
 * calls. Without it two communicators at once may wait for each other: each holds a part of the GPU
 * that the other needs. */
const char LAUNCH_ORDER[] = "NCCL_LAUNCH_ORDER_IMPLICIT";
const int LAUNCH_ORDER_VERSION = 22600;

nd_status make_events(nd_nccl_context *c)
{
    ND_CUDA_TRY(cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming));
    for (int slot = 0; slot < ND_NCCL_EXCHANGES; slot++) {
        ND_CUDA_TRY(cudaEventCreate(&c->starts[slot]));
        ND_CUDA_TRY(cudaEventCreate(&c->ends[slot]));
    }
    return ND_OK;
}

nd_status make_streams(nd_nccl_context *c)
{
    for (int i = 0; i < ND_NCCL_QUEUES; i++) {
        ND_CUDA_TRY(cudaStreamCreateWithFlags(&c->streams[i], cudaStreamNonBlocking));
        ND_CUDA_TRY(cudaEventCreateWithFlags(&c->reached[i], cudaEventDisableTiming));
    }
    return ND_OK;
}

nd_status open_library(void *context)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    void *library;
    setenv(LAUNCH_ORDER, "1", 0); /* before NCCL reads it */
    ND_TRY(nd_library_open("libnccl.so.2", "training on several GPUs", &library));
#define FIND(member, function)                                                                     \
    ND_TRY(nd_library_function(library, #function, reinterpret_cast<void **>(&c->nccl.member)));
    NCCL_FUNCTIONS(FIND)
#undef FIND
    ND_TRY(make_streams(c));
    return make_events(c);
}

nd_status name_gpu(void *context, void *gpu)
{
    cudaDeviceProp properties;
    static_assert(sizeof properties.uuid.bytes == ND_NCCL_GPU_BYTES, "a GPU is named by its UUID");
    ND_CUDA_TRY(cudaGetDeviceProperties(
        &properties, nd_cuda_of(static_cast<nd_nccl_context *>(context)->backend)->device));
    memcpy(gpu, properties.uuid.bytes, ND_NCCL_GPU_BYTES);
    return ND_OK;
}

nd_status make_id(void *context, void *id)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    return nd_nccl_settle(c, ND_NCCL_ALL, c->nccl.get_id(static_cast<ncclUniqueId *>(id)),
                          "making NCCL's id", JOIN_SECONDS);
}

nd_status join(void *context, const void *id, int size, int rank)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;
    config.blocking = 0;
    memcpy(&unique, id, sizeof unique);
    return nd_nccl_settle(c, ND_NCCL_ALL,
                          c->nccl.init(&c->comms[ND_NCCL_ALL], size, unique, rank, &config),
                          "joining the NCCL communicator", JOIN_SECONDS);
}

bool keeps_order(void *context)
{
    const nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    const char *set = getenv(LAUNCH_ORDER);
    int version = 0;
    return c->nccl.version(&version) == ncclSuccess && version >= LAUNCH_ORDER_VERSION && set &&
           strcmp(set, "1") == 0;
}

/* The new communicator is known when the old one is no longer busy; splitting may say success
 * before that. */
nd_status join_host(void *context, int host, int local_rank)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    static const char what[] = "joining the NCCL communicator of a host";
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t code =
        c->nccl.split(c->comms[ND_NCCL_ALL], host, local_rank, &c->comms[ND_NCCL_HOST], &config);
    ND_TRY(nd_nccl_settle(c, ND_NCCL_ALL, code == ncclSuccess ? ncclInProgress : code, what,
                          JOIN_SECONDS));
    ND_FAIL_IF(!c->comms[ND_NCCL_HOST], ND_EINTERNAL,
               "rank %d: NCCL created no communicator for host %d", c->host->rank, host);
    return nd_nccl_settle(c, ND_NCCL_HOST, ncclInProgress, what, JOIN_SECONDS);
}

} // namespace

nd_status nd_nccl_join(nd_nccl_context *c)
{
    const nd_nccl_steps steps = {open_library, name_gpu, make_id, join, keeps_order, join_host, c};
    return nd_nccl_bootstrap(c->host, &steps);
}
