/* The comm contract under mpirun with up to 8 ranks, under a sanitizer up to 3, and alone. */
#include "dist/reduction/part_schedule.h"
#include "support/run_files.h"
#include "support/support.h"

static void run_ranks(int ranks)
{
    char output[4096];
    const int code =
        nd_test_mpirun(output, sizeof output, ranks, "%s/ranks_comm", ND_TEST_PROGRAMS);
    cr_assert_eq(code, 0, "%d ranks: exit %d: %s", ranks, code, output);
}

Test(comm, all_functions_hold_their_contract_on_1_to_8_ranks)
{
    static const int sizes[] = {1, 2, 3, 4, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && sizes[i] <= ND_TEST_RANKS_MAX; i++)
        run_ranks(sizes[i]);
}

Test(comm, a_process_started_alone_needs_no_launcher)
{
    char output[4096];
    const int code = nd_test_shell(output, sizeof output, "%s/ranks_comm", ND_TEST_PROGRAMS);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

enum { RANKS = 4, PIECES = 5, FIRST_PIECES = 3 };

/* Bytes that `rank` receives from each other in the reduction of these pieces. */
static void count_received(int rank, nd_comm_piece *pieces, int64_t count, size_t from[RANKS])
{
    const nd_comm comm = {.rank = rank, .size = RANKS, .local_size = 1};
    nd_part_schedule schedule = {0};
    cr_assert_eq(nd_part_schedule_make(&schedule, &comm, 1 << 18, (nd_comm_split){.leaves = RANKS},
                                       pieces, count),
                 ND_OK);
    for (int64_t i = 0; i < schedule.count; i++) {
        const nd_part_act *a = &schedule.acts[i];
        if (a->tree.kind == ND_TREE_RECEIVE || a->tree.kind == ND_TREE_TAKE)
            from[a->tree.peer] += a->bytes;
    }
    nd_part_schedule_destroy(&schedule);
}

Test(comm, merged_reductions_send_what_they_send_one_by_one)
{
    static const int64_t counts[PIECES] = {300000, 20000, 65536, 229376, 200000};
    float *const slots[1] = {NULL};
    nd_comm_piece pieces[PIECES];
    for (int p = 0; p < PIECES; p++)
        pieces[p] = (nd_comm_piece){
            .slots = slots, .count = counts[p], .owner = p % RANKS, .taker = p % RANKS};
    for (int rank = 0; rank < RANKS; rank++) {
        size_t apart[RANKS] = {0}, merged[RANKS] = {0};
        count_received(rank, pieces, FIRST_PIECES, apart);
        count_received(rank, pieces + FIRST_PIECES, PIECES - FIRST_PIECES, apart);
        for (int p = 0; p < PIECES; p++)
            pieces[p].merged = p >= FIRST_PIECES;
        count_received(rank, pieces, PIECES, merged);
        for (int peer = 0; peer < RANKS; peer++)
            cr_assert_eq(merged[peer], apart[peer], "%d from %d: %zu merged, %zu one by one", rank,
                         peer, merged[peer], apart[peer]);
    }
}
