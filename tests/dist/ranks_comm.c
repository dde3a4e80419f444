/* Started under mpirun by test_comm.c: exercises every function of the contract and exits 0 when
 * all results are right on this rank. */
#include "core/base/sum_tree.h"
#include "dist/comm.h"
#include "dist/reduction/gradient_wire.h"
#include "dist/reduction/tree_reduction.h"
#include "dist/transport/point_to_point.h"
#include "dist/transport/wire_sizes.h"

#include <math.h>
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

enum { PERIOD = 1013 };

static float summand(int64_t leaf, int64_t i)
{
    return 1.0f / (float)(1 + leaf * 7 + i % PERIOD);
}

/* The tree's sum of leaves a..b-1, as the contract says it is formed. */
static float tree_sum(int64_t a, int64_t b, int64_t i)
{
    if (b - a == 1)
        return summand(a, i);
    const int64_t middle = a + nd_sum_tree_left(b - a);
    return tree_sum(a, middle, i) + tree_sum(middle, b, i);
}

/* Of leaves 0..leaves-1: element i has the sum [i % PERIOD], until the next call. */
static const float *tree_sums(int64_t leaves)
{
    static float sums[PERIOD];
    for (int64_t i = 0; i < PERIOD; i++)
        sums[i] = tree_sum(0, leaves, i);
    return sums;
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
    CHECK(comm->ops.reduce_to_owners(comm, (nd_comm_split){.leaves = part * comm->size}, list,
                                     pieces) == ND_OK);
    const float *sums = tree_sums(part * comm->size);
    for (int p = 0; p < pieces; p++) {
        CHECK((list[p].owner == comm->rank) == (list[p].result != NULL));
        for (int64_t i = 0; list[p].result && i < count; i++)
            CHECK(list[p].result[i] == sums[(i + p) % PERIOD]);
    }
    for (int i = 0; i < pieces * slot_count; i++)
        free(slots[i]);
    free(slots);
    free(list);
}

static char byte_at(size_t i, int root)
{
    return (char)(i * 31 + i / 4096 + (size_t)root);
}

/* From every root, in several parts with a short one at the end, in one, and in none. */
static void check_broadcasts(nd_comm *comm)
{
    static const size_t sizes[] = {0, 1, 5000, (size_t)9 * ND_WIRE_PART_BYTES + 77};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int root = 0; root < comm->size; root++) {
            char *data = calloc(1, sizes[s] + 1);
            CHECK(data);
            for (size_t i = 0; comm->rank == root && i < sizes[s]; i++)
                data[i] = byte_at(i, root);
            CHECK(comm->ops.broadcast(comm, data, sizes[s], root) == ND_OK);
            for (size_t i = 0; i < sizes[s]; i++)
                CHECK(data[i] == byte_at(i, root));
            CHECK(data[sizes[s]] == 0);
            free(data);
        }
}

static void check_long_allgather(nd_comm *comm)
{
    const size_t bytes = (size_t)5 * ND_WIRE_PART_BYTES + 3;
    char *mine = malloc(bytes), *all = malloc(bytes * (size_t)comm->size);
    CHECK(mine && all);
    for (size_t i = 0; i < bytes; i++)
        mine[i] = byte_at(i, comm->rank);
    CHECK(comm->ops.allgather(comm, all, mine, bytes) == ND_OK);
    for (int r = 0; r < comm->size; r++)
        for (size_t i = 0; i < bytes; i++)
            CHECK(all[(size_t)r * bytes + i] == byte_at(i, r));
    free(mine);
    free(all);
}

/* Parts of different lengths, some of them empty, to each rank in turn. */
static void check_gathers(nd_comm *comm)
{
    size_t *bytes = calloc((size_t)comm->size, sizeof *bytes), total = 0;
    CHECK(bytes);
    for (int r = 0; r < comm->size; r++)
        total += bytes[r] = r % 3 == 1 ? 0 : (size_t)r * ND_WIRE_PART_BYTES + 7;
    char *mine = malloc(bytes[comm->rank] + 1), *all = calloc(1, total + 1);
    CHECK(mine && all);
    for (size_t i = 0; i < bytes[comm->rank]; i++)
        mine[i] = byte_at(i, comm->rank);
    for (int root = 0; root < comm->size; root++) {
        memset(all, 0, total);
        CHECK(comm->ops.gather(comm, comm->rank == root ? all : NULL, mine, bytes, root) == ND_OK);
        const char *at = all;
        for (int r = 0; comm->rank == root && r < comm->size; at += bytes[r++])
            for (size_t i = 0; i < bytes[r]; i++)
                CHECK(at[i] == byte_at(i, r));
    }
    free(bytes);
    free(mine);
    free(all);
}

