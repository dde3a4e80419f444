#include "core/base/rng.h"
#include "data/sentencepiece_encode.h"
#include "data/tokenizer/tokenizer.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *directory;
static nd_tokenizer *tokenizer;

static void set_up(void)
{
    directory = nd_test_directory();
    nd_test_train_tokenizer(directory, 1);
    ND_ASSERT_OK(nd_tokenizer_open(nd_test_path(directory, "tok.model"), &tokenizer));
}

static void tear_down(void)
{
    nd_tokenizer_close(tokenizer);
    nd_test_remove_directory(directory);
}

TestSuite(tokenizer, .init = set_up, .fini = tear_down);

static void assert_round_trip(const nd_tokenizer *t, const char *text, size_t bytes,
                              const char *what, uint64_t seed)
{
    int32_t *ids;
    size_t count, back_bytes;
    char *back;
    ND_ASSERT_OK(nd_tokenizer_encode(t, text, bytes, &ids, &count));
    ND_ASSERT_OK(nd_tokenizer_decode(t, ids, count, &back, &back_bytes));
    cr_assert_eq(back_bytes, bytes, "%s, seed %lu: %zu bytes came back of %zu", what, seed,
                 back_bytes, bytes);
    cr_assert(memcmp(back, text, bytes) == 0, "%s, seed %lu: other bytes came back", what, seed);
    free(ids);
    free(back);
}

static size_t token_count(const char *text)
{
    int32_t *ids;
    size_t count;
    ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, text, strlen(text), &ids, &count));
    free(ids);
    return count;
}

Test(tokenizer, random_bytes_come_back)
{
    unsigned char text[1500];
    for (uint64_t seed = 1; seed <= 100; seed++) {
        const size_t bytes = nd_test_random(seed, 0, sizeof text);
        for (size_t i = 0; i < bytes; i++)
            text[i] = (unsigned char)nd_test_random(seed, 1 + i, 256);
        assert_round_trip(tokenizer, (char *)text, bytes, "random bytes", seed);
    }
}

Test(tokenizer, random_mixtures_of_hard_pieces_come_back)
{
    static const char *const parts[] = {
        "\xe2\x96\x81", "\xe2\x96\x85", " ",        "    ",
        "\n",           "\r\n",         "\t",       "\xef\xbf\xbd",
        "\xe2\x96",     "\xed\xa0\x80", "\xc0\xaf", "\xff",
        "let",          " value",       "größte",   "\xf0\x9f\xa6\x80",
        "<s>",          "<0x0A>",       "</s>",     "\xf4\x90\x80\x80"};
    for (uint64_t seed = 1; seed <= 200; seed++) {
        char text[512];
        size_t bytes = 0;
        for (uint64_t i = 0; i < 60; i++) {
            const char *part = parts[nd_test_random(seed, i, 20)];
            memcpy(text + bytes, part, strlen(part));
            bytes += strlen(part);
            if (nd_test_random(seed, 100 + i, 10) == 0)
                text[bytes++] = '\0';
        }
        assert_round_trip(tokenizer, text, bytes, "hard pieces", seed);
    }
}

Test(tokenizer, no_text_is_no_token)
{
    cr_assert_eq(token_count(""), 0u);
    assert_round_trip(tokenizer, "", 0, "no text", 0);
}

Test(tokenizer, a_line_of_a_megabyte_comes_back)
{
    const size_t bytes = (1 << 20) + 77;
    char *text = malloc(bytes);
    memset(text, 'e', bytes);
    assert_round_trip(tokenizer, text, bytes, "one letter", 0);
    memset(text, ' ', bytes);
    assert_round_trip(tokenizer, text, bytes, "spaces", 0);
    free(text);
}

Test(tokenizer, the_character_that_stands_for_a_space_stays_itself)
{
    int32_t *ids;
    size_t count;
    ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, "\xe2\x96\x81", 3, &ids, &count));
    cr_assert_eq(count, 3u, "%zu tokens; expected its three bytes", count);
    free(ids);
}

