/* Started under mpirun by test_comm.c: exercises every function of the contract and exits 0 when all
 * results are right on this rank. */
#include "dist/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d: %s does not hold (line %d)\n", comm->rank, #condition,       \
                    __LINE__);                                                                     \
            comm->ops.abort(comm, 1);                                                              \
        }                                                                                          \
    } while (0)

static float summand(int rank, int64_t i)
{
    return 1.0f / (float)(1 + rank * 7 + i % 1013);
}

/* The tree's sum of ranks lo..hi-1, as the contract says it is formed. */
static float tree_sum(int lo, int hi, int64_t i)
{
    if (hi - lo == 1)
        return summand(lo, i);
    int left = 1;
    while (2 * left < hi - lo)
        left *= 2;
    return tree_sum(lo, lo + left, i) + tree_sum(lo + left, hi, i);
}

static void check_reduction(nd_comm *comm, int64_t count)
{
    const int pieces = comm->size + 2;
    float *values = malloc((size_t)(pieces * count) * sizeof *values);
    nd_comm_piece *list = calloc((size_t)pieces, sizeof *list);
    CHECK(values && list);
    for (int p = 0; p < pieces; p++) {
        list[p] = (nd_comm_piece){values + p * count, count, p % comm->size};
        for (int64_t i = 0; i < count; i++)
            values[p * count + i] = summand(comm->rank, i + p);
    }
    CHECK(comm->ops.reduce_to_owners(comm, list, pieces) == ND_OK);
    for (int p = 0; p < pieces; p++)
        for (int64_t i = 0; list[p].owner == comm->rank && i < count; i++)
            CHECK(list[p].values[i] == tree_sum(0, comm->size, i + p));
    free(values);
    free(list);
}

int main(void)
{
    nd_comm *comm = NULL;
    if (nd_comm_create(&comm) != ND_OK)
        return 1;
    CHECK(comm->local_size == comm->size && comm->local_rank == comm->rank);
    CHECK(comm->ops.barrier(comm) == ND_OK);
    for (int root = 0; root < comm->size; root++) {
        char text[64] = "";
        if (comm->rank == root)
            snprintf(text, sizeof text, "from %d", root);
        char expected[64];
        snprintf(expected, sizeof expected, "from %d", root);
        CHECK(comm->ops.broadcast(comm, text, sizeof text, root) == ND_OK);
        CHECK(strcmp(text, expected) == 0);
    }
    int all[comm->size];
    memset(all, 0, sizeof all);
    const int mine = comm->rank * comm->rank;
    CHECK(comm->ops.allgather(comm, all, &mine, sizeof mine) == ND_OK);
    for (int r = 0; r < comm->size; r++)
        CHECK(all[r] == r * r);
    check_reduction(comm, 1);
    check_reduction(comm, 1000);
    check_reduction(comm, 300007); /* more than one part */
    CHECK(comm->size == 1 || comm->bytes_sent > 0);
    nd_comm_destroy(comm);
    return 0;
}
