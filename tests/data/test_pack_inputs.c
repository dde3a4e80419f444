/* What pack reads of its inputs, and what it says about the rest. */
#include "data/pack/pack.h"
#include "data/shards/shard.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char directory[64], output[16384];

static void set_up(void)
{
    strcpy(directory, nd_test_directory());
    nd_test_train_tokenizer(directory, 1);
    cr_assert_eq(nd_test_shell(NULL, 0, "mkdir %s/in", directory), 0);
}

static void tear_down(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(pack_inputs, .init = set_up, .fini = tear_down);

static void prepare(const char *commands)
{
    const int code = nd_test_shell(output, sizeof output, "cd %s && B=%s && { %s; }", directory,
                                   ND_BINARY, commands);
    cr_assert_eq(code, 0, "%s: %s", commands, output);
}

static int pack(const char *arguments)
{
    return nd_test_shell(output, sizeof output,
                         "cd %s && '%s' pack --quiet %s --tokenizer tok.model --out "
                         "out %s",
                         directory, ND_BINARY,
                         strstr(arguments, "--val-fraction") ? "" : "--val-fraction 0", arguments);
}

static void assert_packed(const char *arguments, const char *text, const char *says)
{
    char path[128], *back;
    nd_shard shard;
    nd_tokenizer *tokenizer;
    size_t bytes;
    cr_assert_eq(pack(arguments), 0, "%s: %s", arguments, output);
    cr_assert(strstr(output, says) != NULL, "\"%s\" lacks \"%s\"", output, says);
    snprintf(path, sizeof path, "%s/out/train_00000.h5", directory);
    ND_ASSERT_OK(nd_shard_open(path, &shard));
    snprintf(path, sizeof path, "%s/tok.model", directory);
    ND_ASSERT_OK(nd_tokenizer_open(path, &tokenizer));
    int32_t *tokens = malloc((size_t)shard.n_tokens * sizeof *tokens);
    ND_ASSERT_OK(nd_shard_read(&shard, 0, shard.n_tokens, tokens));
    ND_ASSERT_OK(nd_tokenizer_decode(tokenizer, tokens, (size_t)shard.n_tokens, &back, &bytes));
    cr_assert_str_eq(back, text);
    free(back);
    free(tokens);
    nd_tokenizer_close(tokenizer);
    nd_shard_close(&shard);
}

static void assert_refused(const char *arguments, int code, const char *says)
{
    cr_assert_eq(pack(arguments), code, "%s: %s", arguments, output);
    cr_assert(strstr(output, says) != NULL, "\"%s\" lacks \"%s\"", output, says);
    cr_assert_eq(nd_test_shell(NULL, 0, "ls %s/out/*.h5", directory), 2, "something was packed");
}

Test(pack_inputs, do_not_hold_what_pack_wrote_itself)
{
    prepare("echo one > in/a; mkdir in/out; ln -s in/out out");
    assert_packed("in", "one\n", "1 documents");
    assert_packed("--overwrite in", "one\n", "left out: 3 files of the output directory");
    assert_packed("--overwrite in/../in/.", "one\n", "left out: 3 files of the output directory");
    assert_packed("--overwrite in in/out", "one\n", "files of the output directory");
}

Test(pack_inputs, may_lie_in_the_output_directory)
{
    prepare("mkdir out; echo one > out/a");
    assert_packed("out", "one\n", "1 documents");
    assert_packed("--overwrite out", "one\n", "left out: 3 files of the output directory");
}

Test(pack_inputs, are_found_through_links_and_read_once)
{
    prepare("mkdir far; echo 2 > far/b; echo 1 > in/a; ln -s ../far in/link; ln -s ../far/b in/z; "
            "ln -s . in/loop; ln -s nowhere in/dangling; ln -s self in/self; ln in/a in/hard");
    assert_packed("in in/a", "1\n2\n", "left out: 3 links that lead nowhere or back");
    cr_assert(strstr(output, "left out: 3 files that were reached twice") != NULL, "%s", output);
}

Test(pack_inputs, leave_hidden_directories_and_devices_out_and_say_so)
{
    prepare("echo 1 > in/a; mkdir in/.git; echo no > in/.git/x; echo 2 > in/.hidden; mkfifo in/p");
    assert_packed("in", "2\n1\n", "left out: 1 hidden directory (in/.git); name one as an input");
    cr_assert(strstr(output, "left out: 1 device, pipe or socket (in/p)") != NULL, "%s", output);
    assert_packed("--overwrite in/.git", "no\n", "1 documents");
}

Test(pack_inputs, that_are_no_text_are_left_out_and_named)
{
    prepare("echo 1 > in/a; head -c 5000 /bin/sh > in/sh; printf 'a\\0b' > in/nul; printf "
            "'\\375\\067zXZ\\0\\0\\0' > in/x.xz; printf '\\377\\376a\\0b\\0' > in/utf16; tar -cf "
            "in/z.tar tok.model");
    assert_packed("in", "1\n", "left out: 5 files that are not text (first: in/nul: not text)");
    prepare("rm -r out");
    assert_refused("in/sh", 3, "in/sh: not text; or give --binary");
    assert_refused("in/x.xz", 3, "compressed with xz; decompress it first");
    assert_refused("in/z.tar", 3, "a tar archive; unpack it first");
    assert_refused("in/utf16", 3, "UTF-16 perhaps; convert it first (iconv)");
    assert_refused("--glob '*.xz' in", 3, "the files here hold no text to pack");
    cr_assert(strstr(output, "left out: 1 file that is not text (in/x.xz: compressed") != NULL,
              "%s", output);
}

Test(pack_inputs, from_standard_input_that_hold_nothing_are_called_so)
{
    prepare(":");
    assert_refused("- < /dev/null", 3, "(standard input): there is no text here to pack");
    assert_refused("--jsonl-field text - < /dev/null", 3, "(standard input): there is no text");
}

Test(pack_inputs, of_damaged_utf8_with_dos_lines_and_long_ones_come_back)
{
    prepare("printf 'caf\\351 ol\\351\\r\\nnext' > in/a; head -c 300000 /dev/zero | tr '\\0' 'x' > "
            "in/b");
    cr_assert_eq(pack("in"), 0, "%s", output);
    cr_assert(strstr(output, "2 documents") != NULL && !strstr(output, "left out"), "%s", output);
}

Test(pack_inputs, that_are_parquet_or_json_lines_without_a_field_are_refused)
{
    prepare("echo 1 > in/a; printf 'PAR1\\0\\0\\0' > in/p");
    assert_refused("in", 3, "in/p: a Parquet file; write its text column as JSON Lines first");
    prepare("rm in/p; echo '{}' | gzip > in/x.jsonl.gz");
    assert_refused("in", 3, "in/x.jsonl.gz: JSON Lines by its name; give --jsonl-field NAME");
    assert_packed("--glob a in", "1\n", "1 documents");
}

Test(pack_inputs, may_be_compressed)
{
    prepare("echo one | gzip > in/1; echo two | gzip >> in/1; head -c 512 /dev/zero >> in/1; echo "
            "three | zstd -q > in/2; echo four | zstd -q >> in/2; printf five | gzip > in/3");
    assert_packed("in", "one\ntwo\nthree\nfour\nfive", "3 documents");
    assert_packed("--overwrite - < in/2", "three\nfour\n", "1 documents");
}

Test(pack_inputs, that_are_compressed_and_damaged_are_refused)
{
    prepare(
        "seq 9999 > s; gzip -c s | head -c 9000 > in/short.gz; zstd -qc s | head -c 5000 > "
        "in/short.zst; (gzip -c s; echo rubbish) > in/rest.gz; gzip -c s | tr 'a' 'b' > in/bad.gz");
    assert_refused("in/short.gz", 3, "short.gz: its compressed data is cut short at byte 9000");
    assert_refused("in/short.zst", 3, "short.zst: its compressed data is cut short at byte 5000");
    assert_refused("in/rest.gz", 3, "rest.gz: its gzip data is damaged");
    assert_refused("in/bad.gz", 3, "bad.gz: its gzip data is damaged");
}

Test(pack_inputs, may_begin_with_a_byte_order_mark)
{
    prepare("printf '\\357\\273\\277text' > in/a; printf '\\357\\273\\277{\"text\": \"json\"}\\n' "
            "> b.jsonl");
    assert_packed("in", "text", "1 documents");
    assert_packed("--overwrite --jsonl-field text b.jsonl", "json", "1 documents");
}

Test(pack_inputs, of_json_lines_may_hold_numbers_of_any_size)
{
    prepare("printf '%s\\n' '{\"n\": 18446744073709551615, \"text\": \"a1e999 "
            "123456789012345678901\"}' "
            "'{\"x\": [-99999999999999999999999, 1e999, 1.5E-400], \"text\": \"b\"}' > a.jsonl");
    assert_packed("--jsonl-field text a.jsonl", "a1e999 123456789012345678901b", "2 documents");
    prepare("rm -r out; echo '{\"text\": 99999999999999999999}' > a.jsonl");
    assert_refused("--jsonl-field text a.jsonl", 3, "a.jsonl:1: field 'text' is an integer");
    prepare("echo '{\"n\": 99999999999999999999x}' > a.jsonl");
    assert_refused("--jsonl-field text a.jsonl", 3, "a.jsonl:1: byte");
}

Test(pack_inputs, of_json_lines_may_hold_bad_ones_that_are_counted)
{
    prepare("printf '%s\\n' '{\"text\": \"a\"}' '{\"text\": ' '{\"text\": null}' '' '[1]' "
            "'{\"text\": \"b\"}' '{\"te' > a.jsonl");
    assert_refused("--jsonl-field text a.jsonl", 3, "a.jsonl:2: byte");
    assert_packed("--jsonl-field text --skip-bad a.jsonl", "ab",
                  "left out: 4 bad lines of JSON Lines (first: a.jsonl:2: byte");
    prepare("rm -r out");
    assert_refused("--skip-bad in", 2, "--skip-bad is about JSON Lines");
}

Test(pack_inputs, that_change_while_they_are_read_are_refused)
{
    prepare("head -c 3000000 /dev/zero | tr '\\0' 'x' > in/log");
    prepare("(while echo more >> in/log; do sleep 0.01; done) > /dev/null 2>&1 & echo $! > writer");
    int code = 0;
    for (int attempt = 0; code == 0 && attempt < 50;
         attempt++) { /* other work may stop the writer */
        prepare("rm -rf out");
        code = pack("in");
    }
    nd_test_shell(NULL, 0, "kill $(cat %s/writer)", directory);
    cr_assert_eq(code, 3, "%s", output);
    cr_assert(strstr(output, "in/log: changed while it was read") != NULL, "%s", output);
}

Test(pack_inputs, held_out_text_shorter_than_usual_windows_is_announced)
{
    prepare("for i in $(seq 30); do echo $i > in/$i; done");
    cr_assert_eq(pack("--val-fraction 0.3 in"), 0, "%s", output);
    cr_assert(strstr(output, "the largest held-out shard has ") != NULL, "%s", output);
}

Test(pack_inputs, from_standard_input_are_read_once_and_from_where_it_stands)
{
    prepare("printf 'one\\ntwo\\n' > in/a");
    assert_packed("- - < in/a", "one\ntwo\n", "left out: 1 file that was reached twice");
    prepare("rm -r out");
    prepare("(read line; $B pack --quiet --tokenizer tok.model --out out --val-fraction 0 - > log "
            "2>&1 || cat log) < in/a; test -f out/index.json");
}
