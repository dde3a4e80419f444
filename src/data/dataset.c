#include "data/dataset.h"

#include "data/data_directory.h"
#include "data/shards/open_shards.h"
#include "data/synthetic.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Held-out synthetic windows start here in the same chain, where training never gets. */
#define HELD_OUT_WINDOWS ((int64_t)1 << 62)

struct nd_dataset {
    int64_t seq_length, window_count, token_count, text_bytes;
    nd_shard *shards;
    nd_open_shards *open;
    int64_t *first_window; /* [shard_count + 1] */
    int shard_count;
    nd_synthetic *synthetic; /* NULL: shards */
    int64_t synthetic_first; /* the split's first window of the chain */
};

static nd_status open_synthetic(const nd_dataset_options *options, nd_dataset *d)
{
    ND_FAIL_IF(options->n_samples < 1, ND_ECONFIG,
               "n_samples is %lld; synthetic data needs 1 or more", (long long)options->n_samples);
    d->synthetic = calloc(1, sizeof *d->synthetic);
    ND_FAIL_IF(!d->synthetic, ND_ENOMEM, "no memory for synthetic data");
    ND_TRY(nd_synthetic_open(d->synthetic, options->seed, options->vocab_size));
    d->window_count = options->n_samples;
    d->synthetic_first = strcmp(options->split, "train") == 0 ? 0 : HELD_OUT_WINDOWS;
    return ND_CHECK(
        !__builtin_mul_overflow(options->n_samples, options->seq_length, &d->token_count) &&
            options->n_samples < HELD_OUT_WINDOWS,
        ND_ECONFIG,
        "n_samples = %lld sequences of seq_length = %lld are more than 2^63 tokens; use fewer",
        (long long)options->n_samples, (long long)options->seq_length);
}

static nd_status check_shard(const nd_dataset_options *options, const nd_shard *shard,
                             const nd_shard *first)
{
    const char *sha =
        options->tokenizer_sha256 ? options->tokenizer_sha256 : first->tokenizer_sha256;
    ND_FAIL_IF(strcmp(shard->tokenizer_sha256, sha) != 0, ND_EDATA,
               "%s: packed with the tokenizer of SHA-256 %s; expected %s, the tokenizer of %s",
               shard->path, shard->tokenizer_sha256, sha,
               options->tokenizer_sha256 ? "the model" : first->path);
    ND_FAIL_IF(shard->vocab_size > options->vocab_size, ND_EDATA,
               "%s: packed for a vocabulary of %lld; expected vocab_size %lld or less", shard->path,
               (long long)shard->vocab_size, (long long)options->vocab_size);
    return ND_CHECK(shard->vocab_size == first->vocab_size, ND_EDATA,
                    "%s: packed for a vocabulary of %lld; expected %lld, that of %s", shard->path,
                    (long long)shard->vocab_size, (long long)first->vocab_size, first->path);
}

static nd_status add_shard(const nd_dataset_options *options, nd_dataset *d,
                           const nd_data_directory *directory, size_t number)
{
    nd_shard *shard = &d->shards[d->shard_count];
    ND_TRY(nd_data_directory_open_shard(directory, number, shard));
    nd_shard_close_file(shard);
    memcpy(shard->sha256, directory->index.shards[number].sha256, sizeof shard->sha256);
    const int at = d->shard_count++;
    ND_TRY(check_shard(options, shard, &d->shards[0]));
    d->token_count += shard->n_tokens; /* no overflow: the index's sum was checked */
    ND_FAIL_IF(__builtin_add_overflow(d->text_bytes, shard->n_bytes, &d->text_bytes), ND_EDATA,
               "%s: n_bytes is %lld; with the shards before that is beyond 2^63", shard->path,
               (long long)shard->n_bytes);
    if (shard->n_tokens > 0)
        d->window_count += (shard->n_tokens - 1) / options->seq_length;
    d->first_window[at + 1] = d->window_count;
    return ND_OK;
}

