/* A directory is a data set when its index is whole and says what is there. */
#include "data/data_directory.h"
#include "data/dataset.h"
#include "data/pack/pack.h"
#include "data/shards/shard_writer.h"
#include "support/data_files.h"
#include "support/support.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char directory[64], output[16384];

static void set_up(void)
{
    strcpy(directory, nd_test_directory());
}

static void tear_down(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(data_directory, .init = set_up, .fini = tear_down);

static void write_two(void)
{
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    nd_test_write_counting_shard(directory, 1, 5000, 1000);
}

static void run(const char *command)
{
    cr_assert_eq(nd_test_shell(output, sizeof output, "cd %s && { %s; }", directory, command), 0,
                 "%s: %s", command, output);
}

static void assert_refused(const char *reason)
{
    const nd_dataset_options options = {
        .path = directory, .split = "train", .seq_length = 100, .vocab_size = 65536};
    nd_dataset *dataset;
    int64_t tokens, windows;
    ND_ASSERT_FAILS(nd_dataset_open(&options, &dataset), ND_EDATA, reason);
    ND_ASSERT_FAILS(nd_dataset_measure(directory, "val", 100, &tokens, &windows), ND_EDATA, reason);
    cr_assert_eq(nd_test_shell(output, sizeof output, "'%s' info %s", ND_BINARY, directory), 3);
    cr_assert(strstr(output, reason) != NULL, "\"%s\" lacks \"%s\"", output, reason);
}

Test(data_directory, without_an_index_is_refused_and_gets_one_from_pack)
{
    write_two();
    run("rm index.json");
    assert_refused("train_00000.h5: 2 shards here, but no index.json, which pack writes last");
    cr_assert_eq(nd_test_shell(output, sizeof output, "'%s' pack --index %s", ND_BINARY, directory),
                 0, "%s", output);
    cr_assert_eq(
        nd_test_shell(output, sizeof output, "'%s' info --verify %s", ND_BINARY, directory), 0,
        "%s", output);
    cr_assert(strstr(output, "2000 tokens, 2 documents, 2 shards") != NULL, "%s", output);
}

Test(data_directory, that_an_interrupted_pack_left_is_refused)
{
    run("mkdir " ND_PACK_STAGING);
    assert_refused("a pack is still running here or was interrupted");
    write_two();
    run("rm index.json; touch train_00002.h5.tmp");
    assert_refused("(it left train_00002.h5.tmp); run it again with --overwrite");
    size_t shards;
    ND_ASSERT_FAILS(nd_pack_index(directory, &shards), ND_EDATA, "left by an interrupted pack");
}

Test(data_directory, that_was_not_copied_whole_is_refused)
{
    write_two();
    run("rm train_00001.h5");
    assert_refused("train_00001.h5: missing; index.json lists this shard of");
    write_two();
    run("truncate -s -1 train_00001.h5");
    assert_refused("by index.json: cut short, or of another data set");
    write_two();
    run("truncate -s -10 index.json");
    assert_refused("not JSON, or incomplete");
    run(": > index.json");
    assert_refused("index.json:1: not JSON, or incomplete");
}

Test(data_directory, with_a_shard_that_the_index_does_not_list_is_refused)
{
    write_two();
    run("cp train_00000.h5 train_00007.h5");
    assert_refused("train_00007.h5: a shard that index.json does not list");
    size_t shards;
    ND_ASSERT_OK(nd_pack_index(directory, &shards));
    cr_assert_eq(shards, 3);
}

Test(data_directory, whose_shard_has_other_counts_than_the_index_says_is_refused)
{
    write_two();
    run("sed -i '0,/\"n_tokens\": 1000/s//\"n_tokens\": 900/' index.json");
    const nd_dataset_options options = {
        .path = directory, .split = "train", .seq_length = 100, .vocab_size = 65536};
    nd_dataset *dataset;
    ND_ASSERT_FAILS(nd_dataset_open(&options, &dataset), ND_EDATA,
                    "train_00000.h5: 1000 tokens in 1 documents; expected 900 in 1 by index.json");
}

Test(data_directory, that_cannot_be_looked_into_is_not_empty)
{
    if (geteuid() == 0)
        run("ln -s loop loop"); /* root may read everything; ELOOP stands for what fails */
    nd_data_directory d;
    char path[128];
    snprintf(path, sizeof path, "%s/loop/x", directory);
    ND_ASSERT_FAILS(nd_data_directory_open(path, &d), ND_EDATA, strerror(ELOOP));
}

Test(data_directory, whose_shard_has_other_bytes_is_found_by_verify)
{
    write_two();
    run("printf x | dd of=train_00001.h5 bs=1 seek=6000 conv=notrunc status=none");
    cr_assert_eq(nd_test_shell(output, sizeof output, "'%s' info %s", ND_BINARY, directory), 0);
    cr_assert_eq(
        nd_test_shell(output, sizeof output, "'%s' info --verify %s", ND_BINARY, directory), 3);
    cr_assert(strstr(output, "train_00001.h5: its SHA-256 is") != NULL, "%s", output);
    size_t shards;
    ND_ASSERT_FAILS(nd_pack_index(directory, &shards), ND_EDATA, "train_00001.h5: chunk 0");
}

Test(data_directory, of_two_tokenizers_gets_no_index)
{
    size_t shards;
    const int32_t tokens[300] = {0};
    char path[128];
    write_two();
    snprintf(path, sizeof path, "%s/val_00000.h5", directory);
    nd_test_write_shard(path, 65536,
                        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "val",
                        tokens, 300);
    ND_ASSERT_FAILS(nd_pack_index(directory, &shards), ND_EDATA, "packed with the tokenizer of");
}

Test(data_directory, with_a_name_that_no_index_can_hold_gets_none)
{
    static const char *const names[] = {"train_\n.h5", "train_\xff.h5", "val_0.h5"};
    size_t shards;
    for (int i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        nd_test_write_counting_shard(directory, 0, 0, 1000);
        cr_assert_eq(rename(nd_test_path(directory, "train_00000.h5"), path), 0);
        unlink(nd_test_path(directory, "index.json"));
        ND_ASSERT_FAILS(nd_pack_index(directory, &shards), ND_EDATA,
                        "expected a name in UTF-8, without control characters, that begins with "
                        "the file's attribute split, 'train'");
        unlink(path);
    }
}

Test(data_directory, may_hold_more_shards_than_files_may_be_open)
{
    enum { SHARDS = 100 };
    char path[128];
    int32_t tokens[11], window[11];
    for (int i = 0; i < SHARDS; i++) {
        nd_shard_writer *writer;
        for (int t = 0; t < 11; t++)
            tokens[t] = 100 * i + t;
        snprintf(path, sizeof path, "%s/train_%05d.h5", directory, i);
        ND_ASSERT_OK(nd_shard_writer_open(path, 65536, ND_TEST_SHA, "train", &writer));
        ND_ASSERT_OK(nd_shard_writer_add(writer, tokens, 11));
        ND_ASSERT_OK(nd_shard_writer_end_document(writer, 11));
        ND_ASSERT_OK(nd_shard_writer_finish(writer));
    }
    nd_test_index(directory);
    const struct rlimit few = {40, 40};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    const nd_dataset_options options = {
        .path = directory, .split = "train", .seq_length = 10, .vocab_size = 65536};
    nd_dataset *dataset;
    ND_ASSERT_OK(nd_dataset_open(&options, &dataset));
    for (uint64_t i = 0; i < 3 * SHARDS; i++) {
        const uint32_t at = nd_test_random(1, i, SHARDS);
        ND_ASSERT_OK(nd_dataset_read_window(dataset, at, window));
        cr_assert_eq(window[3], 100 * (int32_t)at + 3);
    }
    nd_dataset_close(dataset);
}

Test(data_directory, whose_shard_is_replaced_while_it_is_used_is_an_error)
{
    const struct rlimit few = {24, 24}; /* of which 6 shards stay open */
    int32_t window[101];
    nd_dataset *dataset;
    for (int i = 0; i < 12; i++)
        nd_test_write_counting_shard(directory, i, 0, 101);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    const nd_dataset_options options = {
        .path = directory, .split = "train", .seq_length = 100, .vocab_size = 65536};
    ND_ASSERT_OK(nd_dataset_open(&options, &dataset));
    for (int64_t i = 0; i < 12; i++)
        ND_ASSERT_OK(nd_dataset_read_window(dataset, i, window));
    run("cp train_00000.h5 other && mv other train_00000.h5");
    ND_ASSERT_FAILS(nd_dataset_read_window(dataset, 0, window), ND_EDATA,
                    "train_00000.h5: replaced since it was first opened");
    nd_dataset_close(dataset);
}

/* As Lustre without flock and some NFS mounts. */
Test(data_directory, needs_no_file_locks)
{
    write_two();
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "env ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=%s "
                               "ND_IO_FAULT=nolock:1:/ '%s' info --verify %s",
                               ND_IO_FAULTS, ND_BINARY, directory),
                 0, "%s", output);
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "env ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=%s "
                               "ND_IO_FAULT=nolock:1:/ '%s' pack --index %s",
                               ND_IO_FAULTS, ND_BINARY, directory),
                 0, "%s", output);
}

