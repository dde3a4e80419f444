#include "data/pack/pack.h"
#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *directory;
static char model[4096], out[4096], input[4096];

static void set_up(void)
{
    directory = nd_test_directory();
    nd_test_train_tokenizer(directory, 1);
    snprintf(model, sizeof model, "%s/tok.model", directory);
    snprintf(out, sizeof out, "%s/made/shards", directory);
    snprintf(input, sizeof input, "%s/input", directory);
    cr_assert_eq(mkdir(input, 0777), 0);
}

static void tear_down(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(pack, .init = set_up, .fini = tear_down);

static void write_input(const char *name, const void *text, size_t bytes)
{
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", input, name);
    nd_test_write_file(path, text, bytes);
}

static nd_pack_options options_for(const char *const *inputs)
{
    return (nd_pack_options){.tokenizer = model,
                             .out = out,
                             .inputs = inputs,
                             .input_count = 1,
                             .shard_tokens = 1000000};
}

static nd_status pack(const char *jsonl_field, nd_pack_result *result)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    options.jsonl_field = jsonl_field;
    return nd_pack(&options, result);
}

/* The text of a whole shard: documents follow each other, their ends give no bytes. */
static char *shard_text(const char *name, size_t *bytes, int64_t *documents)
{
    char path[8192];
    nd_shard shard;
    nd_tokenizer *tokenizer;
    char *text;
    snprintf(path, sizeof path, "%s/%s", out, name);
    ND_ASSERT_OK(nd_shard_open(path, &shard));
    ND_ASSERT_OK(nd_tokenizer_open(model, &tokenizer));
    int32_t *tokens = malloc((size_t)shard.n_tokens * sizeof *tokens);
    ND_ASSERT_OK(nd_shard_read(&shard, 0, shard.n_tokens, tokens));
    cr_assert_eq(tokens[shard.n_tokens - 1], nd_tokenizer_eos(tokenizer));
    ND_ASSERT_OK(nd_tokenizer_decode(tokenizer, tokens, (size_t)shard.n_tokens, &text, bytes));
    cr_assert_eq((int64_t)*bytes, shard.n_bytes);
    if (documents)
        *documents = shard.n_documents;
    free(tokens);
    nd_tokenizer_close(tokenizer);
    nd_shard_close(&shard);
    return text;
}

Test(pack, documents_come_back_in_the_order_of_their_names)
{
    const char *const inputs[] = {input};
    nd_pack_result result;
    size_t bytes;
    int64_t documents;
    write_input("b.txt", "second\n", 7);
    write_input("a.txt", "fir\0st\n", 7);
    write_input("c.txt", "\xff\xfe third", 8);
    write_input("empty.txt", "", 0);
    nd_pack_options options = options_for(inputs);
    options.binary = true;
    ND_ASSERT_OK(nd_pack(&options, &result));
    char *text = shard_text("train_00000.h5", &bytes, &documents);
    cr_assert_eq(result.documents, 3);
    cr_assert_eq(result.shards, 1);
    cr_assert_eq(documents, 3);
    cr_assert_eq(bytes, 22u);
    cr_assert_arr_eq(text, "fir\0st\nsecond\n\xff\xfe third", 22);
    free(text);
}

Test(pack, the_tokenizer_travels_with_the_shards)
{
    nd_pack_result result;
    char path[8192];
    size_t original_size, copy_size;
    write_input("a.txt", "text", 4);
    ND_ASSERT_OK(pack(NULL, &result));
    snprintf(path, sizeof path, "%s/tokenizer.model", out);
    char *original = nd_test_read_file(model, &original_size);
    char *copy = nd_test_read_file(path, &copy_size);
    cr_assert_eq(original_size, copy_size);
    cr_assert_arr_eq(original, copy, copy_size);
    free(original);
    free(copy);
}

Test(pack, a_glob_chooses_files_of_a_directory)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    write_input("a.rs", "rust", 4);
    write_input("a.c", "c", 1);
    options.glob = "*.rs";
    ND_ASSERT_OK(nd_pack(&options, &result));
    cr_assert_eq(result.documents, 1);
    cr_assert_eq(result.bytes, 4);
}

