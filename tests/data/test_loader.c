#include "data/loader.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEQ_LENGTH = 16, WINDOWS = 101 };

static const char *directory;
static nd_dataset *dataset;

/* Two shards of counting tokens: the first token of a window tells which window it is. */
static void set_up(void)
{
    directory = nd_test_directory();
    nd_test_write_counting_shard(directory, 0, 0, SEQ_LENGTH * 60 + 1);
    nd_test_write_counting_shard(directory, 1, SEQ_LENGTH * 60, SEQ_LENGTH * 41 + 1);
    const nd_dataset_options options = {
        .path = directory, .split = "train", .seq_length = SEQ_LENGTH, .vocab_size = 65536};
    ND_ASSERT_OK(nd_dataset_open(&options, &dataset));
    cr_assert_eq(nd_dataset_window_count(dataset), WINDOWS);
}

static void tear_down(void)
{
    nd_dataset_close(dataset);
    nd_test_remove_directory(directory);
}

TestSuite(loader, .init = set_up, .fini = tear_down);

static nd_loader_options whole_batches(int64_t batch_size, bool async)
{
    return (nd_loader_options){.dataset = dataset,
                               .seed = 42,
                               .shuffle = true,
                               .batch_size = batch_size,
                               .count = batch_size,
                               .async = async,
                               .workers = 3,
                               .prefetch_batches = 4};
}

/* The windows of `batches` batches, in order, to windows[batches * count]. */
static void read_windows(nd_loader_options options, int batches, int64_t *windows)
{
    nd_loader *loader;
    ND_ASSERT_OK(nd_loader_open(&options, &loader));
    for (int b = 0; b < batches; b++) {
        const int32_t *tokens;
        ND_ASSERT_OK(nd_loader_next(loader, &tokens, NULL));
        for (int64_t i = 0; i < options.count; i++) {
            const int32_t *row = tokens + i * (SEQ_LENGTH + 1);
            for (int j = 0; j <= SEQ_LENGTH; j++)
                cr_assert_eq(row[j], row[0] + j, "batch %d, row %ld, token %d", b, i, j);
            windows[b * options.count + i] = row[0] / SEQ_LENGTH;
        }
    }
    nd_loader_close(loader);
}

Test(loader, an_epoch_gives_every_window_once)
{
    int64_t windows[WINDOWS];
    int seen[WINDOWS] = {0};
    read_windows(whole_batches(1, true), WINDOWS, windows);
    for (int i = 0; i < WINDOWS; i++)
        cr_assert_eq(seen[windows[i]]++, 0, "window %ld came twice", windows[i]);
}

Test(loader, epochs_are_shuffled_anew)
{
    int64_t windows[2 * WINDOWS];
    int equal = 0;
    read_windows(whole_batches(1, true), 2 * WINDOWS, windows);
    for (int i = 0; i < WINDOWS; i++)
        equal += windows[i] == windows[WINDOWS + i];
    cr_assert_lt(equal, 10, "%d of %d windows at the same place", equal, WINDOWS);
}

Test(loader, asynchronous_batches_equal_synchronous_ones)
{
    int64_t with[60 * 7], without[60 * 7];
    read_windows(whole_batches(7, true), 60, with);
    read_windows(whole_batches(7, false), 60, without);
    cr_assert_arr_eq(with, without, sizeof with);
}

Test(loader, any_number_of_ranks_reads_the_same_global_batches)
{
    enum { BATCH = 12, BATCHES = 20 };
    int64_t whole[BATCHES * BATCH], part[BATCHES * BATCH];
    read_windows(whole_batches(BATCH, true), BATCHES, whole);
    for (int size = 1; size <= 4; size++) {
        for (int rank = 0; rank < size; rank++) {
            nd_loader_options options = whole_batches(BATCH, true);
            options.count = BATCH / size;
            options.first = rank * options.count;
            read_windows(options, BATCHES, part);
            for (int b = 0; b < BATCHES; b++) {
                for (int64_t i = 0; i < options.count; i++)
                    cr_assert_eq(part[b * options.count + i], whole[b * BATCH + options.first + i],
                                 "%d ranks, rank %d, batch %d, row %ld", size, rank, b, i);
            }
        }
    }
}

Test(loader, resuming_at_a_position_equals_the_uninterrupted_run)
{
    int64_t whole[50 * 6], rest[30 * 6];
    nd_loader_options options = whole_batches(6, true);
    read_windows(options, 50, whole);
    options.start_sample = 20 * 6;
    read_windows(options, 30, rest);
    cr_assert_arr_eq(rest, whole + 20 * 6, sizeof rest);
}

Test(loader, without_shuffling_windows_come_in_order)
{
    int64_t windows[3 * 50];
    nd_loader_options options = whole_batches(50, true);
    options.shuffle = false;
    read_windows(options, 3, windows);
    for (int i = 0; i < 150; i++)
        cr_assert_eq(windows[i], i % WINDOWS);
}

Test(loader, another_seed_is_another_order)
{
    int64_t a[100], b[100];
    nd_loader_options options = whole_batches(1, false);
    read_windows(options, 100, a);
    options.seed = 43;
    read_windows(options, 100, b);
    cr_assert_arr_neq(a, b, sizeof a);
}

Test(loader, a_batch_larger_than_the_data_goes_on_in_the_next_epoch)
{
    int64_t windows[250];
    read_windows(whole_batches(250, true), 1, windows);
    int seen[WINDOWS] = {0};
    for (int i = 0; i < 2 * WINDOWS; i++)
        seen[windows[i]]++;
    for (int i = 0; i < WINDOWS; i++)
        cr_assert_eq(seen[i], 2);
}