Test(tokenizer, tokens_are_those_of_sentencepiece)
{
    size_t model_bytes;
    const void *model = nd_tokenizer_model(tokenizer, &model_bytes);
    for (uint64_t seed = 50; seed < 60; seed++) {
        char *text = nd_test_code(seed, 5000), message[256] = "";
        int32_t *ours, *theirs;
        size_t our_count, their_count;
        const size_t bytes = strlen(text) - 3; /* the last character may be half there */
        ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, text, bytes, &ours, &our_count));
        cr_assert_eq(nd_sentencepiece_encode(model, model_bytes, text, bytes, &theirs, &their_count,
                                             message, sizeof message),
                     0, "%s", message);
        cr_assert_eq(our_count, their_count, "seed %lu: %zu tokens, SentencePiece %zu", seed,
                     our_count, their_count);
        cr_assert(memcmp(ours, theirs, our_count * sizeof *ours) == 0, "seed %lu", seed);
        free(text);
        free(ours);
        free(theirs);
    }
}

Test(tokenizer, indentation_and_line_ends_have_pieces)
{
    cr_assert_eq(token_count("    "), 1u);
    cr_assert_eq(token_count("        "), 1u);
    cr_assert_eq(token_count("\n"), 1u);
    cr_assert_eq(token_count("}\n\n"), 1u);
    cr_assert_eq(token_count(";\n"), 1u);
}

Test(tokenizer, digits_are_tokens_of_their_own)
{
    cr_assert_eq(token_count("1742"), 4u);
}

Test(tokenizer, a_text_cut_at_a_safe_place_keeps_its_tokens)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        char *text = nd_test_code(seed, 2000);
        int32_t *whole, *part;
        size_t count, first, second;
        const size_t end = 1 + nd_test_random(seed, 1, 1999);
        const size_t cut = nd_tokenizer_safe_cut(tokenizer, text, end);
        cr_assert(cut <= end && cut + 64 >= end, "seed %lu: cut at %zu of %zu", seed, cut, end);
        ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, text, 2000, &whole, &count));
        ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, text, cut, &part, &first));
        cr_assert(memcmp(whole, part, first * sizeof *part) == 0, "seed %lu, first part", seed);
        free(part);
        ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, text + cut, 2000 - cut, &part, &second));
        cr_assert_eq(first + second, count, "seed %lu: %zu + %zu tokens, whole %zu", seed, first,
                     second, count);
        cr_assert(memcmp(whole + first, part, second * sizeof *part) == 0, "seed %lu", seed);
        free(part);
        free(whole);
        free(text);
    }
}

Test(tokenizer, a_token_beyond_the_vocabulary_is_named)
{
    const int32_t ids[] = {5, 6, 400}, negative[] = {-1};
    char *text;
    size_t bytes;
    ND_ASSERT_FAILS(nd_tokenizer_decode(tokenizer, ids, 3, &text, &bytes), ND_EDATA,
                    "token 2 is 400; expected 0 to 399");
    ND_ASSERT_FAILS(nd_tokenizer_decode(tokenizer, negative, 1, &text, &bytes), ND_EDATA,
                    "token 0 is -1");
}

Test(tokenizer, the_same_text_trains_the_same_tokenizer)
{
    char before[65];
    strcpy(before, nd_tokenizer_sha256(tokenizer));
    nd_test_train_tokenizer(directory, 1);
    nd_tokenizer *again;
    ND_ASSERT_OK(nd_tokenizer_open(nd_test_path(directory, "tok.model"), &again));
    cr_assert_str_eq(nd_tokenizer_sha256(again), before);
    nd_tokenizer_close(again);
}

Test(tokenizer, marks_have_their_places)
{
    cr_assert_eq(nd_tokenizer_vocab_size(tokenizer), 400);
    cr_assert_eq(nd_tokenizer_eos(tokenizer), 2);
}

static void assert_refused(const void *bytes, size_t size, const char *reason)
{
    const char *path = nd_test_path(directory, "bad.model");
    nd_tokenizer *bad;
    nd_test_write_file(path, bytes, size);
    ND_ASSERT_FAILS(nd_tokenizer_open(path, &bad), ND_EDATA, reason);
    cr_assert(strstr(nd_error_get()->message, "bad.model") != NULL, "%s lacks the file's name",
              nd_error_get()->message);
    cr_assert_null(bad);
}

