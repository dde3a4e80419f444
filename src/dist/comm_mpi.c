#include "dist/comm.h"
#include "dist/gradient_transfer.h"
#include "dist/mpi_wire.h"
#include "dist/tree_reduction.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = ND_TRANSFER_PART_BYTES };

typedef struct mpi_context {
    bool owns_mpi; /* this object called MPI_Init and will call MPI_Finalize */
    nd_wire *wire;
    nd_gradient_transfer transfer;
    char *gathered; /* what an allgather has so far */
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

/* Dissemination: after round k a rank has heard, through others, of the 2^k before it. */
static nd_status mpi_barrier(nd_comm *comm)
{
    const double start = MPI_Wtime();
    nd_status status = nd_wire_begin(wire_of(comm), ND_COLLECTIVE_BARRIER);
    const uint64_t sent = comm->bytes_sent;
    for (int reach = 1; reach < comm->size && status == ND_OK; reach *= 2) {
        const char out = 0;
        char in;
        status = nd_wire_exchange(wire_of(comm), &out, 1, (comm->rank + reach) % comm->size, &in, 1,
                                  (comm->rank + comm->size - reach) % comm->size);
    }
    comm->bytes_sent = sent; /* no payload */
    comm->wait_seconds += MPI_Wtime() - start;
    return status;
}

/* One part down a binomial tree. `place` is the rank's distance from the root: its parent's has the
 * lowest bit cleared, its children's have one lower bit set. */
static nd_status broadcast_part(nd_comm *comm, char *data, size_t bytes, int root)
{
    const int size = comm->size, place = (comm->rank - root + size) % size;
    if (place > 0)
        ND_TRY(nd_wire_receive(wire_of(comm), data, bytes, ((place & (place - 1)) + root) % size));
    int bit = 1;
    while (bit < size && !(place & bit))
        bit *= 2;
    for (bit /= 2; bit > 0; bit /= 2)
        if (place + bit < size)
            ND_TRY(nd_wire_send(wire_of(comm), data, bytes, (place + bit + root) % size));
    return ND_OK;
}

static nd_status mpi_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    const double start = MPI_Wtime();
    nd_status status = nd_wire_begin(wire_of(comm), ND_COLLECTIVE_BROADCAST);
    char *at = data;
    for (size_t left = bytes; left > 0 && status == ND_OK;) {
        const size_t part = left < PART_BYTES ? left : PART_BYTES;
        status = broadcast_part(comm, at, part, root);
        at += part;
        left -= part;
    }
    comm->wait_seconds += MPI_Wtime() - start;
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

/* Bruck's: rank r has the parts of ranks r, r+1, ...; in each round it takes as many again. */
static nd_status gather(nd_comm *comm, const void *mine, size_t bytes)
{
    mpi_context *context = comm->context;
    const int size = comm->size;
    ND_TRY(nd_wire_begin(context->wire, ND_COLLECTIVE_ALLGATHER));
    ND_TRY(grow(context, bytes * (size_t)size));
    memcpy(context->gathered, mine, bytes);
    for (int have = 1; have < size; have *= 2) {
        const size_t more = bytes * (size_t)(have < size - have ? have : size - have);
        ND_TRY(nd_wire_exchange(
            context->wire, context->gathered, more, (comm->rank + size - have) % size,
            context->gathered + bytes * (size_t)have, more, (comm->rank + have) % size));
    }
    return ND_OK;
}

static nd_status mpi_allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    const double start = MPI_Wtime();
    const mpi_context *context = comm->context;
    const size_t behind = bytes * (size_t)(comm->size - comm->rank);
    const nd_status status = gather(comm, mine, bytes);
    if (status == ND_OK) {
        memcpy((char *)all + bytes * (size_t)comm->rank, context->gathered, behind);
        memcpy(all, context->gathered + behind, bytes * (size_t)comm->rank);
    }
    comm->wait_seconds += MPI_Wtime() - start;
    return status;
}

/* Part by part through the host. */
static nd_status mpi_broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    char *staged = (char *)((mpi_context *)comm->context)->transfer.staged, *at = data;
    if (!comm->device)
        return mpi_broadcast(comm, data, bytes, root);
    for (size_t left = bytes; left > 0;) {
        const size_t part = left < PART_BYTES ? left : PART_BYTES;
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

static nd_status mpi_reduce_to_owners(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                      int64_t count)
{
    const nd_tree_transfer transfer =
        nd_gradient_transfer_of_tree(&((mpi_context *)comm->context)->transfer);
    const double start = MPI_Wtime();
    nd_status status = nd_wire_begin(wire_of(comm), ND_COLLECTIVE_REDUCTION);
    for (int64_t i = 0; i < count && status == ND_OK; i++) {
        nd_wire_subject(wire_of(comm), pieces[i].name);
        status = nd_tree_reduce(comm, &transfer, split, &pieces[i]);
    }
    comm->wait_seconds += MPI_Wtime() - start;
    return status;
}

static void mpi_abort(nd_comm *comm, int exit_code)
{
    (void)comm;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

/* MPI_Finalize waits for everyone without end, so the ranks meet before it, where waiting has one. */
static void mpi_destroy(nd_comm *comm)
{
    mpi_context *context = comm->context;
    if (context->owns_mpi && context->wire &&
        (nd_wire_failed(context->wire) || mpi_barrier(comm) != ND_OK)) {
        fprintf(stderr, "nanochat_dist: rank %d: error: %s\n", comm->rank, nd_error_get()->message);
        mpi_abort(comm, nd_error_exit_code(ND_EPEER));
    }
    if (context->owns_mpi)
        MPI_Finalize();
    nd_wire_destroy(context->wire);
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
                              .reduce_to_owners = mpi_reduce_to_owners,
                              .abort = mpi_abort};
    int initialized = 0, provided = 0;
    MPI_Initialized(&initialized);
    if (!initialized) {
        MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
        context->owns_mpi = true;
    }
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