Test(loader, closing_while_workers_are_busy_ends_at_once, .timeout = 20)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        nd_loader *loader;
        const int32_t *tokens;
        nd_loader_options options = whole_batches(64, true);
        options.workers = 1 + (int)nd_test_random(seed, 0, 4);
        ND_ASSERT_OK(nd_loader_open(&options, &loader));
        for (uint32_t i = nd_test_random(seed, 1, 4); i > 0; i--)
            ND_ASSERT_OK(nd_loader_next(loader, &tokens, NULL));
        if (nd_test_random(seed, 2, 2))
            usleep(nd_test_random(seed, 3, 300));
        nd_loader_close(loader);
    }
}

Test(loader, a_slow_caller_finds_the_prefetched_batches_ready)
{
    nd_loader *loader;
    const int32_t *tokens;
    double wait_ms = -1;
    const nd_loader_options options = whole_batches(32, true);
    ND_ASSERT_OK(nd_loader_open(&options, &loader));
    ND_ASSERT_OK(nd_loader_next(loader, &tokens, &wait_ms));
    cr_assert(wait_ms >= 0);
    for (int tries = 0; tries < 20;
         tries++) { /* a busy machine may have kept the workers waiting */
        usleep(200000);
        ND_ASSERT_OK(nd_loader_next(loader, &tokens, &wait_ms));
        if (wait_ms < 50.0)
            break;
    }
    cr_assert_lt(wait_ms, 50.0, "waited %.1f ms for a batch read ahead", wait_ms);
    nd_loader_close(loader);
}

Test(loader, a_batch_stays_until_the_next_call)
{
    nd_loader *loader;
    const int32_t *tokens;
    int32_t copy[8 * (SEQ_LENGTH + 1)];
    const nd_loader_options options = whole_batches(8, true);
    ND_ASSERT_OK(nd_loader_open(&options, &loader));
    for (int i = 0; i < 20; i++) {
        ND_ASSERT_OK(nd_loader_next(loader, &tokens, NULL));
        memcpy(copy, tokens, sizeof copy);
        usleep(2000); /* workers read on meanwhile */
        cr_assert_arr_eq(tokens, copy, sizeof copy);
    }
    nd_loader_close(loader);
}

Test(loader, a_rank_without_samples_gets_empty_batches)
{
    nd_loader *loader;
    const int32_t *tokens;
    nd_loader_options options = whole_batches(2, true);
    options.first = 2;
    options.count = 0;
    ND_ASSERT_OK(nd_loader_open(&options, &loader));
    ND_ASSERT_OK(nd_loader_next(loader, &tokens, NULL));
    nd_loader_close(loader);
}

static void assert_error_arrives(bool async)
{
    char path[4096], other[2048];
    int32_t tokens[SEQ_LENGTH * 20 + 1] = {0};
    tokens[SEQ_LENGTH * 10 + 3] = 5000; /* window 10 */
    snprintf(other, sizeof other, "%.2000s/other", directory);
    cr_assert_eq(mkdir(other, 0777), 0);
    snprintf(path, sizeof path, "%s/val_00000.h5", other);
    nd_test_write_shard(path, 300, ND_TEST_SHA, "val", tokens, SEQ_LENGTH * 20 + 1);
    nd_dataset *bad;
    nd_loader *loader;
    const int32_t *batch;
    const nd_dataset_options options = {
        .path = other, .split = "val", .seq_length = SEQ_LENGTH, .vocab_size = 300};
    ND_ASSERT_OK(nd_dataset_open(&options, &bad));
    nd_loader_options how = whole_batches(4, async);
    how.dataset = bad;
    how.shuffle = false;
    ND_ASSERT_OK(nd_loader_open(&how, &loader));
    ND_ASSERT_OK(nd_loader_next(loader, &batch, NULL));
    ND_ASSERT_OK(nd_loader_next(loader, &batch, NULL));
    for (int attempt = 0; attempt < 2; attempt++)
        ND_ASSERT_FAILS(nd_loader_next(loader, &batch, NULL), ND_EDATA,
                        "val_00000.h5: token 163 is 5000");
    nd_loader_close(loader);
    nd_dataset_close(bad);
}

Test(loader, an_error_of_a_worker_reaches_the_caller_at_its_batch, .timeout = 20)
{
    assert_error_arrives(true);
}

Test(loader, an_error_of_the_synchronous_path_is_the_same, .timeout = 20)
{
    assert_error_arrives(false);
}

Test(loader, a_part_outside_the_batch_is_refused)
{
    nd_loader *loader;
    nd_loader_options options = whole_batches(8, false);
    options.first = 1;
    ND_ASSERT_FAILS(nd_loader_open(&options, &loader), ND_ECONFIG,
                    "samples 1 to 9 of a batch of 8");
}

Test(loader, no_workers_are_refused)
{
    nd_loader *loader;
    nd_loader_options options = whole_batches(8, true);
    options.workers = 0;
    ND_ASSERT_FAILS(nd_loader_open(&options, &loader), ND_ECONFIG, "num_workers is 0");
}

Test(loader, memory_is_that_of_the_batches_held)
{
    nd_loader *loader;
    const nd_loader_options options = whole_batches(8, true);
    ND_ASSERT_OK(nd_loader_open(&options, &loader));
    cr_assert_eq(nd_loader_bytes(loader), (size_t)(5 * 8 * (SEQ_LENGTH + 1) * 4));
    nd_loader_close(loader);
}
