/* --help of benches whose arguments have places instead of names. */
#ifndef ND_BENCH_HELP_H
#define ND_BENCH_HELP_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static inline bool nd_bench_help(int argc, char **argv, const char *text)
{
    const bool asked = argc > 1 && strcmp(argv[1], "--help") == 0;
    if (asked)
        puts(text);
    return asked;
}

#endif
