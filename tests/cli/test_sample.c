/* Generated text as it reaches the terminal, and conversations. */
#include "cli/text_stream.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VOCABULARY = 400 };

/* What a stream that stops at `stop` prints of these pieces; `seen[i]` bytes of it after
 * piece i. */
static char *stream(const char *stop, const char *const *pieces, int count, size_t *seen)
{
    char *text = NULL;
    size_t bytes = 0;
    bool stopped = false;
    nd_text_stream s = {.out = open_memstream(&text, &bytes), .stop = stop};
    for (int i = 0; i < count && !stopped; i++) {
        ND_ASSERT_OK(nd_text_stream_put(&s, pieces[i], strlen(pieces[i]), &stopped));
        seen[i] = bytes;
    }
    FILE *out = s.out;
    nd_text_stream_end(&s);
    fclose(out);
    return text;
}

Test(sample, a_character_is_printed_when_all_its_bytes_are_there)
{
    static const char *const pieces[] = {"a\xe6",    "\xbc",     "\xa2\x62", /* and a b */
                                         "\xf0\x9f", "\xa6\x80", "\xc3"};
    size_t seen[6];
    char *text = stream(NULL, pieces, 6, seen);
    const size_t expected[] = {1, 1, 5, 5, 9, 9};
    for (int i = 0; i < 6; i++)
        cr_assert_eq(seen[i], expected[i], "after piece %d: %zu bytes", i, seen[i]);
    cr_assert_str_eq(text, "a\xe6\xbc\xa2"
                           "b\xf0\x9f\xa6\x80\xc3"); /* a cut one comes at the end */
    free(text);
}

Test(sample, bytes_that_are_no_character_are_not_waited_for)
{
    static const char *const pieces[] = {"\x80\x80\x80\x80", "\xff", "x"};
    size_t seen[3];
    free(stream(NULL, pieces, 3, seen));
    cr_assert_eq(seen[0], 4);
    cr_assert_eq(seen[2], 6);
}

Test(sample, the_text_to_stop_at_is_never_printed)
{
    static const char *const pieces[] = {"one\n", "Us", "ed\nU", "ser", ": two"};
    size_t seen[5];
    char *text = stream("\nUser:", pieces, 5, seen);
    cr_assert_str_eq(text, "one\nUsed");
    const size_t expected[] = {3, 3, 8, 8, 8}; /* "\nUs" was held back until "e" came */
    for (int i = 0; i < 5; i++)
        cr_assert_eq(seen[i], expected[i], "after piece %d: %zu bytes", i, seen[i]);
    free(text);
}

static char directory[64], output[65536];

static int run(const char *command)
{
    return nd_test_shell(output, sizeof output, "cd %s && B=%s && %s", directory, ND_BINARY,
                         command);
}

#define ASSERT_RUNS(command) cr_assert_eq(run(command), 0, "%s: %s", command, output)

/* One step of a small model, with a tokenizer. */
static void setup(void)
{
    static const char config[] =
        "[model]\nhidden_dim = 32\nnum_layers = 2\nnum_heads = 4\nnum_kv_heads = 2\n"
        "max_seq_len = 128\nvocab_size = 400\n[training]\ntotal_steps = 1\nbatch_size = 2\n"
        "seq_length = 32\n[data]\ndata_path = shards\n[logging]\neval_samples = 1\n";
    strcpy(directory, nd_test_directory());
    char *code = nd_test_code(5, 60000);
    nd_test_write_file(nd_test_path(directory, "code.c"), code, 60000);
    free(code);
    nd_test_train_tokenizer(directory, 5);
    nd_test_write_file(nd_test_path(directory, "c.ini"), config, sizeof config - 1);
    ASSERT_RUNS("$B pack --tokenizer tok.model --out shards --val-fraction 0.1 code.c && "
                "$B --config c.ini --run-dir run");
}

