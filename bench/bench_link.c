/* What a link between two ranks carries, as training uses it: messages go through the comm, whose
 * waiting and parts are in the numbers. Under mpirun with two ranks; rank 0 prints one JSON object:
 *
 *   latency_us   of a message of 8 bytes, half of a ping-pong
 *   gbit         of a broadcast of MIB mebibytes, with what 1/8 of it takes subtracted
 *   reduce_gbit  of a reduction to the other rank, where what arrives is added
 *   add_gbyte    how fast an addition alone is
 *   core_ns      what a byte on its way takes from a computation beside it on the same core
 *   bytes        payload that both ranks sent in all */
#include "bench_run.h"
#include "timing.h"

#include "cli/args.h"
#include "dist/comm.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct link {
    nd_comm *comm;
    float *data;
    int64_t floats;
    int rounds;
} link;

/* There and back; half of the median time of `rounds`. */
static nd_status ping_pong(const link *l, size_t bytes, int rounds, double *seconds)
{
    double times[rounds];
    ND_TRY(l->comm->ops.barrier(l->comm));
    for (int i = 0; i < rounds; i++) {
        const double start = nd_seconds();
        ND_TRY(l->comm->ops.broadcast(l->comm, l->data, bytes, 0));
        ND_TRY(l->comm->ops.broadcast(l->comm, l->data, bytes, 1));
        times[i] = (nd_seconds() - start) / 2.0;
    }
    *seconds = median(times, rounds);
    return ND_OK;
}

static nd_status reduce_both_ways(const link *l, int64_t floats, int rounds, double *seconds)
{
    float *const slots[] = {l->data};
    double times[rounds];
    ND_TRY(l->comm->ops.barrier(l->comm));
    for (int i = 0; i < rounds; i++) {
        nd_comm_piece pieces[] = {{.slots = slots, .count = floats, .owner = 1},
                                  {.slots = slots, .count = floats, .owner = 0}};
        const double start = nd_seconds();
        ND_TRY(l->comm->ops.reduce_to_owners(l->comm, (nd_comm_split){.leaves = 2}, pieces, 2));
        times[i] = (nd_seconds() - start) / 2.0;
    }
    *seconds = median(times, rounds);
    return ND_OK;
}

/* Computes in registers; about `turns` nanoseconds. */
static float compute(int64_t turns)
{
    float sum = 1.0f;
    for (int64_t i = 0; i < turns; i++)
        sum = sum * 0.999f + 0.001f;
    return sum;
}

static double add_seconds_a_byte(const link *l)
{
    const int64_t half = l->floats / 2;
    float *restrict into = l->data;
    const float *restrict from = l->data + half;
    const double start = nd_seconds();
    for (int64_t i = 0; i < half; i++)
        into[i] += from[i];
    return (nd_seconds() - start) / (4.0 * (double)half);
}

/* How much longer a computation takes with a message beside it that ends before it does. */
static nd_status slow_down(const link *l, double transfer, double *seconds_a_byte)
{
    const size_t bytes = (size_t)l->floats * 4;
    volatile float result;
    int64_t turns = 1000000;
    double slower = 0.0;
    double start = nd_seconds();
    result = compute(turns);
    turns = (int64_t)((double)turns * 3.0 * transfer / (nd_seconds() - start)) + 1;
    l->comm->overlap = true;
    for (int i = 0; i < l->rounds; i++) {
        ND_TRY(l->comm->ops.barrier(l->comm));
        start = nd_seconds();
        result = compute(turns);
        const double alone = nd_seconds() - start;
        ND_TRY(l->comm->ops.barrier(l->comm));
        start = nd_seconds();
        ND_TRY(l->comm->ops.begin_broadcast(l->comm, l->data, bytes, i % 2));
        result = compute(turns);
        slower += nd_seconds() - start - alone;
        ND_TRY(l->comm->ops.finish(l->comm));
    }
    (void)result;
    slower = slower > 0.0 ? slower / l->rounds : 0.0;
    double both[2];
    ND_TRY(l->comm->ops.allgather(l->comm, both, &slower, sizeof slower));
    *seconds_a_byte = (both[0] + both[1]) / 2.0 / (double)bytes;
    return ND_OK;
}

static nd_status measure(const link *l)
{
    const int64_t few = l->floats / 8, many = l->floats;
    const double bytes = 4.0 * (double)(many - few);
    double latency, small, large, small_sum, large_sum, core;
    ND_TRY(ping_pong(l, 8, 200, &latency));
    ND_TRY(ping_pong(l, (size_t)few * 4, l->rounds, &small));
    ND_TRY(ping_pong(l, (size_t)many * 4, l->rounds, &large));
    ND_TRY(reduce_both_ways(l, few, l->rounds, &small_sum));
    ND_TRY(reduce_both_ways(l, many, l->rounds, &large_sum));
    ND_TRY(slow_down(l, large, &core));
    const double moved = (large - small) / bytes, summed = (large_sum - small_sum) / bytes;
    uint64_t sent[2];
    ND_TRY(l->comm->ops.allgather(l->comm, sent, &l->comm->bytes_sent, sizeof *sent));
    if (l->comm->rank == 0)
        printf("{\"latency_us\": %.2f, \"gbit\": %.5g, \"reduce_gbit\": %.5g, \"add_gbyte\": %.4g, "
               "\"core_ns\": %.4g, \"bytes\": %llu}\n",
               latency * 1e6, 8e-9 / moved, 8e-9 / summed, 1e-9 / add_seconds_a_byte(l), core * 1e9,
               (unsigned long long)(sent[0] + sent[1]));
    return ND_OK;
}

static nd_status bench(int argc, char **argv, nd_comm *comm)
{
    int64_t mib = 8, rounds = 5;
    const nd_arg args[] = {
        {"--mib", ND_ARG_INT, &mib, "MIB", "the largest message (8)"},
        {"--rounds", ND_ARG_INT, &rounds, "N", "of each size; the median counts (5)"},
    };
    const nd_command command = {"mpirun -np 2 bench_link [options]",
                                "Latency and bandwidth between two ranks, through the comm.", args,
                                sizeof args / sizeof *args};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(comm->size != 2, ND_ECONFIG, "bench_link needs two ranks, not %d", comm->size);
    ND_FAIL_IF(mib < 1 || mib > 1024 || rounds < 1 || rounds > 1000, ND_ECONFIG,
               "--mib is from 1 to 1024, --rounds from 1 to 1000");
    const int64_t floats = mib << 18;
    const link l = {comm, calloc((size_t)floats, sizeof(float)), floats, (int)rounds};
    ND_FAIL_IF(!l.data, ND_ENOMEM, "no memory for a message of %lld MiB", (long long)mib);
    const nd_status status = measure(&l);
    free(l.data);
    return status;
}

int main(int argc, char **argv)
{
    return bench_ranks("bench_link", bench, argc, argv);
}
