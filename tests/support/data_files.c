#include "support/data_files.h"

#include "core/base/rng.h"
#include "data/shard_writer.h"
#include "support/support.h"

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
    char *text = nd_test_code(seed, 60000);
    nd_test_write_file(input, text, 60000);
    free(text);
    const char *inputs[] = {input};
    const nd_tokenizer_train_options options = {
        .inputs = inputs, .input_count = 1, .output = output, .vocab_size = 400, .threads = 1};
    ND_ASSERT_OK(nd_tokenizer_train(&options));
}

void nd_test_write_shard(const char *path, int64_t vocab_size, const char *sha256,
                         const char *split, const int32_t *tokens, size_t count)
{
    nd_shard_writer *writer;
    ND_ASSERT_OK(nd_shard_writer_open(path, vocab_size, sha256, split, &writer));
    ND_ASSERT_OK(nd_shard_writer_add(writer, tokens, count));
    ND_ASSERT_OK(nd_shard_writer_end_document(writer, (int64_t)(3 * count)));
    ND_ASSERT_OK(nd_shard_writer_finish(writer));
}

void nd_test_write_counting_shard(const char *directory, int number, int32_t first, size_t count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/train_%05d.h5", directory, number);
    int32_t *tokens = malloc(count * sizeof *tokens);
    for (size_t i = 0; i < count; i++)
        tokens[i] = (first + (int32_t)i) % 65536;
    nd_test_write_shard(path, 65536, ND_TEST_SHA, "train", tokens, count);
    free(tokens);
}
