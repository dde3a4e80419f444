/* oneDNN behind one small seam, the only place that knows its API: versions 2.5 to 3.x. Nothing
 * here says how many threads work on a call: OpenMP's setting does, when it is made and when it
 * runs. */
#pragma once

#include "core/backend/backend.h"

/* [rows, cols]; distance of neighbours in a column and in a row. Both 0: oneDNN's
 * favourite layout. */
typedef struct nd_onednn_matrix {
    int64_t rows, cols, row_stride, col_stride;
    nd_dtype dtype;
} nd_onednn_matrix;

/* What a call works on: a product takes all four, a packing reads A and writes B. */
enum { ND_ONEDNN_A, ND_ONEDNN_B, ND_ONEDNN_C, ND_ONEDNN_SCRATCH, ND_ONEDNN_OPERANDS };

typedef struct nd_onednn nd_onednn;
typedef struct nd_onednn_call nd_onednn_call;

/* oneDNN's CPU, for calls by `threads` threads. Destroy its calls first. Errors: ND_ENOMEM,
 * ND_EINTERNAL with oneDNN's status, as of all that follows. */
nd_status nd_onednn_create(int threads, nd_onednn **onednn);
void nd_onednn_destroy(nd_onednn *onednn);

/* c = a b, or c += a b when it accumulates. ND_EINTERNAL also where oneDNN has no such product. */
nd_status nd_onednn_product(nd_onednn *onednn, const nd_onednn_matrix *a, const nd_onednn_matrix *b,
                            const nd_onednn_matrix *c, bool accumulate, nd_onednn_call **call);
/* A copy of `b` in the layout that `product` wants for its own. */
nd_status nd_onednn_packing(nd_onednn *onednn, const nd_onednn_matrix *b,
                            const nd_onednn_call *product, nd_onednn_call **call);
void nd_onednn_call_destroy(nd_onednn_call *call);

size_t nd_onednn_bytes(const nd_onednn_call *call, int operand);
bool nd_onednn_same_layout(const nd_onednn_call *x, const nd_onednn_call *y, int operand);

/* Runs it as `thread`, on operands where ND_ONEDNN_A and so on say; false when oneDNN refuses. */
bool nd_onednn_run(const nd_onednn_call *call, int thread,
                   const void *const operands[ND_ONEDNN_OPERANDS]);

/* Limits oneDNN to an instruction set of x86, unless it has multiplied or is limited already; and
 * whether the limit in force leaves it all of `isa`. */
/* Its version and name, "oneDNN 3.7.2". */
void nd_onednn_version(char *text, size_t size);
void nd_onednn_limit(nd_cpu_isa isa);
bool nd_onednn_may_use(nd_cpu_isa isa);
