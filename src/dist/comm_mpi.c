#include "core/base/clock.h"
#include "dist/comm.h"
#include "dist/comm_queue.h"
#include "dist/gradient_transfer.h"
#include "dist/point_to_point.h"
#include "dist/tree_reduction.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct mpi_context {
    bool owns_mpi; /* this object called MPI_Init and will call MPI_Finalize */
    nd_wire *wire;
    nd_gradient_transfer transfer;
    nd_comm_queue *queue; /* NULL until something is begun that is worked off beside the caller */
    char *gathered;       /* what an allgather has so far */
    size_t gathered_bytes;
} mpi_context;

static nd_status check(const nd_comm *comm, int code, const char *what)
{
    if (code == MPI_SUCCESS)
        return ND_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return ND_FAIL(ND_EPEER, "rank %d of %d: %s failed: %s", comm->rank, comm->size, what, text);
}

static nd_wire *wire_of(const nd_comm *comm)
{
    return ((mpi_context *)comm->context)->wire;
}

/* The caller waits from `asked` on, the wire is at work for this collective from `began` on. */
typedef struct span {
    double asked, began;
} span;

static nd_status finish_begun(const nd_comm *comm)
{
    nd_comm_queue *queue = ((mpi_context *)comm->context)->queue;
    return queue ? nd_comm_queue_finish(queue) : ND_OK;
}

/* Every collective of the caller's thread stands between these two. */
static nd_status enter(nd_comm *comm, nd_collective kind, span *s)
{
    s->asked = s->began = nd_seconds();
    ND_TRY(finish_begun(comm));
    s->began = nd_seconds();
    return nd_wire_begin(wire_of(comm), kind, comm->step, comm->phase);
}

static void leave(nd_comm *comm, const span *s)
{
    const double end = nd_seconds();
    comm->wait_seconds += end - s->asked;
    comm->busy_seconds += end - s->began;
}

/* Dissemination: after round k a rank has heard, through others, of the 2^k before it. */
static nd_status mpi_barrier(nd_comm *comm)
{
    span s;
    nd_status status = enter(comm, ND_COLLECTIVE_BARRIER, &s);
    const uint64_t sent = comm->bytes_sent;
    for (int reach = 1; reach < comm->size && status == ND_OK; reach *= 2) {
        const char out = 0;
        char in;
        status = nd_wire_exchange(wire_of(comm), &out, 1, (comm->rank + reach) % comm->size, &in, 1,
                                  (comm->rank + comm->size - reach) % comm->size);
    }
    comm->bytes_sent = sent; /* no payload */
    leave(comm, &s);
    return status;
}

/* Down a binomial tree, part by part. `place` is the rank's distance from the root: its parent's has the
 * lowest bit cleared, its children's have one lower bit set. */
static nd_status broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    const int size = comm->size, place = (comm->rank - root + size) % size;
    const int from = place > 0 ? ((place & (place - 1)) + root) % size : -1;
    int to[ND_WIRE_FAN], children = 0, bit = 1;
    while (bit < size && !(place & bit))
        bit *= 2;
    for (bit /= 2; bit > 0; bit /= 2)
        if (place + bit < size)
            to[children++] = (place + bit + root) % size;
    return nd_wire_relay(wire_of(comm), data, bytes, from, to, children);
}

static nd_status mpi_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    span s;
    nd_status status = enter(comm, ND_COLLECTIVE_BROADCAST, &s);
    if (status == ND_OK)
        status = broadcast(comm, data, bytes, root);
    leave(comm, &s);
    return status;
}

static nd_status grow(mpi_context *context, size_t bytes)
{
    if (bytes <= context->gathered_bytes)
        return ND_OK;
    char *larger = realloc(context->gathered, bytes);
    if (!larger)
        return ND_FAIL(ND_ENOMEM, "no memory for an allgather of %zu bytes", bytes);
    context->gathered = larger;
    context->gathered_bytes = bytes;
    return ND_OK;
}

/* Bruck's: rank r has the parts of ranks r, r+1, ...; in each round it takes as many again. Few rounds,
 * and two copies of everything. */
static nd_status gather_short(nd_comm *comm, char *all, const void *mine, size_t bytes)
{
    mpi_context *context = comm->context;
    const int size = comm->size;
    const size_t behind = bytes * (size_t)(size - comm->rank);
    ND_TRY(grow(context, bytes * (size_t)size));
    memcpy(context->gathered, mine, bytes);
    for (int have = 1; have < size; have *= 2) {
        const size_t more = bytes * (size_t)(have < size - have ? have : size - have);
        ND_TRY(nd_wire_exchange(
            context->wire, context->gathered, more, (comm->rank + size - have) % size,
            context->gathered + bytes * (size_t)have, more, (comm->rank + have) % size));
    }
    memcpy(all + bytes * (size_t)comm->rank, context->gathered, behind);
    memcpy(all, context->gathered + behind, bytes * (size_t)comm->rank);
    return ND_OK;
}

