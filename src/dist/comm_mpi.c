#include "dist/comm_messages.h"
#include "dist/transport/transport_mpi.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nd_status check(const nd_comm *comm, int code, const char *what)
{
    if (code == MPI_SUCCESS)
        return ND_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return ND_FAIL(ND_EPEER, "rank %d of %d: %s failed: %s", comm->rank, comm->size, what, text);
}

static void abort_all(nd_comm *comm, int exit_code)
{
    /* Open MPI 5's mpirun then forwards no more output: wait for what was printed last. */
    (void)comm;
    usleep(200 * 1000);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static void fail_all(int rank, nd_status status)
{
    fprintf(stderr, "nanochat_dist: rank %d: error: %s\n", rank, nd_error_get()->message);
    abort_all(NULL, nd_error_exit_code(status));
}

static void finalize(void)
{
    MPI_Finalize();
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
    ND_TRY(check(comm, MPI_Comm_free(&local), "freeing a communicator"));
    const bool in_place = comm->rank % comm->local_size == comm->local_rank;
    int mine[] = {comm->local_size, -comm->local_size, in_place}, least[3];
    ND_TRY(check(comm, MPI_Allreduce(mine, least, 3, MPI_INT, MPI_MIN, MPI_COMM_WORLD),
                 "comparing the hosts"));
    comm->host_ranks = least[0] == -least[1] && least[2] ? least[0] : 0;
    return ND_OK;
}

void nd_comm_library(char *text, size_t size)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(version, &length); /* allowed before MPI_Init */
    snprintf(text, size, "%.*s", (int)strcspn(version, ",\n"), version);
}

/* Every rank takes part in the split, even for a part of one rank. */
static nd_status make_part(nd_comm *comm, nd_comm_subset of, nd_comm *part)
{
    const nd_comm_shutdown end = {.abort = abort_all};
    nd_transport *transport = NULL;
    MPI_Comm ranks;
    ND_TRY(check(comm, MPI_Comm_split(MPI_COMM_WORLD, of.first, comm->rank, &ranks),
                 "splitting the ranks"));
    if (of.count == 1)
        return check(comm, MPI_Comm_free(&ranks), "freeing a communicator");
    const nd_status status = nd_transport_mpi_create(part, ranks, &transport);
    if (status != ND_OK) {
        free(part);
        return status;
    }
    return nd_comm_over_messages(part, "mpi", transport, end);
}

nd_status nd_comm_create_mpi(nd_comm **comm)
{
    nd_comm_shutdown end = {.abort = abort_all, .part = make_part};
    nd_transport *transport = NULL;
    nd_comm *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for the communicator");
    int initialized = 0, provided = 0;
    MPI_Initialized(&initialized);
    if (!initialized) {
        /* Open MPI announces a message behind what its connection still has to send, so with one a
         * peer's link carries little more than one direction at a time. */
        setenv("OMPI_MCA_btl_tcp_links", "2", 0);
        MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
        end.synchronizes = true; /* who called MPI_Init calls MPI_Finalize */
        end.close = finalize;
    }
    MPI_Query_thread(&provided);
    made->threaded = provided >= MPI_THREAD_SERIALIZED;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &made->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &made->size);
    made->timeout_seconds = ND_COMM_TIMEOUT_DEFAULT;
    const int rank = made->rank, size = made->size;
    nd_status status = find_local_ranks(made);
    ND_IF_OK(nd_transport_mpi_create(made, MPI_COMM_WORLD, &transport));
    if (status != ND_OK)
        free(made);
    else
        status = nd_comm_over_messages(made, "mpi", transport, end);
    if (status == ND_OK)
        *comm = made;
    else if (size > 1) /* the others wait for this rank, or will */
        fail_all(rank, status);
    else if (end.close)
        end.close();
    return status;
}
