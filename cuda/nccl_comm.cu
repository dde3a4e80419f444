#include "nccl_context.cuh"

#include "nccl_comm.h"
#include "nccl_weights.h"

extern "C" {
#include "core/base/clock.h"
}

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace
{

/* So long a call is polled without sleeping. */
const double POLL_SECONDS = 1e-3;

/* Where a comm's NCCL stands: there is one run in a process, so one comm that has it. */
nd_nccl_context *attached;

nd_cuda *cuda_of(const nd_nccl_context *c)
{
    return nd_cuda_of(c->backend);
}

nd_status give_up(nd_nccl_context *c, const char *what, ncclResult_t code)
{
    return nd_nccl_exchanges_fail(&c->exchanges, what, c->nccl.error_string(code));
}

} // namespace

nd_status nd_nccl_settle(nd_nccl_context *c, nd_nccl_queue queue, ncclResult_t code,
                         const char *what, double seconds)
{
    const double start = nd_seconds();
    while (code == ncclInProgress) {
        if (c->nccl.async_error(c->comms[queue], &code) != ncclSuccess)
            return give_up(c, what, ncclSystemError);
        const double waited = nd_seconds() - start;
        if (code == ncclInProgress && waited > seconds)
            return give_up(c, what, ncclInProgress);
        const struct timespec pause = {0, 200000};
        if (code == ncclInProgress)
            waited > POLL_SECONDS ? nanosleep(&pause, NULL) : sched_yield();
    }
    return code == ncclSuccess ? ND_OK : give_up(c, what, code);
}

namespace
{

nd_status reached(void *context, int slot, bool end, bool *passed)
{
    const nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    const cudaError_t query = cudaEventQuery(end ? c->ends[slot] : c->starts[slot]);
    *passed = query == cudaSuccess;
    if (query == cudaSuccess)
        return ND_OK;
    cudaGetLastError(); /* "not ready" is remembered too, and a launch would report it */
    if (query != cudaErrorNotReady)
        ND_CUDA_TRY(query);
    return ND_OK;
}

double seconds_of(void *context, int slot)
{
    const nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    float milliseconds = 0.0f;
    if (cudaEventElapsedTime(&milliseconds, c->starts[slot], c->ends[slot]) == cudaSuccess)
        return milliseconds * 1e-3;
    cudaGetLastError(); /* or a launch would report it */
    return 0.0;
}

const char *trouble(void *context)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    for (int i = 0; i < ND_NCCL_COMMUNICATORS && c->comms[i]; i++) {
        ncclResult_t code = ncclSuccess;
        const ncclResult_t asked = c->nccl.async_error(c->comms[i], &code);
        if (asked != ncclSuccess)
            return c->nccl.error_string(asked);
        if (code != ncclSuccess && code != ncclInProgress)
            return c->nccl.error_string(code);
    }
    return NULL;
}

void abort_communicators(void *context)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(context);
    for (int i = ND_NCCL_COMMUNICATORS - 1; i >= 0; i--) {
        if (c->comms[i])
            c->nccl.abort(c->comms[i]);
        c->comms[i] = NULL;
    }
}

double clock_of(void *)
{
    return nd_seconds();
}

void nap(void *)
{
    const struct timespec pause = {0, 20000};
    nanosleep(&pause, NULL);
}

/* Before the host waits for the stream of computation (context.cuh). */
nd_status before_wait(void *context, bool all)
{
    nd_nccl_exchanges *e = &static_cast<nd_nccl_context *>(context)->exchanges;
    return all ? nd_nccl_exchanges_wait_all(e) : nd_nccl_exchanges_wait(e);
}