/* A ring: in each round a rank takes one more part from its left neighbour and hands the one it took
 * before on to its right one. */
static nd_status gather_long(nd_comm *comm, char *all, const void *mine, size_t bytes)
{
    const int size = comm->size, rank = comm->rank;
    if (mine != all + bytes * (size_t)rank)
        memcpy(all + bytes * (size_t)rank, mine, bytes);
    for (int round = 1; round < size; round++) {
        const size_t out = (size_t)((rank + size - round + 1) % size);
        const size_t in = (size_t)((rank + size - round) % size);
        ND_TRY(nd_wire_exchange(wire_of(comm), all + bytes * out, bytes, (rank + 1) % size,
                                all + bytes * in, bytes, (rank + size - 1) % size));
    }
    return ND_OK;
}

static nd_status mpi_allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    span s;
    nd_status status = enter(comm, ND_COLLECTIVE_ALLGATHER, &s);
    if (status == ND_OK)
        status = (bytes < ND_WIRE_RING_BYTES ? gather_short : gather_long)(comm, all, mine, bytes);
    leave(comm, &s);
    return status;
}

/* The root takes one rank's part after another; each of the others sends once. */
static nd_status gather(nd_comm *comm, char *all, const void *mine, const size_t *bytes, int root)
{
    if (comm->rank != root)
        return nd_wire_send(wire_of(comm), mine, bytes[comm->rank], root);
    for (int r = 0; r < comm->size; all += bytes[r++]) {
        if (r != root)
            ND_TRY(nd_wire_receive(wire_of(comm), all, bytes[r], r));
        else if (bytes[r] > 0)
            memcpy(all, mine, bytes[r]);
    }
    return ND_OK;
}

static nd_status mpi_gather(nd_comm *comm, void *all, const void *mine, const size_t *bytes,
                            int root)
{
    span s;
    nd_status status = enter(comm, ND_COLLECTIVE_GATHER, &s);
    if (status == ND_OK)
        status = gather(comm, all, mine, bytes, root);
    leave(comm, &s);
    return status;
}

/* Part by part through the host. */
static nd_status mpi_broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    char *staged = (char *)((mpi_context *)comm->context)->transfer.staged, *at = data;
    if (!comm->device)
        return mpi_broadcast(comm, data, bytes, root);
    for (size_t left = bytes; left > 0;) {
        const size_t part = left < ND_WIRE_PART_BYTES ? left : ND_WIRE_PART_BYTES;
        if (comm->rank == root)
            ND_TRY(nd_transfer_fetch(comm, staged, at, part));
        ND_TRY(mpi_broadcast(comm, staged, part, root));
        if (comm->rank != root)
            ND_TRY(nd_transfer_deliver(comm, at, staged, part));
        at += part;
        left -= part;
    }
    return ND_OK;
}

static nd_status reduce(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    const nd_tree_transfer transfer =
        nd_gradient_transfer_of_tree(&((mpi_context *)comm->context)->transfer);
    for (int64_t i = 0; i < count; i++) {
        nd_wire_subject(wire_of(comm), pieces[i].name);
        ND_TRY(nd_tree_reduce(comm, &transfer, split, &pieces[i]));
    }
    return ND_OK;
}

static nd_status mpi_reduce_to_owners(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                      int64_t count)
{
    span s;
    nd_status status = enter(comm, ND_COLLECTIVE_REDUCTION, &s);
    if (status == ND_OK)
        status = reduce(comm, split, pieces, count);
    leave(comm, &s);
    return status;
}

/* -- collectives beside the caller ------------------------------------------------------------ */

static nd_status work_on_wire(nd_comm *comm, const nd_comm_job *job)
{
    if (job->kind == ND_COMM_JOB_BROADCAST) {
        ND_TRY(nd_wire_begin(wire_of(comm), ND_COLLECTIVE_BROADCAST, job->step, job->phase));
        return broadcast(comm, job->data, job->bytes, job->root);
    }
    ND_TRY(nd_wire_begin(wire_of(comm), ND_COLLECTIVE_REDUCTION, job->step, job->phase));
    return reduce(comm, job->split, job->pieces, job->count);
}

/* In the queue's thread. */
static nd_status work_beside(nd_comm *comm, const nd_comm_job *job)
{
    nd_wire_set_yielding(wire_of(comm), true);
    const nd_status status = work_on_wire(comm, job);
    nd_wire_set_yielding(wire_of(comm), false);
    return status;
}

static void interrupt(nd_comm *comm)
{
    nd_wire_interrupt(wire_of(comm));
}

