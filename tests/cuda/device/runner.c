/* Runs the tests of a program one after another in one process, so that the device is opened once
 * and compute-sanitizer sees everything. Exits 77 where there is no GPU. After a test that fails or
 * crashes the rest runs in a fresh process image: a fault of a kernel makes every later call of its
 * process fail.
 *
 *   PROGRAM [--only TEXT]   only the tests whose suite::name contains TEXT */
#include "cuda_backend.h"

#include "sanitizers/standin_tests.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static jmp_buf next_test;
/* What the next image is started with: PROGRAM --only TEXT --from TEST --passing N. */
static char from[16], passed_before[16];
static char *again[8] = {NULL, "--only", "", "--from", from, "--passing", passed_before, NULL};

void nd_standin_fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    nd_standin_report(file, line, what, format, arguments);
    va_end(arguments);
    longjmp(next_test, 1);
}

static bool passes(const nd_standin_test *test)
{
    if (setjmp(next_test) != 0)
        return false;
    test->run();
    return true;
}

/* The argument after `name`, or `otherwise`. */
static char *option(int argc, char **argv, const char *name, char *otherwise)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

static void go_on(int number)
{
    static const char text[] = "[FAIL] crashed\n";
    sigset_t all;
    if (number != 0 && write(STDOUT_FILENO, text, sizeof text - 1) < 0)
        _exit(1);
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL); /* a mask outlives exec */
    execv("/proc/self/exe", again);
    _exit(1);
}

static void catch_crashes(void)
{
    const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        signal(crashes[i], go_on);
}

int main(int argc, char **argv)
{
    char reason[256], name[256];
    const int first = atoi(option(argc, argv, "--from", "0"));
    int number = 0, tested = 0, passing = atoi(option(argc, argv, "--passing", "0"));
    again[0] = argv[0];
    again[2] = option(argc, argv, "--only", "");
    if (nd_cuda_device_count(reason, sizeof reason) == 0) {
        printf("SKIPPED: no CUDA device: %s\n", reason);
        return 77;
    }
    catch_crashes();
    for (const nd_standin_test *test = nd_standin_tests; test; test = test->next) {
        if (!test->run)
            continue;
        snprintf(name, sizeof name, "%s::%s", test->suite, test->name);
        if (!strstr(name, again[2]))
            continue;
        tested++;
        if (number++ < first)
            continue;
        snprintf(from, sizeof from, "%d", number);
        snprintf(passed_before, sizeof passed_before, "%d", passing);
        printf("[RUN ] %s\n", name);
        fflush(NULL);
        const double start = nd_standin_now();
        const bool passed = passes(test);
        passing += passed;
        printf("[%s] %s: (%.2fs)\n", passed ? "PASS" : "FAIL", name, nd_standin_now() - start);
        fflush(NULL);
        if (!passed)
            go_on(0);
    }
    printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0 \n", tested,
           passing, tested - passing);
    return tested != passing;
}
