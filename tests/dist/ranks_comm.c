/* Started under mpirun by test_comm.c: exercises every function of the contract and exits 0 when all
 * results are right on this rank. */
#include "core/sum_tree.h"
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

static float summand(int64_t leaf, int64_t i)
{
    return 1.0f / (float)(1 + leaf * 7 + i % 1013);
}

/* The tree's sum of leaves a..b-1, as the contract says it is formed. */
static float tree_sum(int64_t a, int64_t b, int64_t i)
{
    if (b - a == 1)
        return summand(a, i);
    const int64_t middle = a + nd_sum_tree_left(b - a);
    return tree_sum(a, middle, i) + tree_sum(middle, b, i);
}

/* Each rank holds `part` leaves, adds them up as a training step does, and the ranks reduce. */
static void check_reduction(nd_comm *comm, int64_t part, int64_t count)
{
    const int64_t first = part * comm->rank;
    const int slot_count = nd_sum_tree_slots(first, first + part), pieces = comm->size + 1;
    float **slots = calloc((size_t)(pieces * slot_count), sizeof *slots);
    nd_comm_piece *list = calloc((size_t)pieces, sizeof *list);
    CHECK(slots && list);
    for (int p = 0; p < pieces; p++) {
        float **own = slots + p * slot_count;
        for (int s = 0; s < slot_count; s++)
            own[s] = malloc((size_t)count * sizeof **own);
        int depth = 0;
        for (int64_t leaf = first; leaf < first + part; leaf++) {
            for (int64_t i = 0; i < count; i++)
                own[depth][i] = summand(leaf, i + p);
            const int merges = nd_sum_tree_merges(first, leaf);
            for (int upper = depth; upper > depth - merges; upper--)
                for (int64_t i = 0; i < count; i++)
                    own[upper - 1][i] += own[upper][i];
            depth += 1 - merges;
        }
        list[p] = (nd_comm_piece){.slots = own, .count = count, .owner = p % comm->size};
    }
    CHECK(comm->ops.reduce_to_owners(comm, (nd_comm_split){part * comm->size}, list, pieces) ==
          ND_OK);
    for (int p = 0; p < pieces; p++) {
        CHECK((list[p].owner == comm->rank) == (list[p].result != NULL));
        for (int64_t i = 0; list[p].result && i < count; i++)
            CHECK(list[p].result[i] == tree_sum(0, part * comm->size, i + p));
    }
    for (int i = 0; i < pieces * slot_count; i++)
        free(slots[i]);
    free(slots);
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
    for (int64_t part = 1; part <= 13; part++)
        check_reduction(comm, part, 100);
    check_reduction(comm, 3, 300007); /* more than one message */
    CHECK(comm->size == 1 || comm->bytes_sent > 0);
    nd_comm_destroy(comm);
    return 0;
}
