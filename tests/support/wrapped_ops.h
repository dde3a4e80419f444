/* The ops of a backend that stands in front of another, for wrapped_backend.c: each has its
 * arguments translated, calls the other's, and sees to what was written. */
#pragma once

#include "core/backend/backend.h"

enum { REGIONS_MAX = 4096 };

/* One argument of an op. */
typedef struct argument {
    void **data; /* where the op's copy of the pointer stands: replaced for the inner op */
    size_t bytes;
    bool written;
} argument;

/* remote: an untouchable range and the memory it stands for. mirror: a range of host memory and the
 * device memory that holds it during one op. */
typedef struct region {
    char *outside;
    char *inside;
    size_t bytes;
    bool written;
} region;

typedef struct wrapper {
    nd_backend *inner;
    nd_status (*enter)(struct wrapper *w, const char *op, argument *list, int count);
    nd_status (*leave)(struct wrapper *w, const char *op); /* may be NULL */
    region regions[REGIONS_MAX];
    int count;
    int64_t waits; /* calls that wait for a device */
} wrapper;

static inline wrapper *wrapper_of(const nd_backend *b)
{
    return b->context;
}

static inline nd_backend *inner_of(const nd_backend *b)
{
    return wrapper_of(b)->inner;
}

/* All but the name, host_memory, memory's own ops and recordings. */
extern const nd_backend_ops nd_wrapped_ops;
