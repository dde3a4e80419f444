/* A backend that computes nothing and counts what a GPU would: for each op and shape the bytes that
 * its kernels move through device memory and the operations of its products. Memory is addresses
 * alone, and downloads are zeros. */
#pragma once

#include "core/backend/backend.h"

typedef struct counted_op {
    char name[96]; /* "ternary_gemm 16384 x 2048 -> 7168" */
    int op;        /* COUNTED_... */
    double calls;
    double bytes;       /* least of the op's main kernel: operands once, results once */
    double around;      /* of the kernels before and after it: codes, transposes, conversions */
    double int8, dense; /* operations of products */
    double attention;   /* of attention's */
    double kernels;     /* launches */
} counted_op;

enum {
#define OP(name, ...) COUNTED_##name,
#include "core/backend/backend_ops.def"
#undef OP
    COUNTED_OPS
};

enum { COUNTED_MOST = 256 };
typedef struct counted_list {
    counted_op op[COUNTED_MOST];
    int count;
    bool counting;
} counted_list;

/* sum += factor * what `more` counts. */
void counted_add(counted_op *sum, double factor, const counted_op *more);

/* The backend adds to `list` from the next call of counted_start on. The caller owns the backend,
 * not the list. Errors: ND_ENOMEM. */
nd_status counted_backend_create(counted_list *list, nd_backend **backend);
void counted_start(nd_backend *backend);