Test(pack, a_document_larger_than_a_part_has_the_tokens_of_the_whole)
{
    const size_t bytes = 5 * (1 << 20) + 12345;
    char *text = nd_test_code(77, bytes), path[8192];
    nd_pack_result result;
    nd_tokenizer *tokenizer;
    nd_shard shard;
    int32_t *whole;
    size_t count;
    write_input("large.txt", text, bytes);
    ND_ASSERT_OK(pack(NULL, &result));
    ND_ASSERT_OK(nd_tokenizer_open(model, &tokenizer));
    ND_ASSERT_OK(nd_tokenizer_encode(tokenizer, text, bytes, &whole, &count));
    snprintf(path, sizeof path, "%s/train_00000.h5", out);
    ND_ASSERT_OK(nd_shard_open(path, &shard));
    cr_assert_eq(shard.n_tokens, (int64_t)count + 1);
    int32_t *packed = malloc((size_t)shard.n_tokens * sizeof *packed);
    ND_ASSERT_OK(nd_shard_read(&shard, 0, shard.n_tokens, packed));
    cr_assert(memcmp(packed, whole, count * sizeof *whole) == 0, "the tokens differ");
    free(packed);
    free(whole);
    free(text);
    nd_shard_close(&shard);
    nd_tokenizer_close(tokenizer);
}

Test(pack, a_document_that_cannot_be_cut_anywhere_comes_back)
{
    const size_t bytes = 3 * (1 << 20) + 1;
    char *text = malloc(bytes);
    size_t back_bytes;
    nd_pack_result result;
    memset(text, ' ', bytes);
    write_input("spaces.txt", text, bytes);
    ND_ASSERT_OK(pack(NULL, &result));
    char *back = shard_text("train_00000.h5", &back_bytes, NULL);
    cr_assert_eq(back_bytes, bytes);
    cr_assert(memcmp(back, text, bytes) == 0, "other bytes came back");
    free(back);
    free(text);
}

Test(pack, a_shard_ends_at_the_first_document_end_past_its_size)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.txt", i);
        write_input(name, "\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9); /* 9 bytes, an end */
    }
    options.shard_tokens = 25;
    options.binary = true;
    ND_ASSERT_OK(nd_pack(&options, &result));
    cr_assert_eq(result.tokens, 100);
    cr_assert_eq(result.shards, 4); /* 3, 3, 3 and 1 documents */
}

static int64_t pack_held_out(double fraction, bool reverse, char *held_out)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    for (int i = 0; i < 300; i++) {
        char name[32], text[32];
        snprintf(name, sizeof name, "%03d.txt", reverse ? 999 - i : i);
        snprintf(text, sizeof text, "document %d\n", i);
        write_input(name, text, strlen(text));
    }
    options.val_fraction = fraction;
    options.overwrite = true;
    ND_ASSERT_OK(nd_pack(&options, &result));
    size_t bytes;
    char *text = shard_text("val_00000.h5", &bytes, NULL);
    strcpy(held_out, text);
    free(text);
    return result.val_documents;
}

Test(pack, about_the_asked_fraction_is_held_out)
{
    char text[16384];
    const int64_t documents = pack_held_out(0.2, false, text);
    cr_assert(documents > 40 && documents < 80, "%ld of 300 held out at 0.2", documents);
}

Test(pack, what_is_held_out_depends_on_the_text_alone)
{
    char forward[16384], backward[16384], line[32];
    const int64_t documents = pack_held_out(0.2, false, forward);
    nd_test_shell(NULL, 0, "rm %s/*", input);
    cr_assert_eq(pack_held_out(0.2, true, backward), documents);
    cr_assert_str_neq(forward, backward);
    for (int i = 0; i < 300; i++) {
        snprintf(line, sizeof line, "document %d\n", i);
        cr_assert_eq(strstr(forward, line) != NULL, strstr(backward, line) != NULL, "document %d",
                     i);
    }
}

