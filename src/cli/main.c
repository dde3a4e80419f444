#include "cli/cli.h"
#include "core/backend/threads.h"
#include "core/base/build_info.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct subcommand {
    const char *name;
    nd_status (*run)(int argc, char **argv);
    const char *help;
} subcommand;

static const subcommand subcommands[] = {
    {"train", nd_cli_train, "train a model (the default)"},
    {"tokenizer", nd_cli_tokenizer, "train a tokenizer, encode or decode with it"},
    {"pack", nd_cli_pack, "turn text into HDF5 shards of tokens"},
    {"eval", nd_cli_eval, "held-out loss and bits per byte of a checkpoint"},
    {"sample", nd_cli_sample, "generate text from a checkpoint"},
    {"grad", nd_cli_grad, "loss and every gradient of one batch, for cross-checks"},
    {"plan", nd_cli_plan, "memory, communication and FLOPs of a run, before it starts"},
    {"report", nd_cli_report, "compare runs in tables and pictures"},
    {"export", nd_cli_export, "write a model for llama.cpp (GGUF) or transformers (safetensors)"},
    {"import", nd_cli_import, "read a llama or bitnet model from safetensors into a checkpoint"},
    {"info", nd_cli_info, "describe a data set, checkpoint or exported model, and verify it"},
};

enum { SUBCOMMAND_COUNT = sizeof subcommands / sizeof subcommands[0] };

static void print_usage(FILE *out)
{
    fprintf(out,
            "nanochat_dist %s: pretrains ternary language models on any number of processes\n\n"
            "usage: nanochat_dist [train] --config FILE [options]\n"
            "       nanochat_dist SUBCOMMAND --help\n\nsubcommands:\n",
            nd_build_version());
    for (int i = 0; i < SUBCOMMAND_COUNT; i++)
        fprintf(out, "  %-10s %s\n", subcommands[i].name, subcommands[i].help);
    fputs("\n" ND_EXIT_CODES, out);
}

static int exit_code(nd_status status)
{
    ND_IF_OK(nd_cli_close_output());
    if (status != ND_OK && status != ND_ESTOPPED)
        nd_cli_print_error(-1);
    return nd_error_exit_code(status);
}

/* Opens closed standard descriptors, which a file opened later would otherwise get and overwrite.
 * The replacement fails like a closed one. */
static void open_standard_descriptors(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int number = 0; number < 3; number++)
        if (fcntl(number, F_GETFD) == -1)
            open("/dev/null", modes[number]); /* the lowest free number: this one */
}

static size_t address_space; /* bytes that this process may take */

static size_t taken_address_space(void)
{
    char pages[32] = "";
    const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    return file >= 0 && read(file, pages, sizeof pages - 1) > 0
               ? strtoull(pages, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE)
               : 0;
}

/* The signal has its default action again, which follows where the limit is far. On the stack of a
 * thread that computes a handler may overwrite memory, which nothing will read any more. */
static void explain_crash(int number)
{
    char text[320];
    const size_t taken = taken_address_space();
    if (taken < address_space / 2) {
        raise(number);
        return;
    }
    const int length =
        snprintf(text, sizeof text,
                 "nanochat_dist: error: a library ended with signal %d, most likely for lack of "
                 "memory: this process may have %zu MiB of address space (ulimit -v) and has %zu; "
                 "raise that limit, or lift it by `ulimit -v unlimited`\n",
                 number, address_space >> 20, taken >> 20);
    const ssize_t written = write(STDERR_FILENO, text, (size_t)length);
    (void)written;
    _exit(nd_error_exit_code(ND_ENOMEM));
}

/* Where it is limited, memory that libraries ask for is missing before the machine's is, and
 * oneDNN and the C++ runtime then end the program without a word. */
static void watch_address_space(void)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGABRT};
    static char stack[1 << 16];
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    const struct sigaction action = {.sa_handler = explain_crash,
                                     .sa_flags = SA_ONSTACK | (int)SA_RESETHAND};
    struct rlimit space;
    if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY)
        return;
    address_space = space.rlim_cur;
    sigaltstack(&own, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
}

/* With less, libraries end the program without a word; for runs of E3 128 KiB were too little. */
enum { STACK_MIN = 256 << 10 };

static nd_status check_stack(void)
{
    struct rlimit stack;
    return ND_CHECK(getrlimit(RLIMIT_STACK, &stack) != 0 || stack.rlim_cur >= STACK_MIN, ND_ENOMEM,
                    "this process may have a stack of %llu KiB (ulimit -s); it needs %d KiB: "
                    "raise that limit",
                    (unsigned long long)stack.rlim_cur >> 10, STACK_MIN >> 10);
}

int main(int argc, char **argv)
{
    open_standard_descriptors();
    signal(SIGXFSZ, SIG_IGN); /* writes beyond `ulimit -f` fail and are reported */
    nd_machine_limit_spinning(argv);
    watch_address_space();
    if (check_stack() != ND_OK)
        return exit_code(ND_ENOMEM);
    if (argc < 2) {
        print_usage(stderr);
        return ND_ECONFIG;
    }
    if (nd_cli_is_help(argv[1]) || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return exit_code(ND_OK);
    }
    if (nd_cli_is_version(argv[1])) {
        nd_cli_print_version(stdout);
        return exit_code(ND_OK);
    }
    for (int i = 0; i < SUBCOMMAND_COUNT; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0)
            return exit_code(subcommands[i].run(argc - 1, argv + 1));
    }
    if (argv[1][0] == '-')
        return exit_code(nd_cli_train(argc, argv));
    fprintf(stderr, "nanochat_dist: error: no subcommand '%s'\n\n", argv[1]);
    print_usage(stderr);
    return ND_ECONFIG;
}