typedef nd_status (*broadcast_each)(nd_comm *comm, void *const *buffers, const size_t *bytes);

/* From every rank to all, in several parts from all but every third. */
static void check_broadcast_each(nd_comm *comm, broadcast_each broadcast)
{
    void *buffers[comm->size];
    size_t bytes[comm->size];
    for (int r = 0; r < comm->size; r++) {
        bytes[r] = r % 3 == 1 ? 0 : (size_t)(r + 7) * ND_WIRE_PART_BYTES + 5;
        char *data = buffers[r] = calloc(1, bytes[r] + 1);
        CHECK(data);
        for (size_t i = 0; comm->rank == r && i < bytes[r]; i++)
            data[i] = byte_at(i, r);
    }
    CHECK(broadcast(comm, buffers, bytes) == ND_OK);
    CHECK(comm->ops.finish(comm) == ND_OK);
    for (int r = 0; r < comm->size; r++) {
        for (size_t i = 0; i < bytes[r]; i++)
            CHECK(((char *)buffers[r])[i] == byte_at(i, r));
        free(buffers[r]);
    }
}

enum { BEGUN = 20, BEGUN_FLOATS = 140001, BEGUN_BYTES = 700001 };

/* Many reductions and broadcasts are begun; other collectives among them take their turn. */
static void check_what_is_begun(nd_comm *comm)
{
    static float sums[BEGUN][BEGUN_FLOATS];
    static char texts[BEGUN / 5][BEGUN_BYTES];
    float *slots[BEGUN];
    nd_comm_piece pieces[BEGUN];
    for (int p = 0; p < BEGUN; p++) {
        for (int64_t i = 0; i < BEGUN_FLOATS; i++)
            sums[p][i] = summand(comm->rank, i + p);
        slots[p] = sums[p];
        pieces[p] = (nd_comm_piece){
            .slots = &slots[p], .count = BEGUN_FLOATS, .owner = (p * 7) % comm->size};
    }
    for (int t = 0; t < BEGUN / 5; t++)
        for (size_t i = 0; t % comm->size == comm->rank && i < BEGUN_BYTES; i++)
            texts[t][i] = byte_at(i, t);
    for (int p = 0; p < BEGUN; p++) {
        CHECK(comm->ops.begin_reduction(comm, (nd_comm_split){.leaves = comm->size}, &pieces[p],
                                        1) == ND_OK);
        if (p % 5 == 0)
            CHECK(comm->ops.begin_broadcast(comm, texts[p / 5], BEGUN_BYTES, p / 5 % comm->size) ==
                  ND_OK);
        if (p == 6 || p == 15) {
            int all[comm->size];
            const int mine = comm->rank + p;
            memset(all, 0, sizeof all);
            CHECK(comm->ops.allgather(comm, all, &mine, sizeof mine) == ND_OK);
            for (int r = 0; r < comm->size; r++)
                CHECK(all[r] == r + p);
            CHECK(!pieces[p].result == (pieces[p].owner != comm->rank)); /* and p is done */
        }
    }
    CHECK(comm->ops.finish(comm) == ND_OK);
    CHECK(comm->ops.finish(comm) == ND_OK); /* of nothing */
    const float *expected = tree_sums(comm->size);
    for (int p = 0; p < BEGUN; p++)
        for (int64_t i = 0; pieces[p].result && i < BEGUN_FLOATS; i++)
            CHECK(pieces[p].result[i] == expected[(i + p) % PERIOD]);
    for (int t = 0; t < BEGUN / 5; t++)
        for (size_t i = 0; i < BEGUN_BYTES; i++)
            CHECK(texts[t][i] == byte_at(i, t));
}

/* A message of each rank's own length to a rank some way on, in between reductions; and one between
 * two ranks alone. */
