/* Command-line options: one table for each subcommand, so that parsing, --help and the shell's
 * completion agree. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum nd_arg_type {
    ND_ARG_FLAG, /* bool * */
    ND_ARG_TEXT, /* const char **, not empty */
    ND_ARG_TEXT_OR_EMPTY,
    ND_ARG_INT,    /* int64_t *, 0 or more: 4096, 100M or 1.5G; K, M and G are powers of 1000 */
    ND_ARG_DOUBLE, /* double * */
    ND_ARG_APPEND  /* nd_arg_list *: may be given more than once */
} nd_arg_type;

enum { ND_ARG_LIST_MAX = 256 };

typedef struct nd_arg_list {
    const char *items[ND_ARG_LIST_MAX];
    int count;
} nd_arg_list;

/* Positional arguments in their order, stored in argv. */
typedef struct nd_arg_rest {
    char **items;
    int count;
} nd_arg_rest;

typedef struct nd_arg {
    const char *name; /* "--config" */
    nd_arg_type type;
    void *value;
    const char *metavar; /* "FILE" */
    const char *help;
} nd_arg;

typedef struct nd_command {
    const char *usage; /* first line of --help */
    const char *about;
    const nd_arg *args;
    int arg_count;
} nd_command;

/* Parses argv[1..]. An option that takes a value is given once, unless it is ND_ARG_APPEND.
 * Positional arguments, among them all that follow "--", go to `rest` (NULL: none are allowed),
 * which overwrites argv. --help (-h) and --version (-V) print and set *helped; the caller then
 * returns ND_OK. Errors: ND_ECONFIG naming the option and the nearest one. */
nd_status nd_args_parse(const nd_command *command, int argc, char **argv, nd_arg_rest *rest,
                        bool *helped);

/* nd_args_parse in a function that returns nd_status: returns on errors, and after --help and
 * --version. */
#define ND_ARGS_PARSE(command, argc, argv, rest)                                                   \
    do {                                                                                           \
        bool nd_helped_;                                                                           \
        ND_TRY(nd_args_parse(&(command), argc, argv, rest, &nd_helped_));                          \
        if (nd_helped_)                                                                            \
            return ND_OK;                                                                          \
    } while (0)

/* Errors: ND_ECONFIG naming the option when its value is not from `min` to `max`. */
nd_status nd_args_check_range(const char *name, int64_t value, int64_t min, int64_t max);
