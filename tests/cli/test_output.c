/* What was printed must have arrived: a full or a closed standard output is an error of every
 * command. */
#include "support/run_files.h"
#include "support/support.h"

#include <string.h>

static char output[16384];

/* A run whose checkpoint has a tokenizer, and its shards; $D is where they are. */
static const char *const prepare =
    "cd $D && $B tokenizer train --input $S/src/core --glob '*.c' --vocab-size 400 --output tok && "
    "$B pack --tokenizer tok --out shards --val-fraction 0.2 --glob '*.c' $S/src/core && "
    "sed -e 's/vocab_size = .*/vocab_size = 400/' -e 's/= synthetic/= shards/' config.ini > c.ini "
    "&& "
    "$B --config c.ini --run-dir run --total-steps 1 --data-path shards && "
    "$B tokenizer encode --model tok c.ini > tokens";

static const char *const commands[] = {
    "$B --help",
    "$B --version",
    "$B train --help",
    "$B train --list-keys",
    "$B train --print-config-docs",
    "$B info run/checkpoints/latest",
    "$B info --verify shards/train_00000.h5",
    "$B plan --config c.ini --ranks 2",
    "$B eval --checkpoint run --data-path shards --samples 1",
    "$B eval --checkpoint run --data-path shards --samples 1 --json",
    "$B sample --checkpoint run --prompt x --max-tokens 4",
    "$B sample --checkpoint run --prompt x --max-tokens 4 --ids",
    "echo hello | $B sample --checkpoint run --chat --max-tokens 4",
    "$B tokenizer --help",
    "$B tokenizer train --help",
    "$B tokenizer train --input c.ini --vocab-size 300 --output t2",
    "$B tokenizer encode --model tok c.ini",
    "$B tokenizer decode --model tok tokens",
    "$B pack --help",
    "$B pack --tokenizer tok --out again --overwrite --quiet c.ini",
    "$B report run --out report",
    "$B export --checkpoint run --format safetensors --out exported",
};

static void setup(void)
{
    nd_test_run_setup();
    const int code = nd_test_shell(output, sizeof output, "{ export B=%s S=%s D=%s; %s; }",
                                   ND_BINARY, ND_SOURCE_DIR, nd_test_here.directory, prepare);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

TestSuite(output, .init = setup, .fini = nd_test_run_teardown);

static void all_fail(const char *redirection)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const int code =
            nd_test_shell(output, sizeof output, "{ export B=%s D=%s; cd $D; { %s; } %s; }",
                          ND_BINARY, nd_test_here.directory, commands[i], redirection);
        cr_assert_eq(code, 1, "%s %s: exit %d: %s", commands[i], redirection, code, output);
        cr_assert(strstr(output, "error: cannot ") != NULL, "%s: %s", commands[i], output);
    }
}

Test(output, that_is_full_is_an_error_of_every_command)
{
    all_fail("> /dev/full");
    cr_assert(strstr(output, "No space left on device") != NULL, "%s", output);
}

/* Without standard files of its own a program would write into the first file that it opens. */
Test(output, that_is_closed_is_an_error_of_every_command)
{
    all_fail(">&-");
    cr_assert(strstr(output, "Bad file descriptor") != NULL, "%s", output);
}

Test(output, that_is_closed_harms_no_checkpoint)
{
    const int code = nd_test_shell(output, sizeof output,
                                   "{ cd %s; %s --config c.ini --run-dir closed --total-steps 2 "
                                   "--data-path shards <&- >&- 2>&-; %s info --verify "
                                   "closed/checkpoints/latest; }",
                                   nd_test_here.directory, ND_BINARY, ND_BINARY);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* A file that appears whole by a rename would take the device's place. */
Test(output, that_is_a_device_or_a_pipe_is_not_replaced_by_a_file)
{
    static const char *const writers[] = {
        "export --checkpoint run --type f32 --out",
        "tokenizer train --input c.ini --vocab-size 300 --output"};
    static const char *const places[] = {"pipe", "null", "out"};
    nd_test_shell(NULL, 0,
                  "cd %s && mkfifo pipe && ln -s /dev/null null && ln -s /proc/self/fd/1 out",
                  nd_test_here.directory);
    for (size_t i = 0; i < 6; i++) {
        const int code =
            nd_test_shell(output, sizeof output, "cd %s && timeout 60 %s %s %s",
                          nd_test_here.directory, ND_BINARY, writers[i / 3], places[i % 3]);
        cr_assert_eq(code, 2, "%s %s: exit %d: %s", writers[i / 3], places[i % 3], code, output);
        cr_assert(strstr(output, "a device, a pipe or a link to one") != NULL, "%s", output);
    }
    cr_assert_eq(nd_test_shell(output, sizeof output, "cd %s && test -p pipe -a -L null -a -L out",
                               nd_test_here.directory),
                 0);
}

/* "" and a name below it would be a place in the root directory. */
Test(output, that_is_to_go_to_an_empty_name_goes_nowhere)
{
    static const char *const writers[] = {"export --checkpoint run --out",
                                          "export --checkpoint run --format safetensors --out",
                                          "import --from run --out",
                                          "grad --checkpoint run --tokens t.h5 --out",
                                          "report run --out",
                                          "pack --tokenizer tok c.ini --out",
                                          "pack --index",
                                          "tokenizer train --input c.ini --output",
                                          "sample --checkpoint run --prompt x --logits"};
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        const int code = nd_test_shell(output, sizeof output, "cd %s && timeout 60 %s %s ''",
                                       nd_test_here.directory, ND_BINARY, writers[i]);
        cr_assert_eq(code, 2, "%s: exit %d: %s", writers[i], code, output);
        cr_assert(strstr(output, " is empty; it needs a value: --") != NULL, "%s", output);
    }
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "cd %s && %s sample --checkpoint run --prompt '' --stop '' "
                               "--max-tokens 1",
                               nd_test_here.directory, ND_BINARY),
                 0, "%s", output);
}
