#include "context.cuh"

#include "library.h"

#include "nccl_bootstrap.h"
#include "nccl_comm.h"

extern "C" {
#include "dist/tree_reduction.h"
}

#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static_assert(sizeof(ncclUniqueId) == ND_NCCL_ID_BYTES, "an id is broadcast as bytes");

namespace
{

/* Received parts are added from here; so much device memory an exchange may take. */
const int64_t PART_FLOATS = (int64_t)4 << 20;
/* How long ranks may need to open the communicator, seconds. */
const double JOIN_SECONDS = 120.0;

struct nccl_functions {
    decltype(&ncclGetUniqueId) get_id;
    decltype(&ncclCommInitRankConfig) init;
    decltype(&ncclCommGetAsyncError) async_error;
    decltype(&ncclCommAbort) abort;
    decltype(&ncclCommFinalize) finalize;
    decltype(&ncclCommDestroy) destroy;
    decltype(&ncclGetErrorString) error_string;
    decltype(&ncclReduce) reduce;
    decltype(&ncclBroadcast) broadcast;
    decltype(&ncclSend) send;
    decltype(&ncclRecv) receive;
};

struct nccl_context {
    nccl_functions nccl;
    ncclComm_t comm;
    nd_comm_ops base; /* the MPI comm's */
    void *base_context;
    nd_backend *backend;
    cudaStream_t stream;
    cudaEvent_t ready, done; /* compute -> exchange, exchange -> compute */
    float *part;             /* [PART_FLOATS] */
    bool failed;
    nd_comm *host;
};

/* Where a comm's NCCL stands: there is one run in a process, so one comm that has it. */
nccl_context *attached;

double now()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Whoever waits is whoever exchanges. */
void count_time(nd_comm *comm, double start)
{
    const double seconds = now() - start;
    comm->wait_seconds += seconds;
    comm->busy_seconds += seconds;
}

nd_cuda *cuda_of(const nccl_context *c)
{
    return nd_cuda_of(c->backend);
}

nd_status give_up(nccl_context *c, const char *what, ncclResult_t code)
{
    if (c->comm && !c->failed)
        c->nccl.abort(c->comm);
    c->failed = true;
    c->comm = NULL;
    return ND_FAIL(ND_EPEER, "rank %d of %d: %s failed: %s", c->host->rank, c->host->size, what,
                   c->nccl.error_string(code));
}

/* A non-blocking communicator answers "in progress"; waits until it is done, with errors polled. */
nd_status settle(nccl_context *c, ncclResult_t code, const char *what, double seconds)
{
    const double deadline = now() + seconds;
    while (code == ncclInProgress) {
        if (c->nccl.async_error(c->comm, &code) != ncclSuccess)
            return give_up(c, what, ncclSystemError);
        if (code == ncclInProgress && now() > deadline)
            return give_up(c, what, ncclInProgress);
        if (code == ncclInProgress) {
            const struct timespec nap = {0, 200000};
            nanosleep(&nap, NULL);
        }
    }
    return code == ncclSuccess ? ND_OK : give_up(c, what, code);
}

#define NCCL_TRY(c, expression, what) ND_TRY(settle((c), (expression), (what), JOIN_SECONDS))

/* Waits for the exchange stream; a peer that is gone shows as an error of the communicator. */
nd_status wait_for_exchange(nccl_context *c, const char *what)
{
    for (;;) {
        const cudaError_t query = cudaStreamQuery(c->stream);
        if (query == cudaSuccess)
            return ND_OK;
        if (query != cudaErrorNotReady)
            ND_CUDA_TRY(query);
        ncclResult_t code = ncclSuccess;
        c->nccl.async_error(c->comm, &code);
        if (code != ncclSuccess && code != ncclInProgress)
            return give_up(c, what, code);
        const struct timespec nap = {0, 20000};
        nanosleep(&nap, NULL);
    }
}

/* What the compute stream has enqueued comes before the exchange. */
nd_status begin(nccl_context *c)
{
    if (c->failed)
        return ND_FAIL(ND_EPEER, "rank %d of %d: NCCL failed before", c->host->rank, c->host->size);
    ND_CUDA_TRY(cudaEventRecord(c->ready, cuda_of(c)->stream));
    ND_CUDA_TRY(cudaStreamWaitEvent(c->stream, c->ready, 0));
    return ND_OK;
}

nd_status end(nccl_context *c, const char *what)
{
    ND_CUDA_TRY(cudaEventRecord(c->done, c->stream));
    ND_CUDA_TRY(cudaStreamWaitEvent(cuda_of(c)->stream, c->done, 0));
    return wait_for_exchange(c, what);
}

__global__ void add_part_kernel(float *into, const float *from, int64_t count)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        into[i] += from[i];
}