/* What the compute stream has enqueued so far comes before this exchange. */
nd_status begin(nd_nccl_context *c, const char *what, const char *first, int64_t more, int *slot)
{
    ND_TRY(nd_nccl_exchanges_begin(&c->exchanges, what, first, more, slot));
    ND_CUDA_TRY(cudaEventRecord(c->ready, cuda_of(c)->stream));
    for (int i = 0; i < ND_NCCL_COMMUNICATORS; i++)
        ND_CUDA_TRY(cudaStreamWaitEvent(c->streams[i], c->ready, 0));
    ND_CUDA_TRY(cudaEventRecord(c->starts[*slot], c->streams[ND_NCCL_ALL]));
    return ND_OK;
}

nd_status end(nd_nccl_context *c, int slot)
{
    ND_CUDA_TRY(cudaEventRecord(c->ends[slot], c->streams[ND_NCCL_ALL]));
    return ND_OK;
}

/* What the compute stream is given from here on comes after everything begun. */
nd_status fence(nd_nccl_context *c)
{
    const nd_nccl_exchanges *e = &c->exchanges;
    if (e->begun > e->fenced) {
        const int last = (int)((e->begun - 1) % ND_NCCL_EXCHANGES);
        ND_CUDA_TRY(cudaStreamWaitEvent(cuda_of(c)->stream, c->ends[last], 0));
    }
    return nd_nccl_exchanges_fence(&c->exchanges);
}

nd_status enqueue_reduction(nd_nccl_context *c, nd_comm_split split, nd_comm_piece *pieces,
                            int64_t count)
{
    int slot;
    ND_TRY(begin(c, "the reduction of", count > 0 ? pieces[0].name : NULL, count - 1, &slot));
    ND_TRY(nd_nccl_reduce_pieces(c, split, pieces, count));
    return end(c, slot);
}

nd_status begin_reduction(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    nd_nccl_context *c = attached;
    const double start = nd_seconds(), before = comm->wait_seconds;
    const nd_status status = enqueue_reduction(c, split, pieces, count);
    comm->wait_seconds = before + nd_seconds() - start;
    return status;
}

nd_status reduce_to_owners(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    ND_TRY(begin_reduction(comm, split, pieces, count));
    return fence(attached);
}

/* From a group's member `root` to each other one. */
nd_status send_to_group(nd_nccl_context *c, void *data, size_t bytes, int root)
{
    const nd_comm *comm = c->host;
    const int first = nd_comm_group_first(comm);
    ND_NCCL_TRY(c, ND_NCCL_ALL, c->nccl.group_start(), "sending weights");
    if (nd_comm_member(comm) != root)
        ND_NCCL_TRY(c, ND_NCCL_ALL,
                    c->nccl.receive(data, bytes, ncclChar, first + root, c->comms[ND_NCCL_ALL],
                                    c->streams[ND_NCCL_ALL]),
                    "receiving weights");
    for (int m = 0; nd_comm_member(comm) == root && m < nd_comm_group(comm); m++)
        if (m != root)
            ND_NCCL_TRY(c, ND_NCCL_ALL,
                        c->nccl.send(data, bytes, ncclChar, first + m, c->comms[ND_NCCL_ALL],
                                     c->streams[ND_NCCL_ALL]),
                        "sending weights");
    ND_NCCL_TRY(c, ND_NCCL_ALL, c->nccl.group_end(), "sending weights");
    return ND_OK;
}

nd_status enqueue_broadcast(nd_nccl_context *c, void *data, size_t bytes, int root)
{
    int slot;
    ND_TRY(begin(c, "the broadcast of weights", NULL, 0, &slot));
    if (nd_comm_group(c->host) < c->host->size) {
        ND_TRY(send_to_group(c, data, bytes, root));
        return end(c, slot);
    }
    ND_NCCL_TRY(c, ND_NCCL_ALL,
                c->nccl.broadcast(data, data, bytes, ncclChar, root, c->comms[ND_NCCL_ALL],
                                  c->streams[ND_NCCL_ALL]),
                "sending weights");
    return end(c, slot);
}

