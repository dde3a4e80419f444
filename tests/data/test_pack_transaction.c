/* A pack that is killed or fails at any of its system calls leaves the data set that was there or
 * the new one, whole, and the next pack ends well. */
#include "data/data_directory.h"
#include "support/data_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS_MAX = 2000 };

static char directory[64], output[16384];

static void set_up(void)
{
    strcpy(directory, nd_test_directory());
    nd_test_train_tokenizer(directory, 1);
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "cd %s && mkdir old new && for i in 1 2; do echo old $i > old/$i; "
                               "done && echo something new > new/1",
                               directory),
                 0, "%s", output);
}

static void tear_down(void)
{
    nd_test_remove_directory(directory);
}

TestSuite(pack_transaction, .init = set_up, .fini = tear_down);

static int pack(const char *fault, const char *input)
{
    return nd_test_shell(output, sizeof output,
                         "cd %s && env %s '%s' pack --quiet --overwrite --val-fraction 0 "
                         "--shard-tokens 1 --tokenizer tok.model --out %s/data %s",
                         directory, fault, ND_BINARY, directory, input);
}

/* "old" or "new" by the data set's index, "none" where there is no whole one, and no
 * other state. */
static const char *state(void)
{
    char path[128], tokens[64];
    nd_data_directory d;
    snprintf(path, sizeof path, "%s/data", directory);
    nd_error_clear();
    if (nd_data_directory_open(path, &d) != ND_OK)
        return "none";
    const size_t shards = d.index.count;
    nd_data_directory_close(&d);
    FILE *out = fmemopen(output, sizeof output, "w");
    nd_error_clear();
    const nd_status status = nd_data_directory_print(path, true, out);
    fclose(out);
    cr_assert_eq(status, ND_OK, "a data set that is not whole: %s", nd_error_get()->message);
    snprintf(tokens, sizeof tokens, "%zu documents, %zu shards", shards, shards);
    cr_assert(strstr(output, tokens) != NULL, "%s", output);
    cr_assert(shards == 1 || shards == 2, "%zu shards", shards);
    return shards == 2 ? "old" : "new";
}

/* Fails each call once, from the first to the one that is never made; the old data set stands
 * before each. Every fifth only, unless it is the replacement that is killed or ND_IO_FAULTS_ALL is
 * set. */
static void fail_at_every_call(const char *kind, bool had_one)
{
    char fault[256];
    int news = 0, olds = 0;
    const bool all = getenv("ND_IO_FAULTS_ALL") || (had_one && strcmp(kind, "kill") == 0);
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    nd_test_shell(NULL, 0, "mv %s/data %s/whole", directory, directory);
    for (int call = 1;; call += all ? 1 : 5) {
        cr_assert_lt(call, CALLS_MAX);
        nd_test_shell(NULL, 0, "cd %s && rm -rf data && %s", directory,
                      had_one ? "cp -a whole data" : ":");
        snprintf(fault, sizeof fault, "LD_PRELOAD=%s ND_IO_FAULT=%s:%d:%s/data", ND_IO_FAULTS, kind,
                 call, directory);
        const int code = pack(fault, "new");
        const char *after = state();
        cr_assert(code != 0 || strcmp(after, "new") == 0, "%s at call %d: exit 0, but %s", kind,
                  call, after);
        cr_assert(strcmp(after, "none") != 0 || !had_one, "%s at call %d: no data set is left: %s",
                  kind, call, nd_error_get()->message);
        cr_assert(strcmp(after, "old") != 0 || had_one);
        news += strcmp(after, "new") == 0;
        olds += strcmp(after, "new") != 0;
        cr_assert_eq(pack("", "new"), 0, "%s at call %d: the next pack: %s", kind, call, output);
        cr_assert_str_eq(state(), "new");
        nd_test_shell(output, sizeof output, "ls -A %s/data", directory);
        cr_assert_str_eq(output, "index.json\ntokenizer.model\ntrain_00000.h5\n");
        if (code == 0 &&
            (strcmp(kind, "eio") != 0 || call > 100)) /* some calls may fail without harm */
            break;
    }
    cr_assert(news >= 1 && olds > 5, "%d new and %d others", news, olds);
}

