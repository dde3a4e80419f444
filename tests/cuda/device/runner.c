/* Runs the tests of a program one after another in one process, so that the device is opened once and
 * compute-sanitizer sees everything. Exits 77 where there is no GPU.
 *
 *   PROGRAM [--only TEXT]   only the tests whose suite::name contains TEXT */
#include "cuda_backend.h"

#include "sanitizers/standin_tests.h"

#include <setjmp.h>

static jmp_buf next_test;

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

int main(int argc, char **argv)
{
    const char *only = argc > 2 && strcmp(argv[1], "--only") == 0 ? argv[2] : "";
    char reason[256], name[256];
    int tested = 0, passing = 0;
    if (nd_cuda_device_count(reason, sizeof reason) == 0) {
        printf("SKIPPED: no CUDA device: %s\n", reason);
        return 77;
    }
    for (const nd_standin_test *test = nd_standin_tests; test; test = test->next) {
        if (!test->run)
            continue;
        snprintf(name, sizeof name, "%s::%s", test->suite, test->name);
        if (!strstr(name, only))
            continue;
        const double start = nd_standin_now();
        const bool passed = passes(test);
        tested++;
        passing += passed;
        printf("[%s] %s: (%.2fs)\n", passed ? "PASS" : "FAIL", name, nd_standin_now() - start);
        fflush(NULL);
    }
    printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0 \n", tested,
           passing, tested - passing);
    return tested != passing;
}
