/* Shared by the forward and the backward pass of attention.
 *
 * Work is done for one key/value head at a time, with all query heads of its group stacked: a block
 * is group * queries rows, head after head, against tiles of ND_KEY_TILE keys. Everything a thread
 * holds is linear in key_len. */
#pragma once

#include "core/backend/cpu/fast_matmul.h"

/* Blocks are multiples of ND_ROW_STEP rows: oneDNN's f32 kernels for AVX2 sum remainder rows in
 * another order, and a row's result must not depend on its position in a block. */
enum { ND_KEY_TILE = ND_SOFTMAX_TILE, ND_BLOCK_ROWS = 64, ND_ROW_STEP = 16 };

typedef struct nd_attention_plan {
    nd_attention_shape shape;
    nd_dtype dtype;  /* of the products: bf16 when all inputs are, else f32 */
    size_t element;  /* its size */
    int64_t group;   /* query heads of one key/value head */
    int64_t queries; /* of one head in a block */
    int64_t rows;    /* of a block: group * queries, and padding */
    int64_t blocks;  /* of one sequence */
    int64_t tiles;   /* of one sequence's keys */
    float scale;     /* 1/sqrt(head_dim) */
} nd_attention_plan;

/* Plans the blocks and tiles of this shape for the threads and bf16 products of `fast`. */
nd_attention_plan nd_attention_plan_of(const nd_cpu_fast *fast, const nd_attention_shape *shape,
                                       bool all_bf16);

/* Some rows of q, o, dout and dq: of a sequence, or of one block of queries. */
typedef struct nd_attention_rows {
    int64_t first, count;
} nd_attention_rows;

/* How many of the `rows` rows of q are queries: all but those at the trailing -1 entries of
 * shape.rows. */
int64_t nd_attention_kept(const nd_attention_shape *shape, int64_t rows);

/* Which of these `kept` rows belong to one sequence. */
nd_attention_rows nd_attention_sequence(const nd_attention_shape *shape, int64_t kept,
                                        int64_t sequence);

/* Zeroes the rows of x from `first` on, those at -1. */
void nd_attention_zero_rows(nd_view x, int64_t first);

/* The token of row `row` of q. */
static inline int64_t nd_attention_token(const nd_attention_shape *s, int64_t row)
{
    return s->rows.data ? ((const int32_t *)s->rows.data)[row] : row;
}

/* The number of keys visible to row `row` of q. */
static inline int64_t nd_attention_visible(const nd_attention_shape *s, int64_t row)
{
    return s->key_len - s->query_len + nd_attention_token(s, row) % s->query_len + 1;
}

/* Whether row `row` of a block with `count` queries per head is padding. */
static inline bool nd_attention_padding(const nd_attention_plan *p, int64_t row, int64_t count)
{
    return row >= p->group * p->queries || row % p->queries >= count;
}

/* Block `block` of a sequence's rows. */
static inline nd_attention_rows nd_attention_block(const nd_attention_plan *p,
                                                   nd_attention_rows sequence, int64_t block)
{
    const int64_t start = block * p->queries;
    return (nd_attention_rows){sequence.first + start,
                               nd_fast_min(p->queries, sequence.count - start)};
}

/* Copies one block of q, o or dout into `out` [rows, head_dim] in the products' dtype: stacked by
 * head and padded with zeros. */
void nd_attention_gather_block(const nd_fast_kernels *k, const nd_attention_plan *p, nd_cview x,
                               nd_attention_rows rows, int64_t kv_head, void *out);

/* The reverse, for f32 rows: writes the block's rows of `x` (o or dq). */
void nd_attention_scatter_block(const nd_fast_kernels *k, const nd_attention_plan *p, nd_view x,
                                nd_attention_rows rows, int64_t kv_head, const float *in);

/* Copies a tile of keys or values of one head into `out`: row j is token tokens[j], or zeros if
 * that is -1. */
void nd_attention_gather_keys(const nd_fast_kernels *k, const nd_attention_plan *p, nd_cview x,
                              int64_t kv_head, const int64_t tokens[ND_KEY_TILE], void *out);

/* The op attention_backward, computed one block of queries at a time. */
nd_status nd_attention_backward_blocked(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                        nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                        nd_cview k, nd_cview v, const nd_attention_shape *shape);
