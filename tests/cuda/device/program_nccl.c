/* NCCL with the ranks it was started with (one GPU each; one rank alone will do): sums along the
 * tree and in any order, at once and begun, exact and rounded, and broadcasts, on device memory.
 * Exits 0 when all is right, 77 without a GPU. */
#include "cuda_backend.h"
#include "device_choice.h"
#include "nccl_comm.h"

#include "dist/link_probe.h"
#include "dist/reduction/gradient_wire.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DO(expression)                                                                             \
    do {                                                                                           \
        if ((expression) != ND_OK) {                                                               \
            fprintf(stderr, "%s: %s\n", #expression, nd_error_get()->message);                     \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

enum { COUNT = 100003 };

/* Leaf `rank` of piece p holds rank + p + 1 everywhere. One leaf a rank: added in any order. */
static int reduce_in(nd_comm *comm, nd_backend *b, int64_t leaves_a_rank, bool begin,
                     nd_gradient_wire format)
{
    const nd_comm_split split = {leaves_a_rank * comm->size, leaves_a_rank == 1};
    static float host[COUNT];
    const int pieces = comm->size;
    const int slots = leaves_a_rank > 1 ? 2 : 1; /* of three leaves: a pair and one */
    nd_comm_piece list[pieces];
    float *memory[pieces][2];
    for (int p = 0; p < pieces; p++) {
        for (int slot = 0; slot < slots; slot++) {
            void *at = NULL;
            for (int i = 0; i < COUNT; i++)
                host[i] = (float)((comm->rank + p + 1) * (leaves_a_rank > 1 && slot == 0 ? 2 : 1));
            DO(b->ops.allocate(b, sizeof host, &at));
            DO(b->ops.upload(b, at, host, sizeof host));
            memory[p][slot] = at;
        }
        void *residual = NULL;
        const size_t kept = nd_gradient_residual_bytes(format, COUNT);
        DO(b->ops.allocate(b, kept, &residual));
        list[p] = (nd_comm_piece){
            .slots = memory[p], .count = COUNT, .owner = p, .format = format, .residual = residual};
    }
    if (!begin)
        DO(comm->ops.reduce_to_owners(comm, split, list, pieces));
    for (int p = 0; begin && p < pieces; p++)
        DO(comm->ops.begin_reduction(comm, split, &list[p], 1));
    if (begin)
        DO(comm->ops.finish(comm));
    double expected = 0.0;
    for (int r = 0; r < comm->size; r++)
        expected += (double)leaves_a_rank * (r + comm->rank + 1);
    DO(b->ops.download(b, host, list[comm->rank].result, sizeof host));
    /* Each of a few roundings takes at most 1/254 of what it rounds. */
    const double tolerance = format == ND_GRADIENT_WIRE_FP32 ? 0.0 : 0.02 * expected;
    for (int i = 0; i < COUNT; i++)
        if (!(fabs((double)host[i] - expected) <= tolerance)) {
            fprintf(stderr, "rank %d: %g, expected %g\n", comm->rank, (double)host[i], expected);
            return 1;
        }
    for (int p = 0; p < pieces; p++) {
        for (int slot = 0; slot < slots; slot++)
            b->ops.release(b, memory[p][slot], sizeof host);
        b->ops.release(b, list[p].residual, nd_gradient_residual_bytes(format, COUNT));
    }
    return 0;
}

static int reduce(nd_comm *comm, nd_backend *b, int64_t leaves_a_rank, bool begin)
{
    return reduce_in(comm, b, leaves_a_rank, begin, ND_GRADIENT_WIRE_FP32);
}

/* What every member of a group has, to all of it. */
static int gather(nd_comm *comm, nd_backend *b)
{
    const int members = nd_comm_group(comm), first = nd_comm_group_first(comm);
    void *buffers[members];
    size_t bytes[members];
    static float host[COUNT];
    for (int m = 0; m < members; m++) {
        bytes[m] = sizeof(float) * (size_t)(COUNT - 1000 * m % COUNT);
        for (int i = 0; i < COUNT; i++)
            host[i] = first + m == comm->rank ? (float)comm->rank : -1.0f;
        DO(b->ops.allocate(b, bytes[m], &buffers[m]));
        DO(b->ops.upload(b, buffers[m], host, bytes[m]));
    }
    DO(nd_comm_broadcast_each(comm, buffers, bytes));
    for (int m = 0; m < members; m++) {
        DO(b->ops.download(b, host, buffers[m], bytes[m]));
        for (size_t i = 0; i < bytes[m] / sizeof *host; i++)
            if (host[i] != (float)(first + m)) {
                fprintf(stderr, "rank %d: %g came from rank %d\n", comm->rank, (double)host[i],
                        first + m);
                return 1;
            }
        b->ops.release(b, buffers[m], bytes[m]);
    }
    return 0;
}

static int probe(nd_comm *comm)
{
    nd_link between, within;
    DO(nd_links_probe(comm, &between, &within));
    printf("links: %.3g Gbit/s, %.3g us\n", 8e-9 / between.per_byte, between.latency * 1e6);
    return between.latency > 0.0 && between.per_byte > 0.0 ? 0 : 1;
}

int main(void)
{
    char reason[256];
    nd_cuda_options options = {0};
    nd_comm *comm = NULL;
    nd_backend *b = NULL;
    const int devices = nd_cuda_device_count(reason, sizeof reason);
    if (devices == 0) {
        printf("SKIPPED: no CUDA device: %s\n", reason);
        return 77;
    }
    DO(nd_comm_create(&comm));
    DO(nd_choose_device(true, devices, getenv("CUDA_VISIBLE_DEVICES"), comm->local_rank,
                        comm->local_size, reason, &options.device));
    DO(nd_cuda_backend_create(&options, &b));
    nd_comm_set_device(comm, b);
    DO(nd_nccl_attach(comm, b));
    comm->overlap = true;
    for (int begin = 0; begin < 2; begin++)
        if (reduce(comm, b, 1, begin) || (comm->size == 1 ? 0 : reduce(comm, b, 3, begin)))
            return 1;
    for (int format = ND_GRADIENT_WIRE_BF16; format <= ND_GRADIENT_WIRE_INT8; format++)
        if (reduce_in(comm, b, 1, true, (nd_gradient_wire)format))
            return 1;
    comm->reduction = ND_REDUCTION_ALLREDUCE;
    if (reduce(comm, b, 1, true))
        return 1;
    if (nd_comm_overlaps(comm) != (comm->size > 1) ||
        (comm->size > 1 && !(comm->busy_seconds > 0.0))) {
        fprintf(stderr, "overlaps: %d, %g s at work\n", nd_comm_overlaps(comm), comm->busy_seconds);
        return 1;
    }
    int value = 1000 + comm->rank;
    void *memory = NULL;
    DO(b->ops.allocate(b, sizeof value, &memory));
    DO(b->ops.upload(b, memory, &value, sizeof value));
    DO(comm->ops.broadcast_device(comm, memory, sizeof value, comm->size - 1));
    DO(b->ops.download(b, &value, memory, sizeof value));
    if (value != 999 + comm->size)
        return 1;
    b->ops.release(b, memory, sizeof value);
    if (gather(comm, b))
        return 1;
    comm->group_ranks = comm->size % 2 == 0 ? comm->size / 2 : 1;
    if (gather(comm, b)) /* within a host */
        return 1;
    comm->local_size = 1;
    if (gather(comm, b) || probe(comm)) /* as if across hosts */
        return 1;
    nd_nccl_detach(comm);
    nd_comm_set_device(comm, NULL);
    nd_backend_destroy(b);
    nd_comm_destroy(comm);
    printf("NCCL: right\n");
    return 0;
}
