/* How fast the loader turns shards into batches, beside a plain copy of the same memory and a
 * sequential read through HDF5. Every way reads the same number of tokens; the page cache is warm.
 *
 *     bench_loader DIR [--seq-length N] [--batch-size N] [--workers N]
 */
#include "bench_run.h"

#include "cli/args.h"
#include "core/base/clock.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/shards/shard.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EPOCHS = 4, PREFETCH = 8 };

typedef struct setting {
    const char *directory;
    nd_shard first; /* train_00000.h5 */
    int64_t seq_length, batch_size;
    int workers;
} setting;

static void print_row(const char *name, int64_t tokens, double seconds)
{
    printf("%-44s %10.1f M tokens/s\n", name, (double)tokens / seconds * 1e-6);
}

static nd_status time_memcpy(const setting *s)
{
    const size_t count = (size_t)s->first.n_tokens;
    ND_AUTOFREE int32_t *from = calloc(count, sizeof *from);
    ND_AUTOFREE int32_t *to = calloc(count, sizeof *to);
    ND_FAIL_IF(!from || !to, ND_ENOMEM, "no memory for %zu tokens", count);
    memset(from, 1, count * sizeof *from);
    memset(to, 2, count * sizeof *to);
    const double start = nd_seconds();
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        from[epoch] = epoch; /* the copies differ, so that none is left out */
        memcpy(to, from, count * sizeof *to);
    }
    print_row("memcpy of int32 tokens", EPOCHS * (int64_t)count,
              nd_seconds() - start + 1e-9 * to[0]);
    return ND_OK;
}

static nd_status time_hdf5(const setting *s)
{
    int32_t *tokens = malloc(ND_SHARD_CHUNK_TOKENS * sizeof *tokens);
    const hid_t file = H5Fopen(s->first.path, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, ND_SHARD_TOKENS, H5P_DEFAULT);
    const hid_t space = H5Dget_space(dataset);
    int64_t done = 0;
    const double start = nd_seconds();
    for (hsize_t first = 0; tokens && first < (hsize_t)s->first.n_tokens;) {
        const hsize_t left = (hsize_t)s->first.n_tokens - first;
        const hsize_t count = left < ND_SHARD_CHUNK_TOKENS ? left : ND_SHARD_CHUNK_TOKENS;
        const hid_t memory = H5Screate_simple(1, &count, NULL);
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, NULL, &count, NULL);
        if (H5Dread(dataset, H5T_NATIVE_INT32, memory, space, H5P_DEFAULT, tokens) < 0)
            break;
        H5Sclose(memory);
        first += count;
        done += (int64_t)count;
    }
    print_row("H5Dread in sequence, chunk by chunk", done, nd_seconds() - start);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
    free(tokens);
    return ND_CHECK(done == s->first.n_tokens, ND_EDATA, "%s: H5Dread", s->first.path);
}

/* The dataset is opened anew, so that every chunk's checksum is verified within the time. */
static nd_status time_loader(const setting *s, bool async, int workers, const char *name)
{
    nd_dataset *dataset;
    nd_loader *loader;
    const nd_dataset_options options = {.path = s->directory,
                                        .split = "train",
                                        .seq_length = s->seq_length,
                                        .vocab_size = s->first.vocab_size};
    ND_TRY(nd_dataset_open(&options, &dataset));
    const nd_loader_options how = {.dataset = dataset,
                                   .seed = 1,
                                   .shuffle = true,
                                   .batch_size = s->batch_size,
                                   .count = s->batch_size,
                                   .async = async,
                                   .workers = workers,
                                   .prefetch_batches = PREFETCH};
    nd_status status = nd_loader_open(&how, &loader);
    const int64_t batches = EPOCHS * nd_dataset_window_count(dataset) / s->batch_size;
    const int32_t *tokens;
    const double start = nd_seconds();
    for (int64_t i = 0; status == ND_OK && i < batches; i++)
        status = nd_loader_next(loader, &tokens, NULL);
    if (status == ND_OK)
        print_row(name, batches * s->batch_size * s->seq_length, nd_seconds() - start);
    nd_loader_close(loader);
    nd_dataset_close(dataset);
    return status;
}

static nd_status run(setting *s)
{
    char name[64];
    ND_TRY(time_memcpy(s));
    ND_TRY(time_hdf5(s));
    ND_TRY(time_hdf5(s)); /* again: the first may have met a cold page cache */
    ND_TRY(time_loader(s, false, 0, "loader, synchronous"));
    for (int workers = 1; workers <= s->workers; workers++) {
        snprintf(name, sizeof name, "loader, %d worker%s", workers, workers > 1 ? "s" : "");
        ND_TRY(time_loader(s, true, workers, name));
    }
    return ND_OK;
}

static nd_status bench(int argc, char **argv)
{
    char path[4096];
    setting s = {.seq_length = 2048, .batch_size = 16};
    int64_t workers = 4;
    nd_arg_rest directories;
    const nd_arg args[] = {
        {"--seq-length", ND_ARG_INT, &s.seq_length, "N", "tokens of a window (2048)"},
        {"--batch-size", ND_ARG_INT, &s.batch_size, "N", "windows of a batch (16)"},
        {"--workers", ND_ARG_INT, &workers, "N", "the most of them (4)"},
    };
    const nd_command command = {"bench_loader DIR [options]",
                                "Speed of the loader beside memcpy and HDF5.", args,
                                sizeof args / sizeof *args};
    ND_ARGS_PARSE(command, argc, argv, &directories);
    ND_FAIL_IF(directories.count != 1, ND_ECONFIG,
               "bench_loader needs one directory of shards (see --help)");
    s.directory = directories.items[0];
    s.workers = (int)workers;
    snprintf(path, sizeof path, "%s/train_00000.h5", s.directory);
    ND_TRY(nd_shard_open(path, &s.first));
    printf("%s: %lld tokens; windows of %lld, batches of %lld, %d epochs, shuffled\n", path,
           (long long)s.first.n_tokens, (long long)s.seq_length, (long long)s.batch_size, EPOCHS);
    const nd_status status = run(&s);
    nd_shard_close(&s.first);
    return status;
}

int main(int argc, char **argv)
{
    return bench_exit("bench_loader", bench(argc, argv));
}