Test(tokenizer, an_empty_model_file_is_refused)
{
    assert_refused("", 0, "the file is empty");
}

Test(tokenizer, a_foreign_model_file_is_refused)
{
    assert_refused("\x7f"
                   "ELF\x02\x01\x01",
                   8, "not a SentencePiece model");
    assert_refused("{\"model\": \"bpe\", \"vocab\": {}}", 30, "not a SentencePiece model");
}

Test(tokenizer, a_model_without_byte_pieces_is_refused)
{
    /* pieces {piece "a"}, trainer_spec {model_type BPE}, normalizer_spec {} */
    assert_refused("\x0a\x03\x0a\x01\x61\x12\x02\x18\x02\x1a\x00", 11, "byte piece <0x00>");
}

Test(tokenizer, a_unigram_model_is_refused)
{
    assert_refused("\x0a\x03\x0a\x01\x61\x12\x02\x18\x01\x1a\x00", 11, "type unigram");
}

Test(tokenizer, a_model_that_normalises_is_refused)
{
    assert_refused("\x0a\x03\x0a\x01\x61\x12\x02\x18\x02\x1a\x03\x12\x01z", 14,
                   "precompiled_charsmap");
}

Test(tokenizer, a_missing_model_file_is_named)
{
    nd_tokenizer *none;
    ND_ASSERT_FAILS(nd_tokenizer_open("/nonexistent/tok.model", &none), ND_EDATA,
                    "/nonexistent/tok.model");
}

Test(tokenizer, truncated_model_files_are_refused)
{
    size_t size;
    const char *model = nd_tokenizer_model(tokenizer, &size);
    for (size_t length = 0; length + 200 < size; length += 1 + size / 97) {
        nd_tokenizer *bad;
        nd_error_clear();
        cr_assert_eq(nd_tokenizer_open_memory(model, length, "cut.model", &bad), ND_EDATA,
                     "a model of %zu bytes cut to %zu was taken", size, length);
    }
}

Test(tokenizer, damaged_model_files_are_refused_or_still_exact)
{
    size_t size;
    const char *model = nd_tokenizer_model(tokenizer, &size);
    char *copy = malloc(size), *text = nd_test_code(3, 1000);
    for (uint64_t seed = 1; seed <= 500; seed++) {
        memcpy(copy, model, size);
        copy[nd_test_random(seed, 0, (uint32_t)size)] ^= (char)(1 << nd_test_random(seed, 1, 8));
        nd_tokenizer *damaged;
        nd_error_clear();
        const nd_status status = nd_tokenizer_open_memory(copy, size, "flip.model", &damaged);
        cr_assert(status == ND_OK || status == ND_EDATA, "seed %lu: status %d", seed, status);
        if (status == ND_OK)
            assert_round_trip(damaged, text, 1000, "damaged model", seed);
        nd_tokenizer_close(damaged);
    }
    free(copy);
    free(text);
}

static nd_status train(const char *text, size_t bytes, int vocab_size)
{
    char input[4096], output[4096];
    snprintf(input, sizeof input, "%s/some.txt", directory);
    snprintf(output, sizeof output, "%s/some.model", directory);
    nd_test_write_file(input, text, bytes);
    const char *inputs[] = {input};
    const nd_tokenizer_train_options options = {.inputs = inputs,
                                                .input_count = 1,
                                                .output = output,
                                                .vocab_size = vocab_size,
                                                .binary = true};
    return nd_tokenizer_train(&options, NULL);
}

Test(tokenizer, a_vocabulary_smaller_than_the_bytes_is_refused)
{
    ND_ASSERT_FAILS(train("text", 4, 256), ND_ECONFIG, "vocabulary size 256");
}

Test(tokenizer, a_vocabulary_larger_than_the_text_allows_is_refused)
{
    ND_ASSERT_FAILS(train("a b c\n", 6, 1000), ND_EDATA, "do not fill a vocabulary of 1000");
}

