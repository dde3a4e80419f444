/* Files that a disk, a copy or a cosmic ray has changed: a thousand cases of what a run resumes
 * from, and a thousand of what it reads. A case is cut off at a random length, has one random bit
 * flipped, or up to 64 random bytes replaced. It must be refused by the file's name, or it must be
 * shown that nothing a run reads has changed. ND_DAMAGE_SEED repeats a run of this test. */
#include "data/dataset.h"
#include "support/data_files.h"
#include "support/run_files.h"
#include "support/support.h"
#include "train/checkpoint/checkpoint.h"
#include "train/run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CASES = 1000, FILES_MAX = 8, VOCABULARY = 400, SEQUENCE = 32 };

typedef struct damaged_file {
    char path[256];
    const char *name;
    char *bytes; /* as they should be */
    size_t size;
    int refused, harmless;
} damaged_file;

static damaged_file files[FILES_MAX];
static int file_count;
static uint64_t seed;

/* Shards with a tokenizer, and a run of two ranks that left a checkpoint of step 2. */
static void setup(void)
{
    char *code = nd_test_code(7, 40000), path[256], output[8192];
    const char *given = getenv("ND_DAMAGE_SEED");
    seed = given ? strtoull(given, NULL, 10) : 20240817;
    file_count = 0;
    nd_test_run_setup();
    const char *here = nd_test_here.directory;
    nd_test_train_tokenizer(here, 5);
    snprintf(path, sizeof path, "%s/text", here);
    nd_test_write_file(path, code, 40000);
    free(code);
    const int packed =
        nd_test_shell(output, sizeof output,
                      "cd %s && split -a 3 -b 1000 text part_ && %s pack --tokenizer "
                      "tok.model --out data --shard-tokens 5000 --val-fraction 0.3 "
                      "part_*",
                      here, ND_BINARY);
    cr_assert_eq(packed, 0, "%s", output);
    snprintf(output, sizeof output,
             "--dataset shards --data-path %s/data --total-steps 2 --set model.vocab_size=%d "
             "--set training.seq_length=%d --set logging.tensorboard=false",
             here, VOCABULARY, SEQUENCE);
    snprintf(path, sizeof path, "%s/run", here);
    nd_test_train(2, 0, nd_test_here.config, path, output);
}

static void teardown(void)
{
    for (int i = 0; i < file_count; i++)
        free(files[i].bytes);
    nd_test_run_teardown();
}

TestSuite(damaged_files, .init = setup, .fini = teardown);

static void add_file(const char *directory, const char *name)
{
    damaged_file *f = &files[file_count++];
    *f = (damaged_file){.name = name};
    snprintf(f->path, sizeof f->path, "%s/%s/%s", nd_test_here.directory, directory, name);
    f->bytes = nd_test_read_file(f->path, &f->size);
    cr_assert(f->bytes != NULL, "%s", f->path);
}

/* Damages a file as case `number` says; returns it. `what` receives it in words. */
static damaged_file *damage(uint64_t number, char what[256])
{
    const uint64_t stream = seed * 1000003 + number;
    damaged_file *f = &files[nd_test_random(stream, 0, (uint32_t)file_count)];
    const uint32_t kind = nd_test_random(stream, 1, 10);
    const uint32_t at = nd_test_random(stream, 2, (uint32_t)f->size);
    char *changed = malloc(f->size);
    size_t size = f->size;
    memcpy(changed, f->bytes, f->size);
    if (kind < 3) {
        size = at;
        snprintf(what, 256, "%s cut to %u of %zu bytes", f->name, at, f->size);
    } else if (kind < 9) {
        const uint32_t bit = nd_test_random(stream, 3, 8);
        changed[at] ^= (char)(1 << bit);
        snprintf(what, 256, "bit %u of byte %u of %s flipped", bit, at, f->name);
    } else {
        const uint32_t wanted = 2 + nd_test_random(stream, 4, 63);
        const uint32_t count = at + wanted > f->size ? (uint32_t)f->size - at : wanted;
        for (uint32_t i = 0; i < count; i++)
            changed[at + i] = (char)nd_test_random(stream, 5 + i, 256);
        if (memcmp(changed, f->bytes, f->size) == 0)
            changed[at] ^= 1;
        snprintf(what, 256, "%u bytes from byte %u of %s replaced", count, at, f->name);
    }
    nd_test_write_file(f->path, changed, size);
    free(changed);
    return f;
}

static void repair(const damaged_file *f)
{
    nd_test_write_file(f->path, f->bytes, f->size);
}

static void count(damaged_file *f, uint64_t number, const char *what, bool refused)
{
    if (refused)
        cr_assert(strstr(nd_error_get()->message, f->name) != NULL,
                  "seed %lu, case %lu: %s: another file is named: %s", seed, number, what,
                  nd_error_get()->message);
    f->refused += refused;
    f->harmless += !refused;
}

static void print_table(void)
{
    for (int i = 0; i < file_count; i++)
        fprintf(stderr, "seed %lu: %-16s %7zu bytes: refused %d, harmless %d\n", seed,
                files[i].name, files[i].size, files[i].refused, files[i].harmless);
}

static bool same_lists(const nd_checkpoint *a, const nd_checkpoint *b)
{
    return a->tensor_count == b->tensor_count && a->file_count == b->file_count &&
           memcmp(a->tensors, b->tensors, (size_t)a->tensor_count * sizeof *a->tensors) == 0 &&
           memcmp(a->files, b->files, (size_t)a->file_count * sizeof *a->files) == 0;
}

