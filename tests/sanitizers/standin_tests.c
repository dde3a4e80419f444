#include "standin_tests.h"

#include <time.h>

nd_standin_test *nd_standin_tests;

void nd_standin_add(nd_standin_test *test)
{
    static nd_standin_test **last = &nd_standin_tests;
    *last = test;
    last = &test->next;
}

void nd_standin_report(const char *file, int line, const char *what, const char *format,
                       va_list arguments)
{
    fprintf(stderr, "[----] %s:%d: Assertion Failed\n[----]   %s\n", file, line, what);
    if (format) {
        fprintf(stderr, "[----]   ");
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
    }
    fflush(NULL);
}

double nd_standin_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
