/* Skipped inputs: the count and the first of each kind, printed at the end. */
#pragma once

#include <limits.h>
#include <stdint.h>
#include <stdio.h>

typedef enum nd_left_out_kind {
    ND_LEFT_HIDDEN,   /* directories whose name begins with a dot */
    ND_LEFT_BINARY,   /* files that are not text */
    ND_LEFT_LINK,     /* dangling links, and links to a directory that contains them */
    ND_LEFT_SPECIAL,  /* devices, pipes, sockets */
    ND_LEFT_REPEATED, /* files that were already read under another name */
    ND_LEFT_OWN,      /* files that pack wrote to its output directory */
    ND_LEFT_LINE,     /* bad lines of JSON Lines */
    ND_LEFT_COUNT
} nd_left_out_kind;

typedef struct nd_left_out {
    int64_t count[ND_LEFT_COUNT];
    char first[ND_LEFT_COUNT][PATH_MAX]; /* where it is, with the reason where needed */
} nd_left_out;

/* Counts one skipped input; the text says where it is. */
void nd_left_out_add(nd_left_out *left_out, nd_left_out_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints a line that begins with `prefix` for each kind that was skipped. */
void nd_left_out_print(const nd_left_out *left_out, const char *prefix, FILE *out);
