#include "support/data_files.h"

#include "core/base/durable_file.h"
#include "core/base/rng.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_writer.h"
#include "support/support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t nd_test_random(uint64_t seed, uint64_t index, uint32_t below)
{
    return nd_rng_philox(seed, 0, index).word[0] % below;
}

const char *nd_test_path(const char *directory, const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

char *nd_test_code(uint64_t seed, size_t bytes)
{
    static const char *const lines[] = {
        "fn main() {\n",
        "    let value = compute(index, 42);\n",
        "    if value > limit {\n        return Err(Error::new(value));\n    }\n",
        "}\n\n",
        "/// Gives the größte value of all.\n",
        "pub struct Point {\n    x: f64,\n    y: f64,\n}\n\n",
        "    for item in items.iter() {\n        total += item.weight * 17;\n    }\n",
        "use std::collections::HashMap;\n",
        "\tprintln!(\"{}: {}\", name, total);\r\n",
    };
    char *text = malloc(bytes + 1);
    cr_assert(text != NULL);
    size_t used = 0;
    for (uint64_t i = 0; used < bytes; i++) {
        char line[160];
        const uint32_t kind = nd_test_random(seed, 2 * i, 9);
        int length = snprintf(line, sizeof line, "%s", lines[kind]);
        if (i % 5 == 0) /* something that was not there before */
            length = snprintf(line, sizeof line, "    let v%u = %s;\n",
                              nd_test_random(seed, 2 * i + 1, 1000), kind % 2 ? "first" : "second");
        const size_t part = (size_t)length < bytes - used ? (size_t)length : bytes - used;
        memcpy(text + used, line, part);
        used += part;
    }
    text[bytes] = '\0';
    return text;
}

void nd_test_train_tokenizer(const char *directory, uint64_t seed)
{
    char input[4096], output[4096];
    snprintf(input, sizeof input, "%s/train.txt", directory);
    snprintf(output, sizeof output, "%s/tok.model", directory);
    ND_AUTOFREE char *text = nd_test_code(seed, 60000);
    nd_test_write_file(input, text, 60000);
    const char *inputs[] = {input};
    const nd_tokenizer_train_options options = {
        .inputs = inputs, .input_count = 1, .output = output, .vocab_size = 400, .threads = 1};
    ND_ASSERT_OK(nd_tokenizer_train(&options, NULL));
}

static int is_shard(const struct dirent *entry)
{
    return nd_shard_name_matches(entry->d_name, "");
}

static void index_shard(nd_shard_index *index, const char *directory, const char *name)
{
    char path[4096];
    ND_CLEANUP(nd_shard_close) nd_shard shard = {.fd = -1};
    nd_indexed_shard *s = &index->shards[index->count++];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(s->split, sizeof s->split, "%.*s", (int)strcspn(name, "_"), name);
    ND_ASSERT_OK(nd_file_digest(path, &s->bytes, s->sha256));
    if (nd_shard_open(path, &shard) == ND_OK) {
        s->n_tokens = shard.n_tokens;
        s->n_documents = shard.n_documents;
        if (!index->tokenizer_sha256[0]) {
            index->vocab_size = shard.vocab_size;
            strcpy(index->tokenizer_sha256, shard.tokenizer_sha256);
        }
    }
    nd_error_clear();
}

void nd_test_index(const char *directory)
{
    char path[4096];
    struct dirent **names;
    const int count = scandir(directory, &names, is_shard, alphasort);
    cr_assert(count >= 0, "%s cannot be listed", directory);
    nd_shard_index index = {.shards = calloc((size_t)count + 1, sizeof *index.shards)};
    for (int i = 0; i < count; i++) {
        index_shard(&index, directory, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    if (!index.tokenizer_sha256[0])
        strcpy(index.tokenizer_sha256, ND_TEST_SHA);
    snprintf(path, sizeof path, "%s/index.json", directory);
    if (count > 0)
        ND_ASSERT_OK(nd_shard_index_write(&index, path));
    nd_shard_index_free(&index);
}

void nd_test_write_shard(const char *path, int64_t vocab_size, const char *sha256,
                         const char *split, const int32_t *tokens, size_t count)
{
    nd_shard_writer *writer;
    ND_ASSERT_OK(nd_shard_writer_open(path, vocab_size, sha256, split, &writer));
    ND_ASSERT_OK(nd_shard_writer_add(writer, tokens, count));
    ND_ASSERT_OK(nd_shard_writer_end_document(writer, (int64_t)(3 * count)));
    ND_ASSERT_OK(nd_shard_writer_finish(writer));
    char directory[4096];
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
    nd_test_index(directory);
}

void nd_test_write_counting_shard(const char *directory, int number, int32_t first, size_t count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/train_%05d.h5", directory, number);
    ND_AUTOFREE int32_t *tokens = malloc(count * sizeof *tokens);
    for (size_t i = 0; i < count; i++)
        tokens[i] = (first + (int32_t)i) % 65536;
    nd_test_write_shard(path, 65536, ND_TEST_SHA, "train", tokens, count);
}