static nd_status open_split(const nd_dataset_options *options, nd_dataset *d,
                            const nd_data_directory *directory)
{
    const nd_shard_index *index = &directory->index;
    d->shards = calloc(index->count, sizeof *d->shards);
    d->first_window = calloc(index->count + 1, sizeof *d->first_window);
    ND_FAIL_IF(!d->shards || !d->first_window || index->count > INT_MAX, ND_ENOMEM,
               "%s: no memory for %zu shards", options->path, index->count);
    for (size_t i = 0; i < index->count; i++)
        if (strcmp(index->shards[i].split, options->split) == 0)
            ND_TRY(add_shard(options, d, directory, i));
    ND_FAIL_IF(d->shard_count == 0, ND_EDATA,
               "%s: no shard of split '%s' here (files named %s_*.h5); make some with "
               "`nanochat_dist pack`",
               options->path, options->split, options->split);
    ND_FAIL_IF(d->window_count == 0, ND_EDATA,
               "%s: split '%s' has %lld tokens in %d shard%s; expected at least one shard with "
               "seq_length + 1 = %lld, one window",
               options->path, options->split, (long long)d->token_count, d->shard_count,
               nd_s(d->shard_count), (long long)options->seq_length + 1);
    return nd_open_shards_create(d->shards, d->shard_count, &d->open);
}

static nd_status open_shards(const nd_dataset_options *options, nd_dataset *d)
{
    ND_CLEANUP(nd_data_directory_close) nd_data_directory directory = {0};
    ND_TRY(nd_data_directory_open(options->path, &directory));
    return open_split(options, d, &directory);
}

nd_status nd_dataset_open(const nd_dataset_options *options, nd_dataset **dataset)
{
    *dataset = NULL;
    ND_FAIL_IF(options->seq_length < 1, ND_ECONFIG, "seq_length is %lld; expected 1 or more",
               (long long)options->seq_length);
    nd_dataset *d = calloc(1, sizeof *d);
    ND_FAIL_IF(!d, ND_ENOMEM, "no memory for a dataset");
    d->seq_length = options->seq_length;
    ND_RETURN_MADE(options->synthetic ? open_synthetic(options, d) : open_shards(options, d), d,
                   nd_dataset_close, dataset);
}

void nd_dataset_close(nd_dataset *dataset)
{
    if (!dataset)
        return;
    nd_open_shards_close(dataset->open);
    for (int i = 0; i < dataset->shard_count; i++)
        nd_shard_close(&dataset->shards[i]);
    free(dataset->shards);
    free(dataset->first_window);
    free(dataset->synthetic);
    free(dataset);
}

const nd_shard *nd_dataset_shard(const nd_dataset *dataset, int index)
{
    return index < dataset->shard_count ? &dataset->shards[index] : NULL;
}

int64_t nd_dataset_window_count(const nd_dataset *dataset)
{
    return dataset->window_count;
}

int64_t nd_dataset_token_count(const nd_dataset *dataset)
{
    return dataset->token_count;
}

int64_t nd_dataset_seq_length(const nd_dataset *dataset)
{
    return dataset->seq_length;
}

const char *nd_dataset_tokenizer_sha256(const nd_dataset *dataset)
{
    return dataset->synthetic ? "" : dataset->shards[0].tokenizer_sha256;
}

int64_t nd_dataset_vocab_size(const nd_dataset *dataset)
{
    return dataset->synthetic ? 0 : dataset->shards[0].vocab_size;
}

int64_t nd_dataset_text_bytes(const nd_dataset *dataset)
{
    return dataset->text_bytes;
}

nd_status nd_dataset_read_window(const nd_dataset *dataset, int64_t index, int32_t *tokens)
{
    ND_FAIL_IF(index < 0 || index >= dataset->window_count, ND_EINTERNAL,
               "window %lld asked for; the dataset has %lld", (long long)index,
               (long long)dataset->window_count);
    if (dataset->synthetic) {
        nd_synthetic_window(dataset->synthetic, dataset->synthetic_first + index,
                            dataset->seq_length + 1, tokens);
        return ND_OK;
    }
    int low = 0, high = dataset->shard_count; /* first_window[low] <= index < first_window[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (dataset->first_window[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    const int64_t first = (index - dataset->first_window[low]) * dataset->seq_length;
    return nd_open_shards_read(dataset->open, low, first, dataset->seq_length + 1, tokens);
}

nd_status nd_dataset_measure(const char *path, const char *split, int64_t seq_length,
                             int64_t *tokens, int64_t *windows)
{
    nd_data_directory directory;
    *tokens = *windows = 0;
    ND_TRY(nd_data_directory_open(path, &directory));
    for (size_t i = 0; i < directory.index.count; i++) {
        const nd_indexed_shard *shard = &directory.index.shards[i];
        if (strcmp(shard->split, split) != 0 || shard->n_tokens == 0)
            continue;
        *tokens += shard->n_tokens;
        *windows += (shard->n_tokens - 1) / seq_length;
    }
    nd_data_directory_close(&directory);
    return ND_OK;
}