static void abort_all(nd_comm *comm, int exit_code)
{
    /* mpirun of Open MPI 5 forwards nothing more once it knows: time for what was printed last. */
    (void)comm;
    usleep(200 * 1000);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static nd_status begin(nd_comm *comm, nd_comm_job job)
{
    static const nd_comm_worker worker = {work_beside, interrupt, abort_all};
    mpi_context *context = comm->context;
    if (!context->queue)
        ND_TRY(nd_comm_queue_create(comm, &worker, &context->queue));
    job.step = comm->step;
    job.phase = comm->phase;
    return nd_comm_queue_begin(context->queue, &job);
}

static nd_status mpi_begin_reduction(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                     int64_t count)
{
    if (!nd_comm_overlaps(comm))
        return mpi_reduce_to_owners(comm, split, pieces, count);
    return begin(
        comm, (nd_comm_job){
                  .kind = ND_COMM_JOB_REDUCTION, .split = split, .pieces = pieces, .count = count});
}

static nd_status mpi_begin_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    if (!nd_comm_overlaps(comm))
        return mpi_broadcast_device(comm, data, bytes, root);
    return begin(
        comm,
        (nd_comm_job){.kind = ND_COMM_JOB_BROADCAST, .data = data, .bytes = bytes, .root = root});
}

static nd_status mpi_finish(nd_comm *comm)
{
    const double start = nd_seconds();
    const nd_status status = finish_begun(comm);
    comm->wait_seconds += nd_seconds() - start;
    return status;
}

/* -- begin and end ---------------------------------------------------------------------------- */

static void mpi_abort(nd_comm *comm, int exit_code)
{
    nd_comm_queue *queue = ((mpi_context *)comm->context)->queue;
    if (queue)
        nd_comm_queue_interrupt(queue);
    abort_all(comm, exit_code);
}

/* MPI_Finalize waits for everyone without end, so the ranks meet before it, where waiting has one. */
static void mpi_destroy(nd_comm *comm)
{
    mpi_context *context = comm->context;
    finish_begun(comm); /* an error of it is the wire's */
    nd_comm_queue_destroy(context->queue);
    context->queue = NULL;
    if (context->owns_mpi && context->wire &&
        (nd_wire_failed(context->wire) || mpi_barrier(comm) != ND_OK)) {
        fprintf(stderr, "nanochat_dist: rank %d: error: %s\n", comm->rank, nd_error_get()->message);
        mpi_abort(comm, nd_error_exit_code(ND_EPEER));
    }
    nd_wire_destroy(context->wire);
    if (context->owns_mpi)
        MPI_Finalize();
    nd_gradient_transfer_destroy(&context->transfer);
    free(context->gathered);
    free(context);
    free(comm);
}

static nd_status find_local_ranks(nd_comm *comm)
{
    MPI_Comm local;
    ND_TRY(check(comm,
                 MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, comm->rank,
                                     MPI_INFO_NULL, &local),
                 "finding the ranks of this machine"));
    MPI_Comm_rank(local, &comm->local_rank);
    MPI_Comm_size(local, &comm->local_size);
    return check(comm, MPI_Comm_free(&local), "freeing a communicator");
}

void nd_comm_library(char *text, size_t size)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(version, &length); /* allowed before MPI_Init */
    snprintf(text, size, "%.*s", (int)strcspn(version, ",\n"), version);
}

nd_status nd_comm_create_mpi(nd_comm **comm)
{
    nd_comm *made = calloc(1, sizeof *made);
    mpi_context *context = calloc(1, sizeof *context);
    if (!made || !context) {
        free(made);
        free(context);
        return ND_FAIL(ND_ENOMEM, "no memory for the communicator");
    }
    made->context = context;
    made->ops = (nd_comm_ops){.name = "mpi",
                              .destroy = mpi_destroy,
                              .barrier = mpi_barrier,
                              .broadcast = mpi_broadcast,
                              .broadcast_device = mpi_broadcast_device,
                              .allgather = mpi_allgather,
                              .gather = mpi_gather,
                              .reduce_to_owners = mpi_reduce_to_owners,
                              .begin_reduction = mpi_begin_reduction,
                              .begin_broadcast = mpi_begin_broadcast,
                              .finish = mpi_finish,
                              .abort = mpi_abort};
    int initialized = 0, provided = 0;
    MPI_Initialized(&initialized);
    if (!initialized) {
        MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
        context->owns_mpi = true;
    }
    MPI_Query_thread(&provided);
    made->threaded = provided >= MPI_THREAD_SERIALIZED;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &made->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &made->size);
    made->timeout_seconds = ND_COMM_TIMEOUT_DEFAULT;
    nd_status status = find_local_ranks(made);
    if (status == ND_OK)
        status = nd_wire_create(made, &context->wire);
    if (status == ND_OK)
        status = nd_gradient_transfer_create(made, context->wire, &context->transfer);
    if (status != ND_OK) {
        mpi_destroy(made);
        return status;
    }
    *comm = made;
    return ND_OK;
}