Test(pack_transaction, of_a_replacement_survives_a_kill_at_every_call, .timeout = 300)
{
    fail_at_every_call("kill", true);
}

Test(pack_transaction, of_a_first_pack_survives_a_kill_at_every_call, .timeout = 300)
{
    fail_at_every_call("kill", false);
}

Test(pack_transaction, survives_a_disk_that_is_full_from_any_call_on, .timeout = 300)
{
    fail_at_every_call("enospc", true);
}

Test(pack_transaction, survives_an_io_error_at_any_call, .timeout = 300)
{
    fail_at_every_call("eio", true);
}

Test(pack_transaction, is_finished_by_pack_index_too)
{
    char fault[256], before[16];
    int call = 1;
    for (bool unfinished = false; !unfinished; call++) {
        cr_assert_lt(call, CALLS_MAX);
        nd_test_shell(NULL, 0, "rm -rf %s/data", directory);
        cr_assert_eq(pack("", "old"), 0, "%s", output);
        snprintf(fault, sizeof fault, "LD_PRELOAD=%s ND_IO_FAULT=kill:%d:%s/data", ND_IO_FAULTS,
                 call, directory);
        cr_assert_eq(pack(fault, "new"), 137, "%s", output);
        unfinished = nd_test_shell(NULL, 0, "test -e %s/data/" ND_PACK_STAGING "/index.json",
                                   directory) == 0;
    }
    strcpy(before, state());
    cr_assert_str_eq(before, "new");
    cr_assert_eq(
        nd_test_shell(output, sizeof output, "'%s' pack --index %s/data", ND_BINARY, directory), 0,
        "%s", output);
    cr_assert_str_eq(state(), "new");
    cr_assert_neq(nd_test_shell(NULL, 0, "test -e %s/data/" ND_PACK_STAGING, directory), 0);
}

Test(pack_transaction, of_two_at_once_refuses_one)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "cd %s; P=\"'%s' pack --quiet --tokenizer tok.model --out data\"; "
        "mkfifo pipe; eval $P pipe > first 2>&1 & exec 9> pipe; "
        "for i in $(seq 400); do test -e data/.pack_in_progress/lock && break; sleep 0.05; done; "
        "eval $P old 2>&1; code=$?; exec 9>&-; wait; exit $code",
        directory, ND_BINARY);
    cr_assert_eq(code, 3, "exit %d: %s", code, output);
    cr_assert(strstr(output, "another pack is writing here") != NULL, "%s", output);
}

Test(pack_transaction, into_a_directory_that_is_renamed_leaves_another_pack_there_alone)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "cd %s; P=\"'%s' pack --quiet --val-fraction 0 --tokenizer tok.model --out data\"; "
        "mkfifo fifo; eval $P - < fifo > log 2>&1 & p=$!; exec 9> fifo; echo first >&9; "
        "for i in $(seq 400); do test -e data/.pack_in_progress/lock && break; sleep 0.05; done; "
        "mv data was; eval $P new || exit 1; find data -type f -exec sha256sum {} + | sort > "
        "before; exec 9>&-; wait $p; test $? = 3 || exit 2;"
        "grep -q 'data was renamed or removed while this pack wrote there' log || exit 2; find "
        "data -type f -exec sha256sum {} + | sort | cmp - "
        "before || exit 3; eval \"'%s' info --verify data\"",
        directory, ND_BINARY, ND_BINARY);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

Test(pack_transaction, gives_the_same_bytes_again)
{
    char first[16384], again[16384];
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    nd_test_shell(first, sizeof first, "cd %s/data && sha256sum *; sleep 1.1", directory);
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    nd_test_shell(again, sizeof again, "cd %s/data && sha256sum *", directory);
    cr_assert_str_eq(first, again);
}