Test(pack, json_lines_give_a_document_a_line)
{
    nd_pack_result result;
    size_t bytes;
    static const char lines[] = "{\"id\": 1, \"text\": \"a\\u0000b\\n\"}\n\n"
                                "{\"text\": \"gr\\u00f6\\u00dfte\"}\r\n{\"text\": \"\"}\n"
                                "{\"text\": \"last\"}";
    write_input("a.jsonl", lines, sizeof lines - 1);
    ND_ASSERT_OK(pack("text", &result));
    cr_assert_eq(result.documents, 3);
    char *text = shard_text("train_00000.h5", &bytes, NULL);
    cr_assert_eq(bytes, 16u);
    cr_assert_arr_eq(text, "a\0b\ngr\xc3\xb6\xc3\x9ftelast", 16);
    free(text);
}

static void assert_line_refused(const char *bad_line, const char *reason)
{
    nd_pack_result result;
    char lines[1024];
    snprintf(lines, sizeof lines, "{\"text\": \"good\"}\n%s\n", bad_line);
    write_input("a.jsonl", lines, strlen(lines));
    ND_ASSERT_FAILS(pack("text", &result), ND_EDATA, reason);
    cr_assert(strstr(nd_error_get()->message, "a.jsonl:2: ") != NULL, "%s",
              nd_error_get()->message);
}

Test(pack, a_line_that_is_no_json_is_named)
{
    assert_line_refused("{\"text\": \"no end", "is not JSON");
}

Test(pack, a_line_that_is_no_object_is_named)
{
    assert_line_refused("[1, 2]", "this line is an array; expected a JSON object");
}

Test(pack, a_line_without_the_field_is_named)
{
    assert_line_refused("{\"content\": \"x\"}", "the object has no field 'text'");
}

Test(pack, a_field_that_is_no_string_is_named)
{
    assert_line_refused("{\"text\": 17}", "field 'text' is an integer; expected a string");
}

Test(pack, a_line_with_invalid_utf8_is_named)
{
    assert_line_refused("{\"text\": \"\xff\xfe\"}", "unable to decode byte 0xff");
}

Test(pack, a_failed_pack_leaves_no_unfinished_file)
{
    char listing[4096] = "";
    assert_line_refused("oops", "is not JSON");
    nd_test_shell(listing, sizeof listing, "ls -A %s", out);
    cr_assert_str_eq(listing, "");
}

Test(pack, shards_are_not_replaced_unless_asked)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    write_input("a.txt", "text", 4);
    ND_ASSERT_OK(nd_pack(&options, &result));
    ND_ASSERT_FAILS(nd_pack(&options, &result), ND_ECONFIG, "already holds shards");
    options.overwrite = true;
    ND_ASSERT_OK(nd_pack(&options, &result));
}

Test(pack, replacing_removes_every_old_shard)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    char listing[4096] = "";
    write_input("a.txt", "text", 4);
    write_input("b.txt", "text", 4);
    options.shard_tokens = 1;
    ND_ASSERT_OK(nd_pack(&options, &result));
    options.shard_tokens = 1000;
    options.overwrite = true;
    ND_ASSERT_OK(nd_pack(&options, &result));
    nd_test_shell(listing, sizeof listing, "ls -A %s", out);
    cr_assert_str_eq(listing, "index.json\ntokenizer.model\ntrain_00000.h5\n");
}

Test(pack, shards_of_another_tokenizer_are_never_replaced)
{
    const char *const inputs[] = {input};
    nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    write_input("a.txt", "text", 4);
    ND_ASSERT_OK(nd_pack(&options, &result));
    nd_test_train_tokenizer(directory, 2);
    options.overwrite = true;
    ND_ASSERT_FAILS(nd_pack(&options, &result), ND_EDATA,
                    "train_00000.h5: this shard was packed with another tokenizer");
}