nd_status send_slot(void *context, const nd_comm_piece *piece, int slot, int to)
{
    nccl_context *c = static_cast<nccl_context *>(context);
    const float *values = piece->slots[slot];
    c->host->bytes_sent += (uint64_t)piece->count * sizeof *values;
    for (int64_t first = 0; first < piece->count; first += PART_FLOATS)
        NCCL_TRY(c,
                 c->nccl.send(values + first, (size_t)nd_min(piece->count - first, PART_FLOATS),
                              ncclFloat, to, c->comm, c->stream),
                 "sending gradients");
    return ND_OK;
}

nd_status receive_and_add(void *context, const nd_comm_piece *piece, int slot, int from)
{
    nccl_context *c = static_cast<nccl_context *>(context);
    float *values = piece->slots[slot];
    for (int64_t first = 0; first < piece->count; first += PART_FLOATS) {
        const int64_t length = nd_min(piece->count - first, PART_FLOATS);
        NCCL_TRY(c, c->nccl.receive(c->part, (size_t)length, ncclFloat, from, c->comm, c->stream),
                 "receiving gradients");
        ND_CUDA_TRY(ND_LAUNCH(add_part_kernel, dim3(nd_blocks_for(length, 256, 4096)), dim3(256), 0,
                              c->stream, values + first, c->part, length));
    }
    return ND_OK;
}

/* Two slots of this rank, on the exchange stream so that the order holds. */
nd_status add_slots(void *context, float *into, const float *from, int64_t count)
{
    nccl_context *c = static_cast<nccl_context *>(context);
    ND_CUDA_TRY(ND_LAUNCH(add_part_kernel, dim3(nd_blocks_for(count, 256, 4096)), dim3(256), 0,
                          c->stream, into, from, count));
    return ND_OK;
}

nd_status reduce_pieces(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    nccl_context *c = attached;
    const nd_tree_transfer transfer = {c, send_slot, receive_and_add, add_slots};
    const bool flat = split.leaves == comm->size;
    for (int64_t i = 0; i < count; i++) {
        nd_comm_piece *p = &pieces[i];
        if (!flat) {
            ND_TRY(nd_tree_reduce(comm, &transfer, split, p));
            continue;
        }
        float *values = p->slots[0];
        if (comm->rank != p->owner)
            comm->bytes_sent += (uint64_t)p->count * sizeof *values;
        NCCL_TRY(c,
                 c->nccl.reduce(values, values, (size_t)p->count, ncclFloat, ncclSum, p->owner,
                                c->comm, c->stream),
                 "reducing gradients");
        p->result = comm->rank == p->owner ? values : NULL;
    }
    return ND_OK;
}

bool all_exact(const nd_comm_piece *pieces, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (pieces[i].format != ND_GRADIENT_WIRE_FP32)
            return false;
    return true;
}

/* Formats that round are made and read on the host. */
nd_status reduce_to_owners(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    nccl_context *c = attached;
    const double start = now();
    if (!all_exact(pieces, count))
        return c->base.reduce_to_owners(comm, split, pieces, count);
    ND_TRY(begin(c));
    nd_status status = reduce_pieces(comm, split, pieces, count);
    if (status == ND_OK)
        status = end(c, "reducing gradients");
    count_time(comm, start);
    return status;
}

nd_status broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    nccl_context *c = attached;
    const double start = now();
    if (bytes == 0)
        return ND_OK;
    ND_TRY(begin(c));
    if (comm->rank == root)
        comm->bytes_sent += bytes * (size_t)(comm->size - 1);
    NCCL_TRY(c, c->nccl.broadcast(data, data, bytes, ncclChar, root, c->comm, c->stream),
             "sending weights");
    const nd_status status = end(c, "sending weights");
    count_time(comm, start);
    return status;
}

/* A rank that fails must not leave others in a collective. */
void abort_job(nd_comm *comm, int exit_code)
{
    nccl_context *c = attached;
    if (c && c->comm && !c->failed)
        c->nccl.abort(c->comm);
    if (c) {
        c->comm = NULL;
        c->failed = true;
        c->base.abort(comm, exit_code);
    }
}