Test(tokenizer, a_vocabulary_smaller_than_the_characters_is_refused)
{
    enum { CHARACTERS = 400 };
    char text[3 * CHARACTERS + 1];
    for (int i = 0; i < CHARACTERS; i++) { /* U+4E00 and on */
        const int character = 0x4e00 + i;
        text[3 * i] = (char)(0xe0 | character >> 12);
        text[3 * i + 1] = (char)(0x80 | (character >> 6 & 0x3f));
        text[3 * i + 2] = (char)(0x80 | (character & 0x3f));
    }
    text[3 * CHARACTERS] = '\n';
    ND_ASSERT_FAILS(train(text, sizeof text, 400), ND_EDATA,
                    "too many different characters for a vocabulary of 400 pieces; give "
                    "--vocab-size 6");
}

Test(tokenizer, text_without_a_usable_character_is_refused)
{
    ND_ASSERT_FAILS(train("\xff\xfe\0\xff", 4, 300), ND_EDATA, "SentencePiece could not train");
    ND_ASSERT_FAILS(train("", 0, 300), ND_EDATA, "no text to train on");
}

Test(tokenizer, a_refused_text_is_told_what_it_lacks)
{
    const char *const reason = "they hold no character that can be learned (NUL, U+2581, U+2585 "
                               "and bytes that are not UTF-8 cannot)";
    ND_ASSERT_FAILS(train("\xff\xfe\0\xff", 4, 300), ND_EDATA, reason);
    ND_ASSERT_FAILS(train("\xe2\x96\x81\xe2\x96\x85", 6, 300), ND_EDATA, reason);
}

Test(tokenizer, a_byte_order_mark_alone_is_no_text_whatever_fits)
{
    char input[4096], output[4096];
    snprintf(input, sizeof input, "%s/mark.txt", directory);
    snprintf(output, sizeof output, "%s/mark.model", directory);
    nd_test_write_file(input, "\xef\xbb\xbf", 3);
    const char *inputs[] = {input};
    const nd_tokenizer_train_options options = {.inputs = inputs,
                                                .input_count = 1,
                                                .output = output,
                                                .vocab_size = 300,
                                                .max_bytes = 32000000};
    ND_ASSERT_FAILS(nd_tokenizer_train(&options, NULL), ND_EDATA, "no text to train on");
}

Test(tokenizer, training_takes_no_more_text_than_asked_for)
{
    char input[4096], output[4096];
    snprintf(input, sizeof input, "%s/train.txt", directory);
    snprintf(output, sizeof output, "%s/less.model", directory);
    const char *inputs[] = {input};
    nd_tokenizer_train_options options = {.inputs = inputs,
                                          .input_count = 1,
                                          .output = output,
                                          .vocab_size = 330,
                                          .max_bytes = 30000};
    ND_ASSERT_OK(nd_tokenizer_train(&options, NULL));
    options.max_bytes = 100;
    ND_ASSERT_FAILS(nd_tokenizer_train(&options, NULL), ND_EDATA,
                    "nothing of this text fits the 100 bytes of --max-bytes");
}

Test(tokenizer, a_model_goes_into_a_new_directory_or_is_refused_before_the_text_is_read)
{
    char input[4096], output[4096];
    snprintf(input, sizeof input, "%s/train.txt", directory);
    snprintf(output, sizeof output, "%s/new/place/some.model", directory);
    const char *inputs[] = {input};
    nd_tokenizer_train_options options = {
        .inputs = inputs, .input_count = 1, .output = output, .vocab_size = 330};
    ND_ASSERT_OK(nd_tokenizer_train(&options, NULL));
    nd_tokenizer *t;
    ND_ASSERT_OK(nd_tokenizer_open(output, &t));
    nd_tokenizer_close(t);
    inputs[0] = "/no/such/text";
    options.output = "/proc/nanochat_dist/some.model";
    ND_ASSERT_FAILS(nd_tokenizer_train(&options, NULL), ND_EIO, "/proc/nanochat_dist");
}
