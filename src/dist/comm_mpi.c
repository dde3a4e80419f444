#include "dist/comm.h"
#include "dist/tree_reduction.h"

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

/* Reductions and broadcasts move in parts of this size: small enough to stay in cache while they are
 * added, large enough that latency does not count. */
enum { PART_BYTES = 1 << 20, PART_FLOATS = PART_BYTES / 4 };

typedef struct mpi_context {
    bool owns_mpi; /* this object called MPI_Init and will call MPI_Finalize */
    float *part;   /* [PART_FLOATS] what another rank sent */
    float *staged; /* [PART_FLOATS] what lies in memory of comm->device */
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

static void mpi_destroy(nd_comm *comm)
{
    mpi_context *context = comm->context;
    if (context->owns_mpi)
        MPI_Finalize();
    free(context->part);
    free(context->staged);
    free(context);
    free(comm);
}

static nd_status mpi_barrier(nd_comm *comm)
{
    const double start = MPI_Wtime();
    const int code = MPI_Barrier(MPI_COMM_WORLD);
    comm->wait_seconds += MPI_Wtime() - start;
    return check(comm, code, "barrier");
}

static nd_status mpi_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    const double start = MPI_Wtime();
    char *at = data;
    int code = MPI_SUCCESS;
    if (comm->rank == root)
        comm->bytes_sent += bytes * (size_t)(comm->size - 1);
    for (size_t left = bytes; left > 0 && code == MPI_SUCCESS;) {
        const size_t part = left < INT_MAX / 2 ? left : INT_MAX / 2;
        code = MPI_Bcast(at, (int)part, MPI_BYTE, root, MPI_COMM_WORLD);
        at += part;
        left -= part;
    }
    comm->wait_seconds += MPI_Wtime() - start;
    return check(comm, code, "broadcast");
}

static nd_status mpi_allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    if (bytes > INT_MAX)
        return ND_FAIL(ND_EINTERNAL, "allgather of %zu bytes a rank", bytes);
    const double start = MPI_Wtime();
    comm->bytes_sent += bytes * (size_t)(comm->size - 1);
    const int code =
        MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD);
    comm->wait_seconds += MPI_Wtime() - start;
    return check(comm, code, "allgather");
}

static nd_status fetch(const nd_comm *comm, void *host, const void *device, size_t bytes)
{
    return comm->device->ops.download(comm->device, host, device, bytes);
}

static nd_status deliver(const nd_comm *comm, void *device, const void *host, size_t bytes)
{
    return comm->device->ops.upload(comm->device, device, host, bytes);
}

/* Part by part through the host. */
static nd_status mpi_broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    char *staged = (char *)((mpi_context *)comm->context)->staged, *at = data;
    if (!comm->device)
        return mpi_broadcast(comm, data, bytes, root);
    for (size_t left = bytes; left > 0;) {
        const size_t part = left < PART_BYTES ? left : PART_BYTES;
        if (comm->rank == root)
            ND_TRY(fetch(comm, staged, at, part));
        ND_TRY(mpi_broadcast(comm, staged, part, root));
        if (comm->rank != root)
            ND_TRY(deliver(comm, at, staged, part));
        at += part;
        left -= part;
    }
    return ND_OK;
}

static nd_status receive_and_add(nd_comm *comm, float *values, int64_t count, int from)
{
    const mpi_context *context = comm->context;
    for (int64_t first = 0; first < count; first += PART_FLOATS) {
        const int64_t left = count - first;
        const int part = (int)(left < PART_FLOATS ? left : PART_FLOATS);
        ND_TRY(check(
            comm,
            MPI_Recv(context->part, part, MPI_FLOAT, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
            "receiving gradients"));
        float *restrict into = values + first;
        const float *restrict theirs = context->part;
        if (comm->device) {
            ND_TRY(fetch(comm, context->staged, into, (size_t)part * sizeof *into));
            into = context->staged;
        }
        for (int i = 0; i < part; i++)
            into[i] += theirs[i];
        if (comm->device)
            ND_TRY(deliver(comm, values + first, into, (size_t)part * sizeof *into));
    }
    return ND_OK;
}

static nd_status send_all(nd_comm *comm, const float *values, int64_t count, int to)
{
    const mpi_context *context = comm->context;
    comm->bytes_sent += (uint64_t)count * sizeof *values;
    for (int64_t first = 0; first < count; first += PART_FLOATS) {
        const int64_t left = count - first;
        const int part = (int)(left < PART_FLOATS ? left : PART_FLOATS);
        const float *from = values + first;
        if (comm->device) {
            ND_TRY(fetch(comm, context->staged, from, (size_t)part * sizeof *from));
            from = context->staged;
        }
        ND_TRY(check(comm, MPI_Send(from, part, MPI_FLOAT, to, 0, MPI_COMM_WORLD),
                     "sending gradients"));
    }
    return ND_OK;
}

static nd_status mpi_reduce_to_owners(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                      int64_t count)
{
    const nd_tree_transfer transfer = {send_all, receive_and_add, NULL};
    const double start = MPI_Wtime();
    nd_status status = ND_OK;
    for (int64_t i = 0; i < count && status == ND_OK; i++)
        status = nd_tree_reduce(comm, &transfer, split, &pieces[i]);
    comm->wait_seconds += MPI_Wtime() - start;
    return status;
}

static void mpi_abort(nd_comm *comm, int exit_code)
{
    (void)comm;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
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
    float *part = malloc(PART_BYTES), *staged = malloc(PART_BYTES);
    if (!made || !context || !part || !staged) {
        free(made);
        free(context);
        free(part);
        free(staged);
        return ND_FAIL(ND_ENOMEM, "no memory for the communicator");
    }
    made->context = context;
    context->part = part;
    context->staged = staged;
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
    const nd_status status = find_local_ranks(made);
    if (status != ND_OK) {
        mpi_destroy(made);
        return status;
    }
    *comm = made;
    return ND_OK;
}