nd_status begin_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    const double start = nd_seconds(), before = comm->wait_seconds;
    if (bytes == 0 || nd_comm_group(comm) == 1)
        return ND_OK;
    if (nd_comm_member(comm) == root)
        comm->bytes_sent += bytes * (size_t)(nd_comm_group(comm) - 1);
    const nd_status status = enqueue_broadcast(attached, data, bytes, root);
    comm->wait_seconds = before + nd_seconds() - start;
    return status;
}

nd_status broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    ND_TRY(begin_broadcast(comm, data, bytes, root));
    return fence(attached);
}

/* All owners' in one launch. */
nd_status broadcast_in_one(nd_nccl_context *c, void *const *buffers, const size_t *bytes)
{
    nd_comm *comm = c->host;
    ND_NCCL_TRY(c, ND_NCCL_ALL, c->nccl.group_start(), "sending weights");
    for (int r = 0; r < comm->size; r++)
        if (bytes[r] > 0)
            ND_NCCL_TRY(c, ND_NCCL_ALL,
                        c->nccl.broadcast(buffers[r], buffers[r], bytes[r], ncclChar, r,
                                          c->comms[ND_NCCL_ALL], c->streams[ND_NCCL_ALL]),
                        "sending weights");
    ND_NCCL_TRY(c, ND_NCCL_ALL, c->nccl.group_end(), "sending weights");
    comm->bytes_sent += bytes[comm->rank] * (size_t)(comm->size - 1);
    return ND_OK;
}

nd_status enqueue_each(nd_nccl_context *c, void *const *buffers, const size_t *bytes)
{
    int slot;
    ND_TRY(begin(c, "the broadcasts of weights", NULL, 0, &slot));
    if (nd_comm_group(c->host) < c->host->size)
        ND_TRY(nd_nccl_weights_send(&c->parts.link, c->host, buffers, bytes));
    else
        ND_TRY(broadcast_in_one(c, buffers, bytes));
    return end(c, slot);
}

nd_status begin_broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    const double start = nd_seconds(), before = comm->wait_seconds;
    if (nd_comm_group(comm) == 1)
        return ND_OK;
    const nd_status status = enqueue_each(attached, buffers, bytes);
    comm->wait_seconds = before + nd_seconds() - start;
    return status;
}

nd_status broadcast_each_device(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    ND_TRY(begin_broadcast_each(comm, buffers, bytes));
    return fence(attached);
}

nd_status enqueue_exchange(nd_nccl_context *c, const nd_comm_exchange *x)
{
    int slot;
    ND_TRY(begin(c, "a message between GPUs", NULL, 0, &slot));
    ND_TRY(nd_nccl_link_exchange(&c->parts.link, x));
    return end(c, slot);
}

nd_status begin_exchange_device(nd_comm *comm, const nd_comm_exchange *x)
{
    const double start = nd_seconds(), before = comm->wait_seconds;
    comm->bytes_sent += x->out_bytes;
    const nd_status status = enqueue_exchange(attached, x);
    comm->wait_seconds = before + nd_seconds() - start;
    return status;
}

nd_status finish(nd_comm *comm)
{
    ND_TRY(attached->base.finish(comm)); /* exchanges in host memory */
    return fence(attached);
}

/* A rank that fails must not leave others in a collective. */
void abort_job(nd_comm *comm, int exit_code)
{
    nd_nccl_context *c = attached;
    if (!c)
        return;
    abort_communicators(c);
    c->exchanges.failed = true;
    c->base.abort(comm, exit_code);
}

nd_status make_parts(nd_nccl_context *c)
{
    c->parts.comm = c->host;
    c->parts.link = nd_nccl_link_of(c);
    c->parts.part_bytes = ND_NCCL_PART_BYTES;
    c->parts.window_bytes = ND_NCCL_WINDOW_BYTES;
    ND_CUDA_TRY(cudaMalloc(reinterpret_cast<void **>(&c->parts.scratch),
                           nd_nccl_parts_scratch(c->parts.link.by_host, c->parts.window_bytes)));
    return ND_OK;
}