static void check_exchanges(nd_comm *comm)
{
    static char out[3 * ND_WIRE_PART_BYTES], in[3 * ND_WIRE_PART_BYTES];
    float value = 1.0f, *slot = &value;
    const int size = comm->size, to = (comm->rank + 2) % size,
              from = (comm->rank + 2 * size - 2) % size;
    nd_comm_piece piece = {.slots = &slot, .count = 1, .owner = size - 1};
    nd_comm_exchange x = {.out = out,
                          .out_bytes = (size_t)comm->rank * ND_WIRE_PART_BYTES / 2 + 3,
                          .to = to,
                          .in = in,
                          .in_bytes = (size_t)from * ND_WIRE_PART_BYTES / 2 + 3,
                          .from = from};
    if (size > 5)
        return;
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = byte_at(i, comm->rank);
    CHECK(comm->ops.begin_exchange(comm, &x) == ND_OK);
    CHECK(comm->ops.begin_reduction(comm, (nd_comm_split){.leaves = size}, &piece, 1) == ND_OK);
    CHECK(comm->ops.finish(comm) == ND_OK);
    CHECK(!piece.result == (comm->rank != size - 1) &&
          (!piece.result || *piece.result == (float)size));
    for (size_t i = 0; size > 1 && i < x.in_bytes; i++)
        CHECK(in[i] == byte_at(i, from));
    x = (nd_comm_exchange){.out = out,
                           .out_bytes = comm->rank == size - 1 ? 99 : 0,
                           .to = 0,
                           .in = in,
                           .in_bytes = comm->rank == 0 ? 99 : 0,
                           .from = size - 1};
    CHECK(comm->ops.begin_exchange(comm, &x) == ND_OK && comm->ops.finish(comm) == ND_OK);
    for (size_t i = 0; size > 1 && comm->rank == 0 && i < 99; i++)
        CHECK(in[i] == byte_at(i, size - 1));
}

/* While the first is on its way the others queue, and are done together with the bits they have one
 * by one. */
static void check_queued(nd_comm *comm)
{
    enum { QUEUED = 24, FIRST_FLOATS = 1 << 22 };
    static float values[FIRST_FLOATS + QUEUED * BEGUN_FLOATS], *slots[QUEUED];
    nd_comm_piece pieces[QUEUED];
    const uint64_t before = comm->batches;
    memset(values, 0, sizeof values);
    for (int p = 0; p < QUEUED; p++) {
        slots[p] = p == 0 ? values : values + FIRST_FLOATS + p * BEGUN_FLOATS;
        for (int64_t i = 0; i < BEGUN_FLOATS; i++)
            slots[p][i] = summand(comm->rank, i + p);
        pieces[p] = (nd_comm_piece){.slots = &slots[p],
                                    .count = p == 0 ? FIRST_FLOATS : BEGUN_FLOATS,
                                    .owner = p % comm->size};
    }
    for (int p = 0; p < QUEUED; p++)
        CHECK(comm->ops.begin_reduction(comm, (nd_comm_split){.leaves = comm->size}, &pieces[p],
                                        1) == ND_OK);
    CHECK(comm->ops.finish(comm) == ND_OK);
    const float *sums = tree_sums(comm->size);
    for (int p = 0; p < QUEUED; p++) {
        CHECK(!pieces[p].result == (pieces[p].owner != comm->rank));
        for (int64_t i = 0; pieces[p].result && i < BEGUN_FLOATS; i++)
            CHECK(pieces[p].result[i] == sums[(i + p) % PERIOD]);
    }
    const uint64_t batches = comm->batches - before;
    CHECK(nd_comm_overlaps(comm) ? batches >= 1 && batches < QUEUED : batches == 0);
}

/* The same sum again and again, rounded on its way: each time it is near, and with what rounding
 * took added to the next, the mean is nearer by as much as there are rounds. */
