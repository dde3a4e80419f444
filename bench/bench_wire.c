/* The wire's collectives beside those of the MPI library, on the same ranks and buffers: median of
 * alternating rounds, in microseconds, and how much longer ours takes, by medians and by the
 * fastest round of each, which others on the machine disturb least. Run under mpirun:
 *
 *   mpirun -np 2 build/release/bench/bench_wire [--rounds N]
 *
 * Bytes are those of one rank's buffer; of an allgather, of what a rank ends up with. */
#include "bench_run.h"
#include "timing.h"

#include "cli/args.h"
#include "dist/comm.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { SIZES = 8, ROUNDS_MAX = 200 };
static const size_t sizes[SIZES] = {4096,    16384,   65536,    262144,
                                    1 << 20, 4 << 20, 16 << 20, 64 << 20};

typedef struct buffers {
    nd_comm *comm;
    char *mine, *all;
    size_t bytes;
} buffers;

static nd_status our_broadcast(buffers *b)
{
    return b->comm->ops.broadcast(b->comm, b->mine, b->bytes, 0);
}

static nd_status their_broadcast(buffers *b)
{
    MPI_Bcast(b->mine, (int)b->bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
    return ND_OK;
}

static nd_status our_allgather(buffers *b)
{
    return b->comm->ops.allgather(b->comm, b->all, b->mine, b->bytes / (size_t)b->comm->size);
}

static nd_status their_allgather(buffers *b)
{
    const int part = (int)(b->bytes / (size_t)b->comm->size);
    MPI_Allgather(b->mine, part, MPI_BYTE, b->all, part, MPI_BYTE, MPI_COMM_WORLD);
    return ND_OK;
}

static nd_status our_reduction(buffers *b)
{
    float *slot = (float *)(void *)b->mine;
    nd_comm_piece piece = {.slots = &slot, .count = (int64_t)(b->bytes / sizeof *slot)};
    return b->comm->ops.reduce_to_owners(b->comm, (nd_comm_split){.leaves = b->comm->size}, &piece,
                                         1);
}

static nd_status their_reduction(buffers *b)
{
    MPI_Reduce(b->mine, b->all, (int)(b->bytes / sizeof(float)), MPI_FLOAT, MPI_SUM, 0,
               MPI_COMM_WORLD);
    return ND_OK;
}

/* From when all ranks have arrived until the last has finished. Each turn finds the same caches. */
static nd_status time_one(nd_status (*run)(buffers *), buffers *b, double *took)
{
    memset(b->all, 0, b->bytes);
    memset(b->mine, 0, b->bytes);
    MPI_Barrier(MPI_COMM_WORLD);
    const double start = nd_seconds();
    ND_TRY(run(b));
    const double mine = nd_seconds() - start;
    MPI_Allreduce(&mine, took, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return ND_OK;
}

static nd_status compare(const char *name, nd_status (*ours)(buffers *),
                         nd_status (*theirs)(buffers *), buffers *b, int rounds)
{
    double our_times[ROUNDS_MAX], their_times[ROUNDS_MAX];
    for (int i = -1; i < rounds; i++) { /* the first is not counted */
        double a, t;
        ND_TRY(time_one(ours, b, &a));
        ND_TRY(time_one(theirs, b, &t));
        if (i >= 0) {
            our_times[i] = a * 1e6;
            their_times[i] = t * 1e6;
        }
    }
    const double a = median(our_times, rounds), t = median(their_times, rounds);
    if (b->comm->rank == 0)
        printf("| %s | %zu | %.0f | %.0f | %.2f | %.2f |\n", name, b->bytes / 1024, a, t, a / t,
               our_times[0] / their_times[0]);
    return ND_OK;
}

/* As the CPU backend's arenas: in large pages where the system has them. */
static char *allocate(size_t bytes)
{
    char *memory = aligned_alloc((size_t)2 << 20, bytes);
    if (memory) {
        madvise(memory, bytes, MADV_HUGEPAGE);
        memset(memory, 0, bytes);
    }
    return memory;
}

static nd_status compare_all(nd_comm *comm, int most)
{
    ND_AUTOFREE char *mine = allocate(sizes[SIZES - 1]);
    ND_AUTOFREE char *all = allocate(sizes[SIZES - 1]);
    buffers b = {.comm = comm, .mine = mine, .all = all};
    ND_FAIL_IF(!mine || !all, ND_ENOMEM, "no memory for two buffers of %zu bytes",
               sizes[SIZES - 1]);
    if (comm->rank == 0)
        printf("| %d ranks | KiB | ours, us | MPI's, us | ratio | of the fastest |\n"
               "|---|---|---|---|---|---|\n",
               comm->size);
    for (int i = 0; i < SIZES; i++) {
        const int rounds = sizes[i] >= 16 << 20 ? (most + 3) / 4 : most;
        b.bytes = sizes[i];
        ND_TRY(compare("broadcast", our_broadcast, their_broadcast, &b, rounds));
        ND_TRY(compare("allgather", our_allgather, their_allgather, &b, rounds));
        ND_TRY(compare("reduction", our_reduction, their_reduction, &b, rounds));
    }
    return ND_OK;
}

static nd_status bench(int argc, char **argv, nd_comm *comm)
{
    int64_t rounds = 40;
    const nd_arg args[] = {{"--rounds", ND_ARG_INT, &rounds, "N", "of each size (40)"}};
    const nd_command command = {"mpirun -np N bench_wire [options]",
                                "Collectives beside those of the MPI library.", args, 1};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(rounds < 1 || rounds > ROUNDS_MAX, ND_ECONFIG, "--rounds is from 1 to %d",
               ROUNDS_MAX);
    return compare_all(comm, (int)rounds);
}

int main(int argc, char **argv)
{
    return bench_ranks("bench_wire", bench, argc, argv);
}
