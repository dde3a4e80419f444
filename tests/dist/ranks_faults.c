/* Started under mpirun by test_faults.c: three good collectives, then one rank misbehaves. As the
 * command line does, a rank that gets an error prints it and ends the job.
 *
 *   ranks_faults FAULT CULPRIT TIMEOUT [computing|finishing]
 *
 * With the last, the reduction is begun, and the rank goes on to compute or waits for its end. */
#include "dist/comm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Without a look at anything that is begun. */
static void compute(double seconds)
{
    const time_t end = time(NULL) + (time_t)seconds;
    volatile double x = 1.0;
    while (time(NULL) < end)
        x = x * 1.0000001 + 1e-9;
}

static nd_status reduce(nd_comm *comm, nd_comm_piece *piece, const char *beside)
{
    if (!beside)
        return comm->ops.reduce_to_owners(comm, (nd_comm_split){.leaves = comm->size}, piece, 1);
    comm->overlap = true;
    ND_TRY(comm->ops.begin_reduction(comm, (nd_comm_split){.leaves = comm->size}, piece, 1));
    nd_comm_set_phase(comm, 12, "backward");
    if (strcmp(beside, "computing") == 0)
        compute(30.0);
    return comm->ops.finish(comm);
}

static nd_status collectives(nd_comm *comm, const char *fault, int culprit, const char *beside)
{
    char text[64] = "hello", all[64 * 8];
    for (int round = 0; round < 3; round++) {
        ND_TRY(comm->ops.broadcast(comm, text, sizeof text, round % comm->size));
        ND_TRY(comm->ops.allgather(comm, all, text, sizeof text));
    }
    nd_comm_set_phase(comm, 12, "reduce");
    const bool me = comm->rank == culprit;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (me)
        fprintf(stderr, "fault at %lld.%03ld\n", (long long)now.tv_sec, now.tv_nsec / 1000000);
    if (me && strcmp(fault, "stop") == 0)
        raise(SIGSTOP);
    if (me && strcmp(fault, "kill") == 0)
        raise(SIGKILL);
    if (me && strcmp(fault, "another") == 0)
        return comm->ops.allgather(comm, all, text, sizeof text);
    if (me && strcmp(fault, "skip") == 0)
        return comm->ops.barrier(comm);
    if (me && strcmp(fault, "short") == 0)
        return comm->ops.broadcast(comm, text, 8, 1);
    if (strcmp(fault, "skip") == 0) {
        ND_TRY(comm->ops.broadcast(comm, text, sizeof text, culprit));
    } else if (strcmp(fault, "another") == 0 || strcmp(fault, "short") == 0) {
        ND_TRY(comm->ops.broadcast(comm, text, sizeof text, 1));
    }
    float *slots[1] = {calloc(1000, sizeof(float))};
    nd_comm_piece piece = {
        .slots = slots, .count = 1000, .owner = 0, .name = "blk.0.attn_q.weight"};
    const nd_status status = reduce(comm, &piece, beside);
    free(slots[0]);
    ND_TRY(status);
    return comm->ops.barrier(comm);
}

int main(int argc, char **argv)
{
    nd_comm *comm = NULL;
    if (argc < 4 || nd_comm_create(&comm) != ND_OK)
        return 1;
    comm->timeout_seconds = atof(argv[3]);
    if (collectives(comm, argv[1], atoi(argv[2]), argv[4]) != ND_OK) {
        fprintf(stderr, "%s\n", nd_error_get()->message);
        fflush(stderr);
        comm->ops.abort(comm, nd_error_exit_code(nd_error_get()->status));
    }
    nd_comm_destroy(comm);
    return 0;
}