static void check_rounded(nd_comm *comm, nd_gradient_wire format, int64_t count, int rounds)
{
    const nd_comm_split split = {.leaves = comm->size};
    const double unit = format == ND_GRADIENT_WIRE_INT8 ? 1.0 / 127.0 : 0x1p-8;
    float *values = malloc((size_t)count * sizeof *values), *slots[] = {values};
    void *residual = calloc(1, nd_gradient_residual_bytes(format, count));
    double *mean = calloc((size_t)count, sizeof *mean);
    const float *sums = tree_sums(comm->size);
    CHECK(values && residual && mean);
    for (int owner = 0; owner < comm->size; owner++) {
        const uint64_t before = comm->bytes_sent;
        memset(mean, 0, (size_t)count * sizeof *mean);
        memset(residual, 0, nd_gradient_residual_bytes(format, count));
        for (int round = 0; round < rounds; round++) {
            nd_comm_piece piece = {.slots = slots,
                                   .count = count,
                                   .owner = owner,
                                   .taker = owner,
                                   .format = format,
                                   .residual = residual};
            for (int64_t i = 0; i < count; i++)
                values[i] = summand(comm->rank, i);
            CHECK(comm->ops.reduce_to_owners(comm, split, &piece, 1) == ND_OK);
            CHECK((owner == comm->rank) == (piece.result != NULL));
            for (int64_t i = 0; piece.result && i < count; i++) {
                CHECK(fabsf(piece.result[i] - sums[i % PERIOD]) < 2.0 * unit * comm->size);
                mean[i] += (double)piece.result[i] / rounds;
            }
        }
        for (int64_t i = 0; comm->rank == owner && i < count; i++)
            CHECK(fabs(mean[i] - (double)sums[i % PERIOD]) < unit * comm->size / rounds + 1e-5);
        CHECK(comm->rank == owner || comm->bytes_sent - before ==
                                         rounds * (uint64_t)nd_gradient_wire_bytes(format, count));
    }
    free(values);
    free(residual);
    free(mean);
}

/* Messages of all ranks, counted, against nd_tree_sums and nd_tree_copies. */
static void check_sends(nd_comm *comm, int64_t part)
{
    const nd_comm_split split = {.leaves = part * comm->size};
    const int64_t first = part * comm->rank;
    const int slot_count = nd_sum_tree_slots(first, first + part);
    float values[slot_count], *slots[slot_count];
    uint64_t all[comm->size];
    memset(all, 0, sizeof all);
    for (int owner = 0; owner < comm->size; owner++) {
        for (int s = 0; s < slot_count; s++) {
            values[s] = 1.0f;
            slots[s] = &values[s];
        }
        nd_comm_piece piece = {.slots = slots, .count = 1, .owner = owner};
        const uint64_t before = comm->bytes_sent;
        CHECK(comm->ops.reduce_to_owners(comm, split, &piece, 1) == ND_OK);
        const uint64_t mine = comm->bytes_sent - before;
        CHECK(comm->ops.allgather(comm, all, &mine, sizeof mine) == ND_OK);
        uint64_t sent = 0;
        for (int r = 0; r < comm->size; r++)
            sent += all[r];
        const nd_tree tree = nd_tree_of(comm, split, &piece, 0);
        CHECK(sent == 4 * (uint64_t)(nd_tree_sums(&tree) + nd_tree_copies(&tree)));
    }
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
    check_reduction(comm, 3, 700007); /* more parts than are on their way at once */
    check_broadcasts(comm);
    check_long_allgather(comm);
    check_gathers(comm);
    check_broadcast_each(comm, nd_comm_broadcast_each);
    check_broadcast_each(comm, comm->ops.begin_broadcast_each);
    check_exchanges(comm);
    check_what_is_begun(comm);
    comm->overlap = true;
    CHECK(nd_comm_overlaps(comm) == (comm->size > 1));
    const double waited = comm->wait_seconds, busy = comm->busy_seconds;
    check_what_is_begun(comm);
    check_queued(comm);
    CHECK(comm->size == 1 || (comm->wait_seconds > waited && comm->busy_seconds > busy));
    CHECK(comm->size == 1 || comm->bytes_sent > 0);
    for (int64_t part = 1; part <= 6; part++)
        check_sends(comm, part);
    check_rounded(comm, ND_GRADIENT_WIRE_BF16, 5000, 50);
    check_rounded(comm, ND_GRADIENT_WIRE_INT8, 5000, 50);
    check_rounded(comm, ND_GRADIENT_WIRE_INT8, 1300007, 1); /* more than one message */
    nd_comm_destroy(comm);
    return 0;
}
