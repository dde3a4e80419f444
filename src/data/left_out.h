/* What inputs held that was not read: counted, the first of each kind named, and said at the end. */
#pragma once

#include <limits.h>
#include <stdint.h>
#include <stdio.h>

typedef enum nd_left_out_kind {
    ND_LEFT_HIDDEN,   /* directories whose name begins with a dot */
    ND_LEFT_BINARY,   /* files that are not text */
    ND_LEFT_LINK,     /* links to nothing, or to a directory that holds them */
    ND_LEFT_SPECIAL,  /* devices, pipes, sockets */
    ND_LEFT_REPEATED, /* files that were read before under another name */
    ND_LEFT_OWN,      /* what pack itself wrote to its output directory */
    ND_LEFT_LINE,     /* lines of JSON Lines */
    ND_LEFT_COUNT
} nd_left_out_kind;

typedef struct nd_left_out {
    int64_t count[ND_LEFT_COUNT];
    char first[ND_LEFT_COUNT][PATH_MAX]; /* where, and why if that needs saying */
} nd_left_out;

void nd_left_out_add(nd_left_out *left_out, nd_left_out_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line for each kind, each beginning with `prefix`; nothing when nothing was left out. */
void nd_left_out_print(const nd_left_out *left_out, const char *prefix, FILE *out);
