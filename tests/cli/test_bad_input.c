/* Everything a user can get wrong that we thought of, and what the program says. With ND_WRITE_DOCS
 * set to a path, the tables with the real messages are written there (docs/bad_input.md), those of
 * files beside it (docs/bad_input_files.md). */
#include "cli/bad_data_rows.h"
#include "cli/bad_input_rows.h"
#include "cli/bad_model_rows.h"
#include "cli/bad_run_rows.h"
#include "cli/bad_start_rows.h"
#include "cli/bad_usage_rows.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order of the documented table. */
static const struct {
    const bad_input *rows;
    int count;
} topics[] = {{bad_inputs, BAD_INPUTS}, {bad_data, BAD_DATA},     {bad_models, BAD_MODELS},
              {bad_runs, BAD_RUNS},     {bad_starts, BAD_STARTS}, {bad_usages, BAD_USAGES}};
enum { TOPICS = sizeof topics / sizeof topics[0] };

/* NULL beyond the last. */
static const bad_input *find_row(int index)
{
    for (int t = 0; t < TOPICS; index -= topics[t++].count)
        if (index < topics[t].count)
            return &topics[t].rows[index];
    return NULL;
}

static char shared[64];

/* Sets the variables that rows see. */
static void variables(char *text, size_t size, const char *own)
{
    snprintf(text, size,
             "export B=%s S=%s D=%s W=%s IO=%s OMPI_ALLOW_RUN_AS_ROOT=1 "
             "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
             "OMP_NUM_THREADS=1",
             ND_BINARY, ND_SOURCE_DIR, shared, own, ND_IO_FAULTS);
}

static const char *const make_shared =
    "cat > $D/ok.ini <<'X'\n[model]\nhidden_dim = 32\nnum_layers = 2\nnum_heads = 4\n"
    "num_kv_heads = 2\nmax_seq_len = 64\nvocab_size = 512\n[training]\ntotal_steps = 6\n"
    "batch_size = 8\nmicro_batch_size = 1\nseq_length = 16\nwarmup_steps = 2\n[data]\n"
    "dataset = synthetic\nn_samples = 64\nX\n"
    "sed 's/synthetic/shards/' $D/ok.ini > $D/shards.ini && echo data_path = $D/shards >> "
    "$D/shards.ini &&\n"
    "$B tokenizer train --input $S/src --glob '*.c' --vocab-size 512 --output $D/tok.model &&\n"
    "$B tokenizer train --input $S/src --glob '*.h' --vocab-size 512 --output $D/other.model &&\n"
    "$B pack --tokenizer $D/tok.model --out $D/shards --glob '*.c' --val-fraction 0.1 $S/src &&\n"
    "$B pack --tokenizer $D/other.model --out $D/other --glob '*.c' --val-fraction 0.1 $S/src &&\n"
    "$B --config $D/shards.ini --run-dir $D/run --checkpoint-interval 2";

static void setup(void)
{
    char output[8192], names[512];
    strcpy(shared, nd_test_directory());
    variables(names, sizeof names, shared);
    const int code = nd_test_shell(output, sizeof output, "{ %s; %s; }", names, make_shared);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

static void teardown(void)
{
    nd_test_remove_directory(shared);
}

/* Copies text, one line of it, with `from` wherever it stands written as `to`. */
static void write_replaced(FILE *docs, const char *text, size_t length, const char *const from[2],
                           const char *const to[2])
{
    for (size_t i = 0; i < length; i++) {
        int found = -1;
        for (int r = 0; r < 2; r++)
            if (strncmp(text + i, from[r], strlen(from[r])) == 0)
                found = r;
        if (found < 0) {
            fputc(text[i] == '|' ? '/' : text[i], docs);
        } else {
            fputs(to[found], docs);
            i += strlen(from[found]) - 1;
        }
    }
}

/* The line that carries the message, without the directories of this run of the test. */
static void write_row(FILE *docs, const bad_input *row, const char *output)
{
    char build[512];
    snprintf(build, sizeof build, "%s", ND_BINARY);
    *strrchr(build, '/') = '\0';
    const char *line = strstr(output, "error: ");
    if (!line)
        line = strstr(output, "warning: ");
    fprintf(docs, "| %s | `%d` | ", row->tried, row->code);
    if (line)
        write_replaced(docs, line, strcspn(line, "\n"), (const char *const[]){shared, build},
                       (const char *const[]){"DIR", "BIN"});
    fputs(" |\n", docs);
}

/* The documented tables: of what a command line and a configuration say, and of files. */
typedef struct pages {
    FILE *words, *files;
} pages;

static FILE *open_page(const char *path, const char *title, const char *other)
{
    FILE *page = fopen(path, "w");
    cr_assert(page != NULL, "cannot write %s", path);
    fprintf(page,
            "# %s\n\nWritten by tests/cli/test_bad_input.c, which checks every row: the exit code, "
            "that nothing crashes, and that\nthe message names what is wrong. %s\n",
            title, other);
    return page;
}

static pages open_docs(void)
{
    const char *path = getenv("ND_WRITE_DOCS");
    char files[4096];
    if (!path)
        return (pages){0};
    snprintf(files, sizeof files, "%.*s_files.md", (int)(strlen(path) - strlen(".md")), path);
    return (pages){
        open_page(path, "Error messages: command lines, configurations and starts",
                  "Those of data, checkpoints and other files are in "
                  "[bad_input_files.md](bad_input_files.md)."),
        open_page(files, "Error messages: data, checkpoints and other files",
                  "Those of command lines, configurations and starts are in "
                  "[bad_input.md](bad_input.md)."),
    };
}

static void close_docs(pages docs)
{
    if (docs.words)
        fclose(docs.words);
    if (docs.files)
        fclose(docs.files);
}

/* NULL when nothing is to be documented. */
static FILE *page_of(pages docs, const char *module)
{
    static const char *const of_words[] = {"configuration", "flags", "starts",
                                           "reports, command lines and INI files"};
    for (size_t i = 0; i < sizeof of_words / sizeof of_words[0]; i++)
        if (strcmp(of_words[i], module) == 0)
            return docs.words;
    return docs.files;
}

Test(bad_input, every_mistake_is_named_with_its_exit_code, .init = setup, .fini = teardown)
{
    static char output[65536];
    const pages docs = open_docs();
    const char *module = "";
    int failures = 0;
    int rows = 0;
    for (const bad_input *row; (row = find_row(rows)) != NULL; rows++) {
        char own[96], names[512];
        snprintf(own, sizeof own, "%s/row%d", shared, rows);
        variables(names, sizeof names, own);
        cr_assert_eq(nd_test_shell(output, sizeof output, "{ %s; mkdir $W && { %s; }; }", names,
                                   *row->prepare ? row->prepare : ":"),
                     0, "%s: cannot be prepared: %s", row->tried, output);
        const int code = nd_test_shell(output, sizeof output, "{ %s; %s; }", names, row->run);
        bool right = code == row->code;
        for (int s = 0; s < 3 && row->says[s]; s++)
            right &= strstr(output, row->says[s]) != NULL;
        if (!right) {
            cr_log_error("%s: exit %d, expected %d with \"%s\":\n%s", row->tried, code, row->code,
                         row->says[0], output);
            failures++;
        }
        FILE *page = page_of(docs, row->module);
        if (page && strcmp(module, row->module) != 0)
            fprintf(page, "\n## %s\n\n| tried | exit | message |\n|---|---|---|\n", row->module);
        if (page)
            write_row(page, row, output);
        module = row->module;
    }
    close_docs(docs);
    cr_assert_eq(failures, 0, "%d of %d rows", failures, rows);
}