/* A disk's error is none of the shard. */
Test(data_directory, that_cannot_be_read_is_not_called_damaged)
{
    int errors = 0;
    write_two();
    for (int call = 1; call < 20; call++) {
        const int code = nd_test_shell(output, sizeof output,
                                       "env LD_PRELOAD=%s ND_IO_FAULT=eio:%d:%s '%s' info "
                                       "%s/train_00000.h5",
                                       ND_IO_FAULTS, call, directory, ND_BINARY, directory);
        errors += code != 0;
        cr_assert(strstr(output, "damaged") == NULL && strstr(output, "not an HDF5") == NULL, "%s",
                  output);
    }
    cr_assert_gt(errors, 0);
}

/* Numbers of a shard that no file can hold. */
Test(data_directory, whose_shard_claims_more_tokens_than_its_file_has_bytes_is_refused)
{
    char path[128];
    const hsize_t extent = (hsize_t)1 << 62;
    const int64_t number = (int64_t)extent;
    nd_shard shard;
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    snprintf(path, sizeof path, "%s/train_00000.h5", directory);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t tokens = H5Dopen2(file, "tokens", H5P_DEFAULT);
    const hid_t attribute = H5Aopen(file, "n_tokens", H5P_DEFAULT);
    cr_assert(H5Dset_extent(tokens, &extent) >= 0);
    H5Awrite(attribute, H5T_NATIVE_INT64, &number);
    H5Aclose(attribute);
    H5Dclose(tokens);
    H5Fclose(file);
    ND_ASSERT_FAILS(nd_shard_open(path, &shard), ND_EDATA,
                    "n_tokens is 4611686018427387904, more than fit the file's");
}

Test(data_directory, whose_shard_claims_more_documents_than_tokens_is_refused)
{
    char path[128];
    const hsize_t extent = (hsize_t)1 << 60;
    const uint64_t last = 1000;
    nd_shard shard;
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    snprintf(path, sizeof path, "%s/train_00000.h5", directory);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t offsets = H5Dopen2(file, "doc_offsets", H5P_DEFAULT);
    const hsize_t at = extent - 1, one = 1;
    cr_assert(H5Dset_extent(offsets, &extent) >= 0);
    const hid_t space = H5Dget_space(offsets), memory = H5Screate_simple(1, &one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, NULL, &one, NULL);
    cr_assert(H5Dwrite(offsets, H5T_NATIVE_UINT64, memory, space, H5P_DEFAULT, &last) >= 0);
    H5Sclose(space);
    H5Sclose(memory);
    H5Dclose(offsets);
    H5Fclose(file);
    ND_ASSERT_FAILS(nd_shard_open(path, &shard), ND_EDATA,
                    "/doc_offsets holds 1152921504606846976 numbers");
}