nd_status open_library(void *context)
{
    nccl_context *c = static_cast<nccl_context *>(context);
    nccl_functions *n = &c->nccl;
    void *library;
    ND_TRY(nd_library_open("libnccl.so.2", "training on several GPUs", &library));
    const struct {
        const char *name;
        void **function;
    } wanted[] = {
        {"ncclGetUniqueId", reinterpret_cast<void **>(&n->get_id)},
        {"ncclCommInitRankConfig", reinterpret_cast<void **>(&n->init)},
        {"ncclCommGetAsyncError", reinterpret_cast<void **>(&n->async_error)},
        {"ncclCommAbort", reinterpret_cast<void **>(&n->abort)},
        {"ncclCommFinalize", reinterpret_cast<void **>(&n->finalize)},
        {"ncclCommDestroy", reinterpret_cast<void **>(&n->destroy)},
        {"ncclGetErrorString", reinterpret_cast<void **>(&n->error_string)},
        {"ncclReduce", reinterpret_cast<void **>(&n->reduce)},
        {"ncclBroadcast", reinterpret_cast<void **>(&n->broadcast)},
        {"ncclSend", reinterpret_cast<void **>(&n->send)},
        {"ncclRecv", reinterpret_cast<void **>(&n->receive)},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        ND_TRY(nd_library_function(library, wanted[i].name, wanted[i].function));
    ND_CUDA_TRY(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    ND_CUDA_TRY(cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming));
    ND_CUDA_TRY(cudaEventCreateWithFlags(&c->done, cudaEventDisableTiming));
    ND_CUDA_TRY(
        cudaMalloc(reinterpret_cast<void **>(&c->part), (size_t)PART_FLOATS * sizeof *c->part));
    return ND_OK;
}

nd_status make_id(void *context, void *id)
{
    nccl_context *c = static_cast<nccl_context *>(context);
    const ncclResult_t code = c->nccl.get_id(static_cast<ncclUniqueId *>(id));
    return code == ncclSuccess ? ND_OK : give_up(c, "making NCCL's id", code);
}

nd_status join(void *context, const void *id, int size, int rank)
{
    nccl_context *c = static_cast<nccl_context *>(context);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;
    config.blocking = 0;
    memcpy(&unique, id, sizeof unique);
    return settle(c, c->nccl.init(&c->comm, size, unique, rank, &config),
                  "joining the NCCL communicator", JOIN_SECONDS);
}

void free_context(nccl_context *c)
{
    if (c->part)
        cudaFree(c->part);
    if (c->ready)
        cudaEventDestroy(c->ready);
    if (c->done)
        cudaEventDestroy(c->done);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
}

} // namespace

extern "C" nd_status nd_nccl_attach(nd_comm *comm, nd_backend *backend)
{
    nccl_context *c = static_cast<nccl_context *>(calloc(1, sizeof *c));
    if (!c)
        return ND_FAIL(ND_ENOMEM, "no memory for NCCL's context");
    c->backend = backend;
    c->host = comm;
    c->base = comm->ops;
    const nd_nccl_steps steps = {open_library, make_id, join, c};
    const nd_status status = nd_nccl_bootstrap(comm, &steps);
    if (status != ND_OK) {
        if (c->comm && !c->failed)
            c->nccl.abort(c->comm);
        free_context(c);
        return status;
    }
    attached = c;
    comm->ops.name = "mpi, nccl";
    comm->ops.reduce_to_owners = reduce_to_owners;
    comm->ops.broadcast_device = broadcast_device;
    comm->ops.begin_reduction = reduce_to_owners;
    comm->ops.begin_broadcast = broadcast_device;
    comm->ops.abort = abort_job;
    return ND_OK;
}

extern "C" void nd_nccl_detach(nd_comm *comm)
{
    nccl_context *c = attached;
    if (!c || c->host != comm)
        return;
    attached = NULL;
    comm->ops = c->base;
    if (c->comm && !c->failed) {
        const ncclResult_t code = c->nccl.finalize(c->comm);
        /* Peers that are gone are no reason to hang: after the time is over the rest is aborted. */
        if (settle(c, code, "closing the NCCL communicator", 30.0) == ND_OK)
            c->nccl.destroy(c->comm);
    }
    free_context(c);
}
