#include "data/dataset.h"
#include "data/shards/shard.h"
#include "data/shards/shard_info.h"
#include "data/synthetic.h"
#include "support/data_files.h"
#include "support/support.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OTHER_SHA "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"

static const char *directory;

static void set_up(void)
{
    directory = nd_test_directory();
}

static void tear_down(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(shards, .init = set_up, .fini = tear_down);

static nd_dataset_options options_for(int64_t seq_length)
{
    return (nd_dataset_options){
        .path = directory, .split = "train", .seq_length = seq_length, .vocab_size = 65536};
}

static FILE *nowhere(void)
{
    return fopen("/dev/null", "w");
}

static nd_status open_and_read_all(const nd_dataset_options *options)
{
    nd_dataset *dataset;
    ND_TRY(nd_dataset_open(options, &dataset));
    int32_t *tokens = malloc((size_t)(options->seq_length + 1) * sizeof *tokens);
    nd_status status = ND_OK;
    for (int64_t i = 0; status == ND_OK && i < nd_dataset_window_count(dataset); i++)
        status = nd_dataset_read_window(dataset, i, tokens);
    free(tokens);
    nd_dataset_close(dataset);
    return status;
}

Test(shards, windows_start_every_seq_length_tokens_and_share_their_last)
{
    int32_t tokens[101];
    nd_dataset *dataset;
    nd_test_write_counting_shard(directory, 0, 0, 70001); /* two chunks */
    const nd_dataset_options options = options_for(100);
    ND_ASSERT_OK(nd_dataset_open(&options, &dataset));
    cr_assert_eq(nd_dataset_window_count(dataset), 700);
    cr_assert_eq(nd_dataset_token_count(dataset), 70001);
    cr_assert_eq(nd_dataset_text_bytes(dataset), 3 * 70001);
    cr_assert_str_eq(nd_dataset_tokenizer_sha256(dataset), ND_TEST_SHA);
    for (int64_t i = 0; i < 700; i++) {
        ND_ASSERT_OK(nd_dataset_read_window(dataset, i, tokens));
        for (int j = 0; j <= 100; j++)
            cr_assert_eq(tokens[j], (100 * i + j) % 65536, "window %ld, token %d", i, j);
    }
    nd_dataset_close(dataset);
}

Test(shards, a_tail_shorter_than_a_window_is_not_used)
{
    nd_dataset *dataset;
    nd_test_write_counting_shard(directory, 0, 0, 200); /* one token short of two windows */
    nd_test_write_counting_shard(directory, 1, 5000, 201);
    const nd_dataset_options options = options_for(100);
    ND_ASSERT_OK(nd_dataset_open(&options, &dataset));
    cr_assert_eq(nd_dataset_window_count(dataset), 3);
    int32_t tokens[101];
    ND_ASSERT_OK(nd_dataset_read_window(dataset, 1, tokens));
    cr_assert_eq(tokens[0], 5000);
    nd_dataset_close(dataset);
}

Test(shards, a_large_vocabulary_is_stored_in_32_bits)
{
    const int32_t tokens[] = {0, 70000, 99999, 3};
    int32_t back[4];
    nd_shard shard;
    const char *path = nd_test_path(directory, "train_00000.h5");
    nd_test_write_shard(path, 100000, ND_TEST_SHA, "train", tokens, 4);
    ND_ASSERT_OK(nd_shard_open(path, &shard));
    cr_assert_eq(shard.token_bytes, 4);
    ND_ASSERT_OK(nd_shard_read(&shard, 0, 4, back));
    cr_assert_arr_eq(back, tokens, sizeof tokens);
    nd_shard_close(&shard);
}

static void assert_refused(nd_dataset_options options, const char *reason)
{
    nd_dataset *dataset;
    nd_test_index(directory);
    ND_ASSERT_FAILS(nd_dataset_open(&options, &dataset), ND_EDATA, reason);
    cr_assert_null(dataset);
    cr_assert(strstr(nd_error_get()->message, directory) != NULL, "%s: no file is named",
              nd_error_get()->message);
}

Test(shards, a_directory_without_shards_is_refused)
{
    assert_refused(options_for(100),
                   "no shard of split 'train' or 'val' here (files named train_*.h5");
}

Test(shards, a_missing_directory_is_refused)
{
    nd_dataset *dataset;
    nd_dataset_options options = options_for(100);
    options.path = "/nonexistent/shards";
    ND_ASSERT_FAILS(nd_dataset_open(&options, &dataset), ND_EDATA, "/nonexistent/shards");
}

Test(shards, a_file_that_is_no_hdf5_is_refused)
{
    nd_test_write_file(nd_test_path(directory, "train_00000.h5"), "hello", 5);
    assert_refused(options_for(100), "train_00000.h5: not an HDF5 file");
}

Test(shards, an_empty_file_is_refused)
{
    nd_test_write_file(nd_test_path(directory, "train_00000.h5"), "", 0);
    assert_refused(options_for(100), "train_00000.h5: not an HDF5 file");
}

Test(shards, a_foreign_hdf5_file_is_refused)
{
    const hid_t file = H5Fcreate(nd_test_path(directory, "train_00000.h5"), H5F_ACC_TRUNC,
                                 H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    assert_refused(options_for(100), "attribute format_version is missing");
}

Test(shards, a_shard_of_another_tokenizer_is_refused)
{
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    nd_dataset_options options = options_for(100);
    options.tokenizer_sha256 = OTHER_SHA;
    assert_refused(options, "expected " OTHER_SHA);
}

Test(shards, shards_of_two_tokenizers_are_refused)
{
    const int32_t tokens[300] = {0};
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    nd_test_write_shard(nd_test_path(directory, "train_00001.h5"), 65536, OTHER_SHA, "train",
                        tokens, 300);
    assert_refused(options_for(100), "train_00001.h5: packed with the tokenizer of SHA-256 ffff");
}

Test(shards, a_shard_of_another_vocabulary_is_refused)
{
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    nd_dataset_options options = options_for(100);
    options.vocab_size = 4096;
    assert_refused(options, "packed for a vocabulary of 65536; expected vocab_size 4096");
}

Test(shards, a_held_out_shard_among_training_shards_is_refused)
{
    const int32_t tokens[300] = {0};
    nd_test_write_shard(nd_test_path(directory, "train_00000.h5"), 65536, ND_TEST_SHA, "val",
                        tokens, 300);
    assert_refused(options_for(100), "attribute split is 'val'; expected 'train'");
}

Test(shards, too_few_tokens_for_a_window_are_refused)
{
    nd_test_write_counting_shard(directory, 0, 0, 100);
    assert_refused(options_for(100), "has 100 tokens in 1 shard; expected at least one shard with "
                                     "seq_length + 1 = 101");
}

Test(shards, a_token_beyond_the_vocabulary_is_named_with_its_place)
{
    int32_t tokens[3000] = {0};
    tokens[1234] = 500;
    const char *path = nd_test_path(directory, "train_00000.h5");
    nd_test_write_shard(path, 300, ND_TEST_SHA, "train", tokens, 3000);
    nd_dataset_options options = options_for(100);
    options.vocab_size = 300;
    ND_ASSERT_FAILS(open_and_read_all(&options), ND_EDATA,
                    "train_00000.h5: token 1234 is 500; expected a value below vocab_size 300");
    ND_ASSERT_FAILS(nd_shard_info_print(path, true, nowhere()), ND_EDATA, "token 1234 is 500");
}

/* Copies the datasets of a good shard with other creation properties or numbers. */
static void write_variant(hid_t properties, int64_t n_tokens_attribute, hid_t type)
{
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    const hid_t file =
        H5Fopen(nd_test_path(directory, "train_00000.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    if (properties != H5P_DEFAULT || type != H5T_STD_U16LE) {
        const hsize_t count = 1000;
        const hid_t space = H5Screate_simple(1, &count, NULL);
        uint16_t tokens[1000] = {0};
        H5Ldelete(file, "tokens", H5P_DEFAULT);
        const hid_t dataset =
            H5Dcreate2(file, "tokens", type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
        H5Dwrite(dataset, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens);
        H5Dclose(dataset);
        H5Sclose(space);
    }
    const hid_t attribute = H5Aopen(file, "n_tokens", H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT64, &n_tokens_attribute);
    H5Aclose(attribute);
    H5Fclose(file);
}

Test(shards, a_wrong_n_tokens_is_refused)
{
    write_variant(H5P_DEFAULT, 999, H5T_STD_U16LE);
    assert_refused(options_for(100), "/tokens has 1000 tokens; attribute n_tokens says 999");
}

Test(shards, tokens_without_chunks_are_refused)
{
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    write_variant(properties, 1000, H5T_STD_U16LE);
    assert_refused(options_for(100), "/tokens is not chunked");
}

Test(shards, compressed_tokens_are_refused)
{
    const hsize_t chunk = 100;
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(properties, 1, &chunk);
    H5Pset_deflate(properties, 1);
    H5Pset_fletcher32(properties);
    write_variant(properties, 1000, H5T_STD_U16LE);
    assert_refused(options_for(100), "/tokens has 2 filters; expected fletcher32 alone");
}

Test(shards, tokens_of_another_type_are_refused)
{
    const hsize_t chunk = 100;
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(properties, 1, &chunk);
    H5Pset_fletcher32(properties);
    write_variant(properties, 1000, H5T_STD_I64LE);
    assert_refused(options_for(100), "/tokens is not little-endian uint16 or uint32");
}

Test(shards, truncated_shards_are_refused_by_name)
{
    const char *path = nd_test_path(directory, "train_00000.h5");
    nd_test_write_counting_shard(directory, 0, 0, 100000);
    size_t size;
    char *bytes = nd_test_read_file(path, &size);
    const nd_dataset_options options = options_for(1000);
    for (size_t length = 0; length < size; length += 1 + size / 61) {
        nd_test_write_file(path, bytes, length);
        nd_error_clear();
        const nd_status status = open_and_read_all(&options);
        cr_assert_eq(status, ND_EDATA, "cut to %zu of %zu bytes: status %d", length, size, status);
        cr_assert(strstr(nd_error_get()->message, "train_00000.h5") != NULL, "%s",
                  nd_error_get()->message);
    }
    free(bytes);
}

/* A flipped bit is found, or it lies where no reader looks. */
Test(shards, shards_with_a_flipped_bit_are_refused_or_read_the_same)
{
    const char *path = nd_test_path(directory, "train_00000.h5");
    nd_test_write_counting_shard(directory, 0, 7, 2000);
    size_t size;
    int refused = 0;
    char *bytes = nd_test_read_file(path, &size);
    for (uint64_t seed = 1; seed <= 400; seed++) {
        /* Half of the flips into the first kilobyte, where HDF5's own structures begin. */
        const uint32_t range = seed % 2 ? 1024 : (uint32_t)size;
        const uint32_t at = nd_test_random(seed, 0, range), bit = nd_test_random(seed, 1, 8);
        bytes[at] ^= (char)(1 << bit);
        nd_test_write_file(path, bytes, size);
        bytes[at] ^= (char)(1 << bit);
        nd_shard shard;
        int32_t tokens[2000];
        nd_error_clear();
        nd_status status = nd_shard_open(path, &shard);
        if (status == ND_OK) {
            cr_assert_eq(shard.n_tokens, 2000, "seed %lu", seed);
            status = nd_shard_read(&shard, 0, 2000, tokens);
            for (int i = 0; status == ND_OK && i < 2000; i++)
                cr_assert_eq(tokens[i], 7 + i, "seed %lu: bit %u of byte %u changed token %d", seed,
                             bit, at, i);
            nd_shard_close(&shard);
        }
        cr_assert(status == ND_OK || strstr(nd_error_get()->message, "train_00000.h5") != NULL,
                  "seed %lu: %s", seed, nd_error_get()->message);
        refused += status == ND_EDATA;
    }
    cr_assert_gt(refused, 200, "only %d of 400 flips were found", refused);
    free(bytes);
}

Test(shards, a_flipped_bit_in_a_chunk_is_named_with_its_chunk)
{
    const char *path = nd_test_path(directory, "train_00000.h5");
    nd_shard shard;
    nd_test_write_counting_shard(directory, 0, 0, 140000);
    ND_ASSERT_OK(nd_shard_open(path, &shard));
    const uint64_t at = shard.chunk_offsets[1] + 4321;
    nd_shard_close(&shard);
    size_t size;
    char *bytes = nd_test_read_file(path, &size);
    bytes[at] ^= 16;
    nd_test_write_file(path, bytes, size);
    free(bytes);
    const nd_dataset_options options = options_for(1000);
    ND_ASSERT_FAILS(open_and_read_all(&options), ND_EDATA,
                    "train_00000.h5: chunk 1 (tokens 65536 and on) is damaged");
}

Test(shards, info_tells_what_a_shard_holds)
{
    const char *path = nd_test_path(directory, "train_00000.h5");
    char text[4096] = "";
    nd_test_write_counting_shard(directory, 0, 0, 1000);
    FILE *out = fmemopen(text, sizeof text, "w");
    ND_ASSERT_OK(nd_shard_info_print(path, true, out));
    fclose(out);
    cr_assert(strstr(text, "tokens             1000 (uint16") != NULL, "%s", text);
    cr_assert(strstr(text, "every checksum, token and document offset is good") != NULL, "%s",
              text);
}

Test(shards, info_refuses_document_offsets_that_do_not_grow)
{
    const char *path = nd_test_path(directory, "train_00000.h5");
    const int32_t tokens[4] = {1, 2, 3, 4};
    nd_test_write_shard(path, 65536, ND_TEST_SHA, "train", tokens, 4);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, "doc_offsets", H5P_DEFAULT);
    const hsize_t three = 3;
    const uint64_t offsets[3] = {0, 9, 4};
    H5Dset_extent(dataset, &three);
    H5Dwrite(dataset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, offsets);
    H5Dclose(dataset);
    H5Fclose(file);
    ND_ASSERT_FAILS(nd_shard_info_print(path, true, nowhere()), ND_EDATA,
                    "/doc_offsets[1] is 9 and the next is 4");
}

static nd_dataset *open_synthetic(const char *split, uint64_t seed, int64_t vocab_size)
{
    nd_dataset *dataset;
    const nd_dataset_options options = {.synthetic = true,
                                        .split = split,
                                        .seq_length = 512,
                                        .vocab_size = vocab_size,
                                        .n_samples = 2000,
                                        .seed = seed};
    ND_ASSERT_OK(nd_dataset_open(&options, &dataset));
    return dataset;
}

Test(shards, synthetic_windows_are_the_same_every_time)
{
    int32_t a[513], b[513];
    nd_dataset *first = open_synthetic("train", 5, 4096),
               *second = open_synthetic("train", 5, 4096);
    for (int64_t i = 0; i < 100; i++) {
        ND_ASSERT_OK(nd_dataset_read_window(first, i, a));
        ND_ASSERT_OK(nd_dataset_read_window(second, i, b));
        cr_assert_arr_eq(a, b, sizeof a);
        for (int j = 0; j < 513; j++)
            cr_assert(a[j] >= 0 && a[j] < 4096);
    }
    nd_dataset_close(first);
    nd_dataset_close(second);
}

Test(shards, synthetic_held_out_windows_are_other_windows)
{
    int32_t a[513], b[513];
    nd_dataset *train = open_synthetic("train", 5, 4096), *val = open_synthetic("val", 5, 4096);
    ND_ASSERT_OK(nd_dataset_read_window(train, 0, a));
    ND_ASSERT_OK(nd_dataset_read_window(val, 0, b));
    cr_assert_arr_neq(a, b, sizeof a);
    nd_dataset_close(train);
    nd_dataset_close(val);
}

/* Mean of -log of the empirical probability of a token given the `order` tokens before it. */
static double empirical_entropy(const nd_dataset *dataset, int order, int vocab)
{
    const size_t contexts = order == 2 ? (size_t)(vocab * vocab) : order == 1 ? (size_t)vocab : 1;
    uint32_t *counts = calloc(contexts * (size_t)vocab, sizeof *counts);
    int32_t w[513];
    for (int64_t i = 0; i < nd_dataset_window_count(dataset); i++) {
        ND_ASSERT_OK(nd_dataset_read_window(dataset, i, w));
        for (int j = 2; j < 513; j++) {
            const int context = order == 2   ? w[j - 2] * vocab + w[j - 1]
                                : order == 1 ? w[j - 1]
                                             : 0;
            counts[context * vocab + w[j]]++;
        }
    }
    double entropy = 0, total = 0;
    for (size_t c = 0; c < contexts; c++) {
        double sum = 0;
        for (int t = 0; t < vocab; t++)
            sum += counts[c * (size_t)vocab + (size_t)t];
        for (int t = 0; t < vocab; t++) {
            const double n = counts[c * (size_t)vocab + (size_t)t];
            entropy += n > 0 ? -n * log(n / sum) : 0;
        }
        total += sum;
    }
    free(counts);
    return entropy / total;
}

Test(shards, synthetic_text_has_the_entropy_it_promises)
{
    nd_dataset *dataset = open_synthetic("train", 9, 64);
    const double unigram = empirical_entropy(dataset, 0, 64);
    const double bigram = empirical_entropy(dataset, 1, 64);
    const double trigram = empirical_entropy(dataset, 2, 64);
    cr_assert(fabs(unigram - log(64)) < 0.03, "unigram entropy %.4f", unigram);
    cr_assert(bigram > trigram + 0.02 && bigram < 1.4, "bigram entropy %.4f", bigram);
    cr_assert(fabs(trigram - ND_SYNTHETIC_ENTROPY) < 0.005, "trigram entropy %.4f", trigram);
    nd_dataset_close(dataset);
}

Test(shards, synthetic_data_without_samples_is_refused)
{
    nd_dataset *dataset;
    nd_dataset_options options = {
        .synthetic = true, .split = "train", .seq_length = 8, .vocab_size = 64};
    ND_ASSERT_FAILS(nd_dataset_open(&options, &dataset), ND_ECONFIG, "n_samples is 0");
    options.n_samples = 1;
    options.vocab_size = 3;
    ND_ASSERT_FAILS(nd_dataset_open(&options, &dataset), ND_ECONFIG, "vocab_size is 3");
}

static void replace_text(const char *path, const char *name, const char *text, size_t size)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size);
    H5Adelete(file, name);
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    cr_assert(H5Awrite(attribute, type, size == H5T_VARIABLE ? (const void *)&text : text) >= 0);
    H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
    H5Fclose(file);
}

Test(shards, an_attribute_longer_than_it_may_be_is_refused_and_not_cut)
{
    static const size_t sizes[] = {70, H5T_VARIABLE, 2000};
    static const char longer[2000] = ND_TEST_SHA "0";
    char path[128];
    nd_shard shard;
    nd_test_write_counting_shard(directory, 0, 0, 200);
    snprintf(path, sizeof path, "%s/train_00000.h5", directory);
    for (int i = 0; i < 3; i++) {
        replace_text(path, "tokenizer_sha256", longer, sizes[i]);
        ND_ASSERT_FAILS(nd_shard_open(path, &shard), ND_EDATA, "characters; expected at most 64");
    }
    for (int i = 0; i < 2; i++) {
        replace_text(path, "tokenizer_sha256", ND_TEST_SHA "\0\0\0\0\0\0", sizes[i]);
        ND_ASSERT_OK(nd_shard_open(path, &shard));
        cr_assert_str_eq(shard.tokenizer_sha256, ND_TEST_SHA);
        nd_shard_close(&shard);
    }
}

Test(shards, a_tokenizer_digest_that_no_index_can_hold_is_refused)
{
    static const char *const digests[] = {
        "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
        "0123456789abcdeg0123456789abcdef0123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"};
    char path[128];
    nd_shard shard;
    nd_test_write_counting_shard(directory, 0, 0, 200);
    snprintf(path, sizeof path, "%s/train_00000.h5", directory);
    for (int i = 0; i < 3; i++) {
        replace_text(path, "tokenizer_sha256", digests[i], H5T_VARIABLE);
        ND_ASSERT_FAILS(nd_shard_open(path, &shard), ND_EDATA, "64 hex digits in lower case");
    }
}