void free_context(nd_nccl_context *c)
{
    cudaFree(c->parts.scratch);
    nd_nccl_parts_destroy(&c->parts);
    if (c->ready)
        cudaEventDestroy(c->ready);
    for (int slot = 0; slot < ND_NCCL_EXCHANGES; slot++) {
        if (c->starts[slot])
            cudaEventDestroy(c->starts[slot]);
        if (c->ends[slot])
            cudaEventDestroy(c->ends[slot]);
    }
    for (int i = 0; i < ND_NCCL_QUEUES; i++) {
        if (c->reached[i])
            cudaEventDestroy(c->reached[i]);
        if (c->streams[i])
            cudaStreamDestroy(c->streams[i]);
    }
    free(c);
}

} // namespace

extern "C" nd_status nd_nccl_attach(nd_comm *comm, nd_backend *backend)
{
    nd_nccl_context *c = static_cast<nd_nccl_context *>(calloc(1, sizeof *c));
    ND_FAIL_IF(!c, ND_ENOMEM, "no memory for NCCL's context");
    c->backend = backend;
    c->host = comm;
    c->base = comm->ops;
    c->exchanges.comm = comm;
    c->exchanges.device = {reached, seconds_of, trouble, abort_communicators, clock_of, nap, c};
    nd_status status = nd_nccl_join(c); /* on all ranks or on none */
    if (status == ND_OK)
        status = nd_comm_agree(comm, make_parts(c));
    if (status != ND_OK) {
        abort_communicators(c);
        free_context(c);
        return status;
    }
    attached = c;
    cuda_of(c)->before_wait = before_wait;
    cuda_of(c)->before_wait_context = c;
    comm->ops.name = c->parts.link.by_host ? "mpi, nccl and nccl by host" : "mpi, nccl";
    comm->ops.reduce_to_owners = reduce_to_owners;
    comm->ops.broadcast_device = broadcast_device;
    comm->ops.broadcast_each_device = broadcast_each_device;
    comm->ops.begin_reduction = begin_reduction;
    comm->ops.begin_broadcast = begin_broadcast;
    comm->ops.begin_broadcast_each = begin_broadcast_each;
    comm->ops.begin_exchange_device = begin_exchange_device;
    comm->ops.finish = finish;
    comm->ops.abort = abort_job;
    comm->streamed = true;
    return ND_OK;
}

/* Whether ranks part in peace: then all have begun the same exchanges, and each of them ends. */
static bool all_is_well(nd_nccl_context *c)
{
    const nd_status error = nd_error_get()->status;
    if (!c->comms[ND_NCCL_ALL] || (error != ND_OK && error != ND_ESTOPPED))
        return false;
    return fence(c) == ND_OK && nd_nccl_exchanges_wait(&c->exchanges) == ND_OK;
}

/* False: not in time. */
static bool close_communicator(nd_nccl_context *c, nd_nccl_queue queue)
{
    const ncclResult_t code = c->nccl.finalize(c->comms[queue]);
    if (nd_nccl_settle(c, queue, code, "closing the NCCL communicator", 30.0) != ND_OK)
        return false;
    c->nccl.destroy(c->comms[queue]);
    c->comms[queue] = NULL;
    return true;
}

extern "C" void nd_nccl_detach(nd_comm *comm)
{
    nd_nccl_context *c = attached;
    if (!c || c->host != comm)
        return;
    /* Peers that are gone are no reason to hang: after the time is over the rest is aborted. */
    bool well = all_is_well(c);
    for (int i = ND_NCCL_COMMUNICATORS - 1; i >= 0 && well; i--)
        well = !c->comms[i] || close_communicator(c, static_cast<nd_nccl_queue>(i));
    abort_communicators(c);
    attached = NULL;
    comm->ops = c->base;
    comm->streamed = false;
    cuda_of(c)->before_wait = NULL;
    free_context(c);
}
