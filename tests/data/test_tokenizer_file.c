/* The same text gives the same tokenizer file, to the byte. */
#include "core/base/durable_file.h"
#include "data/tokenizer/tokenizer.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdlib.h>

static const char *directory;

static void set_up(void)
{
    directory = nd_test_directory();
    cr_assert_eq(nd_test_shell(NULL, 0, "mkdir -p %s/in/b %s/in/c", directory, directory), 0);
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"in/a-b.txt", "in/b/x.txt", "in/c/y.txt", "in/d.txt"};
        char *text = nd_test_code((uint64_t)i + 1, 20000);
        nd_test_write_file(nd_test_path(directory, names[i]), text, 20000);
        free(text);
    }
}

static void tear_down(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(tokenizer_file, .init = set_up, .fini = tear_down);

/* The SHA-256 of what `tokenizer train` makes with these arguments; `max-bytes` samples. */
static const char *trained(const char *arguments)
{
    static char hex[8][ND_SHA256_HEX_SIZE];
    static int at;
    char output[4096] = "";
    int64_t bytes;
    const int code = nd_test_shell(output, sizeof output,
                                   "cd %s && '%s' tokenizer train --vocab-size 400 --max-bytes "
                                   "50000 --output out.model %s",
                                   directory, ND_BINARY, arguments);
    cr_assert_eq(code, 0, "%s: %s", arguments, output);
    at = (at + 1) % 8;
    ND_ASSERT_OK(nd_file_digest(nd_test_path(directory, "out.model"), &bytes, hex[at]));
    return hex[at];
}

Test(tokenizer_file, is_the_same_for_any_number_of_threads)
{
    const char *usual = trained("--input in");
    cr_assert_str_eq(usual, trained("--input in --threads 1"));
    cr_assert_str_eq(usual, trained("--input in --threads 16"));
    cr_assert_str_eq(usual,
                     trained("--input in --threads 300")); /* more than SentencePiece takes */
}

Test(tokenizer_file, is_the_same_however_its_inputs_are_spelled)
{
    const char *usual = trained("--input in");
    cr_assert_str_eq(usual, trained("--input ./in/../in//"));
    cr_assert_str_eq(usual, trained("--input $PWD/in/d.txt --input in/c --input in/b/x.txt "
                                    "--input ./in/a-b.txt"));
    cr_assert_str_eq(usual, trained("--input in/d.txt --input in"));
    cr_assert_str_neq(usual, trained("--input in/d.txt --input in/b"));
}

Test(tokenizer_file, is_the_same_for_compressed_inputs)
{
    const char *usual = trained("--input in");
    cr_assert_eq(
        nd_test_shell(NULL, 0, "cd %s && gzip in/b/x.txt && zstd -q --rm in/d.txt", directory), 0);
    cr_assert_str_eq(usual, trained("--input in"));
}

/* Runs a shell script in the directory, where `train ARGUMENTS` trains a tokenizer. */
static void run(const char *script)
{
    char output[4096] = "";
    const int code =
        nd_test_shell(output, sizeof output,
                      "cd %s; train() { '%s' tokenizer train --output out.model \"$@\"; }; %s",
                      directory, ND_BINARY, script);
    cr_assert_eq(code, 0, "%s: %s", script, output);
}

Test(tokenizer_file, is_the_same_for_texts_in_json_lines)
{
    const char *usual = trained("--input in");
    run("python3 -c 'import glob, json\n"
        "for name in glob.glob(\"in/**/*.txt\", recursive=True):\n"
        "    text = open(name, newline=\"\").read()\n"
        "    print(json.dumps({\"other\": 1, \"text\": text}), file=open(name, \"w\"))'");
    cr_assert_str_eq(usual, trained("--input in --jsonl-field text"));
    cr_assert_str_neq(usual, trained("--input in"));
}

/* The pieces beside bytes and marks: x, y, z, xy, yz and xyz. */
Test(tokenizer_file, has_no_pieces_that_join_documents)
{
    run("yes '{\"text\": \"xyz\"}' | head -n 9999 > a.jsonl; "
        "train --input a.jsonl --jsonl-field text --vocab-size 265 && "
        "train --input a.jsonl --jsonl-field text --vocab-size 266 > log 2>&1; "
        "test $? = 3 && grep 'give --vocab-size 265 or less' log");
}

Test(tokenizer_file, is_not_learned_from_the_syntax_of_json)
{
    run("printf '{\"text\": \"a b c d e f\"}\\n{}\\n' > a.jsonl;"
        "train --input a.jsonl --vocab-size 265 > log 2>&1; test $? = 3 && "
        "grep 'a.jsonl: JSON Lines by its name; give --jsonl-field NAME' log || exit 1; "
        "train --input a.jsonl --jsonl-field text --vocab-size 265 > log 2>&1; test $? = 3 && "
        "grep \"a.jsonl:2: the object has no field 'text'\" log || exit 2; "
        "train --input a.jsonl --jsonl-field text --skip-bad --vocab-size 266 > log 2>&1 && grep "
        "'left out: 1 bad line of JSON Lines (a.jsonl:2: ' log || { cat log; exit 3; }");
}
