/* A thin interface to oneDNN 2.5 to 3.x, whose API only onednn.c uses. A call uses as many threads
 * as OpenMP is set to when it is created and when it runs. */
#pragma once

#include "core/backend/backend.h"

/* [rows, cols] and the strides in elements. Both 0: the layout that oneDNN prefers. */
typedef struct nd_onednn_matrix {
    int64_t rows, cols, row_stride, col_stride;
    nd_dtype dtype;
} nd_onednn_matrix;

/* The operands of a call: a product uses all four, a packing reads A and writes B. */
enum { ND_ONEDNN_A, ND_ONEDNN_B, ND_ONEDNN_C, ND_ONEDNN_SCRATCH, ND_ONEDNN_OPERANDS };

typedef struct nd_onednn nd_onednn;
typedef struct nd_onednn_call nd_onednn_call;

/* oneDNN on the CPU, for calls by `threads` threads. Destroy its calls before it. Errors, here and
 * of the functions below: ND_ENOMEM, ND_EINTERNAL with oneDNN's status. */
nd_status nd_onednn_create(int threads, nd_onednn **onednn);
void nd_onednn_destroy(nd_onednn *onednn);

/* Creates a call that computes c = a b, or c += a b if `accumulate`; the caller destroys it.
 * ND_EINTERNAL also where oneDNN has no such product. */
nd_status nd_onednn_product(nd_onednn *onednn, const nd_onednn_matrix *a, const nd_onednn_matrix *b,
                            const nd_onednn_matrix *c, bool accumulate, nd_onednn_call **call);
/* Creates a call that copies `b` to the layout which `product` wants for its B. */
nd_status nd_onednn_packing(nd_onednn *onednn, const nd_onednn_matrix *b,
                            const nd_onednn_call *product, nd_onednn_call **call);
void nd_onednn_call_destroy(nd_onednn_call *call);

size_t nd_onednn_bytes(const nd_onednn_call *call, int operand);
bool nd_onednn_same_layout(const nd_onednn_call *x, const nd_onednn_call *y, int operand);

/* Runs the call as `thread` on operands indexed by ND_ONEDNN_A etc.; false when oneDNN refuses. */
bool nd_onednn_run(const nd_onednn_call *call, int thread,
                   const void *const operands[ND_ONEDNN_OPERANDS]);

/* Name and version, "oneDNN 3.7.2". */
void nd_onednn_version(char *text, size_t size);

/* Limits oneDNN to an x86 instruction set, unless it has multiplied or is limited already. */
void nd_onednn_limit(nd_cpu_isa isa);

/* Whether the limit in force allows all of `isa`. */
bool nd_onednn_may_use(nd_cpu_isa isa);