Test(pack_transaction, never_removes_what_pack_did_not_write)
{
    char listing[1024];
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    nd_test_shell(NULL, 0,
                  "cd %s/data && echo mine > notes.txt && mkdir sub && cp train_00000.h5 "
                  "train_best.h5",
                  directory);
    cr_assert_eq(pack("", "new"), 2, "%s", output);
    cr_assert(strstr(output, "train_best.h5: pack gives shards other names") != NULL, "%s", output);
    nd_test_shell(NULL, 0, "rm %s/data/train_best.h5", directory);
    cr_assert_eq(pack("", "new"), 0, "%s", output);
    nd_test_shell(listing, sizeof listing, "ls %s/data", directory);
    cr_assert(strstr(listing, "notes.txt\nsub\n") != NULL, "%s", listing);
    cr_assert_eq(
        nd_test_shell(NULL, 0, "cd %s && mkdir other && echo {} > other/index.json", directory), 0);
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "cd %s && '%s' pack --overwrite --quiet --tokenizer tok.model --out "
                               "other old",
                               directory, ND_BINARY),
                 2, "%s", output);
}

static void in_data(const char *script)
{
    cr_assert_eq(nd_test_shell(output, sizeof output, "cd %s/data && { %s; }", directory, script),
                 0, "%s", output);
}

Test(pack_transaction, keeps_a_file_that_is_no_shard_though_it_is_called_like_one)
{
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    in_data("printf '\\211HDF\\r\\n\\032\\nmine' > train_00007.h5");
    cr_assert_eq(pack("", "new"), 2, "%s", output);
    cr_assert(strstr(output, "train_00007.h5: a shard goes here, and this file is neither") != NULL,
              "%s", output);
    in_data("grep -q mine train_00007.h5 && mv train_00007.h5 train_00000.h5.mine && "
            "truncate -s -9 train_00001.h5"); /* a damaged shard that the index lists */
    cr_assert_eq(pack("", "new"), 0, "%s", output);
    in_data("test ! -e train_00001.h5 && echo mine > val_00003.h5 && rm index.json train_0*.h5");
    cr_assert_eq(pack("", "new"), 2, "%s", output);
    in_data("grep -q mine val_00003.h5");
}

Test(pack_transaction, keeps_a_file_that_comes_while_it_packs)
{
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "cd %s && mkfifo pipe && { { sleep 1; echo mine > "
                               "data/train_00000.h5; echo new; } > pipe & } && '%s' pack --quiet "
                               "--tokenizer tok.model --out data - < pipe",
                               directory, ND_BINARY),
                 2, "%s", output);
    in_data("grep -q mine train_00000.h5 && rm train_00000.h5 && '" ND_BINARY "' pack --index . && "
            "'" ND_BINARY "' info --verify .");
}

Test(pack_transaction, keeps_a_damaged_shard_of_another_tokenizer)
{
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    in_data("truncate -s -9 train_00000.h5; truncate -s -9 train_00001.h5; rm tokenizer.model");
    nd_test_train_tokenizer(directory, 2);
    cr_assert_eq(pack("", "new"), 3, "%s", output);
    cr_assert(strstr(output, "packed with another tokenizer") != NULL, "%s", output);
}

Test(pack_transaction, keeps_an_index_of_something_else)
{
    char binary[512];
    cr_assert_eq(pack("", "old"), 0, "%s", output);
    in_data("echo '{\"weight_map\": {}}' > index.json");
    cr_assert_eq(pack("", "new"), 2, "%s", output);
    cr_assert(strstr(output, "index.json: the index of a data set goes here, and this file is "
                             "not one") != NULL,
              "%s", output);
    snprintf(binary, sizeof binary, "'%s' pack --index . ; test $? = 2", ND_BINARY);
    in_data(binary);
    in_data("grep -q weight_map index.json && rm index.json && '" ND_BINARY "' pack --index . && "
            "truncate -s -9 index.json && '" ND_BINARY "' pack --index ."); /* damaged, but ours */
}