static bool same_checkpoint(const nd_checkpoint *a, const nd_checkpoint *b)
{
    return a->step == b->step && a->tokens == b->tokens && a->restarts == b->restarts &&
           a->next_sample == b->next_sample && a->has_tokenizer == b->has_tokenizer &&
           memcmp(&a->health, &b->health, sizeof a->health) == 0 &&
           strcmp(a->state_sha256, b->state_sha256) == 0 && same_lists(a, b);
}

/* A whole checkpoint has the bytes its manifest names, so what is left to compare is
 * the manifest. */
Test(damaged_files, of_a_checkpoint_are_refused_by_name_or_say_the_same)
{
    static nd_checkpoint whole, c;
    char directory[128], what[256];
    snprintf(directory, sizeof directory, "%s/run/checkpoints/step_00000002",
             nd_test_here.directory);
    static const char *const names[] = {"rank_0000.h5", "rank_0001.h5", "manifest.json",
                                        "config.ini", "tokenizer.model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        add_file("run/checkpoints/step_00000002", names[i]);
    ND_ASSERT_OK(nd_checkpoint_open(directory, true, &whole));
    for (uint64_t number = 0; number < CASES; number++) {
        damaged_file *f = damage(number, what);
        nd_error_clear();
        const nd_status status = nd_checkpoint_open(directory, true, &c);
        cr_assert(status == ND_OK || status == ND_ECHECKPOINT, "seed %lu, case %lu: %s: %s", seed,
                  number, what, nd_error_get()->message);
        if (status == ND_OK) {
            cr_assert(same_checkpoint(&c, &whole), "seed %lu, case %lu: %s: not noticed", seed,
                      number, what);
            nd_checkpoint_close(&c);
        }
        count(f, number, what, status != ND_OK);
        repair(f);
    }
    print_table();
    for (int i = 0; i < file_count; i++)
        cr_assert(files[i].harmless == 0 || strcmp(files[i].name, "manifest.json") == 0,
                  "damage of %s passed", files[i].name);
    nd_checkpoint_close(&whole);
}

static int32_t tokens_of_windows[1 << 20];

/* Reads every window of a split and adds its bytes of text to *text. Returns how many tokens, -1 on
 * an error. */
static int64_t read_split(const char *split, int32_t *tokens, int64_t *text)
{
    char path[128];
    nd_dataset *dataset;
    int64_t read = 0;
    snprintf(path, sizeof path, "%s/data", nd_test_here.directory);
    const nd_dataset_options options = {
        .path = path, .split = split, .seq_length = SEQUENCE, .vocab_size = VOCABULARY};
    if (nd_dataset_open(&options, &dataset) != ND_OK)
        return -1;
    const int64_t windows = nd_dataset_window_count(dataset);
    *text += nd_dataset_text_bytes(dataset);
    cr_assert_lt(windows * (SEQUENCE + 1), (1 << 19), "larger than this test expects");
    for (int64_t i = 0; read >= 0 && i < windows; i++)
        read =
            nd_dataset_read_window(dataset, i, tokens + read) == ND_OK ? read + SEQUENCE + 1 : -1;
    nd_dataset_close(dataset);
    return read;
}

/* Both splits one after the other; -1 on an error. */
static int64_t read_all(int32_t *tokens, int64_t *text)
{
    *text = 0;
    const int64_t first = read_split("train", tokens, text);
    const int64_t second = first < 0 ? -1 : read_split("val", tokens + first, text);
    return second < 0 ? -1 : first + second;
}

Test(damaged_files, of_shards_are_refused_by_name_or_give_the_same_tokens)
{
    static int32_t again[1 << 20];
    int64_t text, text_again;
    char what[256];
    add_file("data", "train_00000.h5");
    add_file("data", "train_00001.h5");
    add_file("data", "val_00000.h5");
    add_file("data", "index.json");
    const int64_t expected = read_all(tokens_of_windows, &text);
    cr_assert_gt(expected, 5000);
    for (uint64_t number = 0; number < CASES; number++) {
        damaged_file *f = damage(number, what);
        nd_error_clear();
        const int64_t read = read_all(again, &text_again);
        if (read >= 0)
            cr_assert(read == expected && text_again == text &&
                          memcmp(again, tokens_of_windows, (size_t)read * sizeof *again) == 0,
                      "seed %lu, case %lu: %s: other tokens", seed, number, what);
        count(f, number, what, read < 0);
        repair(f);
    }
    print_table();
}

/* A run opens its data and is told whether it may begin. */
Test(damaged_files,
     a_damaged_tokenizer_beside_the_shards_is_refused_before_it_gets_into_a_checkpoint)
{
    char output[8192], what[256];
    add_file("data", "tokenizer.model");
    for (uint64_t number = 0; number < 5; number++) {
        damaged_file *f = damage(number, what);
        const int code = nd_test_shell(
            output, sizeof output,
            "%s --config %s --run-dir %s/other --dataset shards --data-path %s/data --set "
            "model.vocab_size=%d --set training.seq_length=%d",
            ND_BINARY, nd_test_here.config, nd_test_here.directory, nd_test_here.directory,
            VOCABULARY, SEQUENCE);
        cr_assert_eq(code, 3, "%s: exit %d: %s", what, code, output);
        cr_assert(strstr(output, "data/tokenizer.model: damaged") != NULL, "%s: %s", what, output);
        repair(f);
    }
}