Test(pack, a_missing_input_is_named)
{
    const char *const inputs[] = {"/nonexistent/text"};
    const nd_pack_options options = options_for(inputs);
    nd_pack_result result;
    ND_ASSERT_FAILS(nd_pack(&options, &result), ND_EDATA, "/nonexistent/text");
}

Test(pack, inputs_without_files_are_refused)
{
    nd_pack_result result;
    ND_ASSERT_FAILS(pack(NULL, &result), ND_EDATA, "no file here");
    write_input("empty.txt", "", 0);
    ND_ASSERT_FAILS(pack(NULL, &result), ND_EDATA, "hold no text to pack");
}

Test(pack, a_file_that_is_no_tokenizer_is_refused)
{
    nd_pack_result result;
    write_input("a.txt", "text", 4);
    nd_test_write_file(model, "not a model", 11);
    ND_ASSERT_FAILS(pack(NULL, &result), ND_EDATA, "tok.model: not a SentencePiece model");
}

Test(pack, standard_input_is_a_document)
{
    char report[4096] = "";
    const int code =
        nd_test_shell(report, sizeof report,
                      "printf 'from a pipe' | '%s' pack --tokenizer %s --out %s --val-fraction 0 -",
                      ND_BINARY, model, out);
    cr_assert_eq(code, 0, "%s", report);
    size_t bytes;
    char *text = shard_text("train_00000.h5", &bytes, NULL);
    cr_assert_str_eq(text, "from a pipe");
    free(text);
}

Test(pack, the_command_encodes_and_decodes_to_the_same_bytes)
{
    char report[4096] = "";
    char *text = nd_test_code(5, 3000000);
    text[1500000] = '\0';
    text[1500001] = (char)0xff;
    write_input("text", text, 3000000);
    free(text);
    const int code = nd_test_shell(report, sizeof report,
                                   "'%s' tokenizer encode --model %s %s/text | '%s' tokenizer "
                                   "decode --model %s | cmp - %s/text",
                                   ND_BINARY, model, input, ND_BINARY, model, input);
    cr_assert_eq(code, 0, "%s", report);
}

Test(pack, tokens_in_utf16_are_refused)
{
    char report[4096] = "";
    write_input("tokens",
                "5\0 \0"
                "6\0",
                6);
    const int code =
        nd_test_shell(report, sizeof report, "'%s' tokenizer decode --model %s %s/tokens",
                      ND_BINARY, model, input);
    cr_assert_eq(code, 3, "exit code %d, %s", code, report);
    cr_assert(strstr(report, "tokens: byte 1 is NUL; expected numbers in text") != NULL, "%s",
              report);
}

Test(pack, wrong_flags_are_named)
{
    static const struct {
        const char *arguments, *reason;
    } cases[] = {
        {"pack --nonsense", "unknown option '--nonsense'"},
        {"pack --out", "--out needs a value"},
        {"pack --out x y", "--tokenizer is missing"},
        {"pack --tokenizer x --out y", "the input is missing"},
        {"pack --shard-tokens many", "--shard-tokens: 'many' is not a whole number"},
        {"pack --tokenizer x --out y --val-fraction 1.5 z",
         "--val-fraction is 1.5; expected at least 0"},
        {"tokenizer", "expected train, encode or decode"},
        {"tokenizer train --input x", "--output is missing"},
        {"tokenizer train --model x", "unknown option '--model'"},
        {"tokenizer train --vocab-size 12", "expected a whole number from 260"},
        {"tokenizer encode", "--model is missing"},
        {"tokenizer decode --model x y z", "'z' is one argument too many"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char report[4096] = "";
        const int code = nd_test_shell(report, sizeof report, "'%s' %s < /dev/null", ND_BINARY,
                                       cases[i].arguments);
        cr_assert_eq(code, 2, "%s: exit code %d, %s", cases[i].arguments, code, report);
        cr_assert(strstr(report, cases[i].reason) != NULL, "%s: \"%s\" lacks \"%s\"",
                  cases[i].arguments, report, cases[i].reason);
    }
}