static void teardown(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(chat, .init = setup, .fini = teardown);

static long tokens_of(const char *text)
{
    char command[512];
    snprintf(command, sizeof command, "printf '%s' | $B tokenizer encode --model tok.model | wc -w",
             text);
    ASSERT_RUNS(command);
    return strtol(output, NULL, 10);
}

static long logit_rows(void)
{
    struct stat info;
    cr_assert_eq(stat(nd_test_path(directory, "logits"), &info), 0);
    return (long)(info.st_size / (VOCABULARY * 4));
}

Test(chat, every_token_runs_through_the_model_once)
{
    ASSERT_RUNS("printf 'one\\ntwo\\nthree\\n' | $B sample --checkpoint run --chat --max-tokens 5 "
                "--temperature 0 --stop never --logits logits");
    const long expected = 1 + tokens_of("User: one\\nAssistant:") +
                          tokens_of("\\nUser: two\\nAssistant:") +
                          tokens_of("\\nUser: three\\nAssistant:") + 3 * 5;
    cr_assert_eq(logit_rows(), expected, "%ld tokens, expected %ld", logit_rows(), expected);
}

Test(chat, a_conversation_ends_with_the_input)
{
    ASSERT_RUNS("printf 'one' | $B sample --checkpoint run --chat --max-tokens 3 --seed 1");
    ASSERT_RUNS("$B sample --checkpoint run --chat < /dev/null");
    cr_assert_str_eq(output, "");
}

Test(chat, lines_may_end_as_on_dos)
{
    ASSERT_RUNS("S='$B sample --checkpoint run --chat --max-tokens 3 --stop never --logits'; "
                "printf 'one\ntwo\n' | eval $S unix && printf 'one\r\ntwo\r\n' | eval $S dos "
                "&& cmp unix dos");
}

Test(chat, an_input_that_cannot_be_read_is_an_error)
{
    static const char *const inputs[] = {"< .", "<&-"};
    for (size_t i = 0; i < 2; i++) {
        char command[128];
        snprintf(command, sizeof command, "$B sample --checkpoint run --chat %s", inputs[i]);
        cr_assert_eq(run(command), 1, "%s: %s", inputs[i], output);
        cr_assert(strstr(output, "cannot read standard input: ") != NULL, "%s", output);
    }
}

Test(chat, a_full_context_ends_it_with_a_message)
{
    ASSERT_RUNS("yes question | head -n 100 | $B sample --checkpoint run --chat --max-tokens 8 "
                "--stop never");
    cr_assert(strstr(output, "the context of 128 tokens is full") != NULL, "%s", output);
    ASSERT_RUNS("yes question | head -n 100 | $B sample --checkpoint run --chat --max-tokens 800 "
                "--stop never");
    /* In a reply, or before a question where the model ended its replies by itself: its bits
     * decide. */
    cr_assert(strstr(output, "the context of 128 tokens is full (") != NULL, "%s", output);
    /* A question of 127 tokens, and one of the reply. */
    ASSERT_RUNS("head -c 127 /dev/zero | tr '\\0' '\\1' | $B sample --checkpoint run --chat "
                "--user-prefix '' --reply-prefix ''");
    cr_assert(strstr(output, "is full (127 free, 128 needed)") != NULL, "%s", output);
}

/* The stop text is what the model said itself: then nothing of it stays in the cache, so that the
 * same conversation without it gives the same second reply. */
Test(chat, what_the_stop_text_cut_off_is_forgotten)
{
    ASSERT_RUNS(
        "$B sample --checkpoint run --prompt 'User: a\nAssistant:' --max-tokens 12 "
        "--temperature 0 > whole && tail -c +19 whole | head -c 24 | tail -c 3 > stop && "
        "printf 'a\\nb\\n' | $B sample --checkpoint run --chat --temperature 0 "
        "--max-tokens 12 --stop \"$(cat stop)\" --logits logits > stopped; wc -c < stopped");
    const long rows = logit_rows();
    ASSERT_RUNS("printf 'a\\nb\\n' | $B sample --checkpoint run --chat --temperature 0 "
                "--max-tokens 12 --stop never --logits logits > unstopped; wc -c < unstopped");
    cr_assert_lt(rows, logit_rows());
}

Test(chat, logits_replace_logits_and_no_other_file_of_their_size)
{
    ASSERT_RUNS(
        "S='sample --checkpoint run --prompt x --max-tokens 2 --logits f';"
        "$B $S > log && cp f first && $B $S > log && cmp f first || exit 1;"
        "for mine in 'yes mine' 'cat /dev/zero' 'yes \"$(printf \"\\\\1\\\\0\")\"' "
        "'cat /dev/urandom'; do eval \"$mine\" | head -c $((2 * 4 * 400)) > f; cp f before; "
        "$B $S > log 2>&1; test $? = 2 && grep 'f: this file holds no logits of 400' log && "
        "cmp f before || { cat log; exit 2; }; done; rm f; touch f; $B $S > log");
}
