/* Copies blocks of heads between the tensors' layout and dense memory. */
#include "core/backend/cpu/fast_attention.h"

#include <math.h>
#include <string.h>

nd_attention_plan nd_attention_plan_of(const nd_cpu_fast *fast, const nd_attention_shape *shape,
                                       bool all_bf16)
{
    nd_attention_plan p = {.shape = *shape};
    p.dtype = all_bf16 && nd_fast_multiplies_bf16(fast) ? ND_BF16 : ND_F32;
    p.element = nd_dtype_size(p.dtype);
    p.group = shape->heads / shape->kv_heads;
    p.queries = nd_fast_max(1, nd_fast_min(ND_BLOCK_ROWS / p.group, shape->query_len));
    p.rows = nd_fast_ceil(p.group * p.queries, ND_ROW_STEP) * ND_ROW_STEP;
    p.blocks = nd_fast_ceil(shape->query_len, p.queries);
    p.tiles = nd_fast_ceil(shape->key_len, ND_KEY_TILE);
    p.scale = (float)(1.0 / sqrt((double)shape->head_dim));
    return p;
}

int64_t nd_attention_kept(const nd_attention_shape *shape, int64_t rows)
{
    const int32_t *kept = shape->rows.data;
    while (kept && rows > 0 && kept[rows - 1] < 0)
        rows--;
    return rows;
}

void nd_attention_zero_rows(nd_view x, int64_t first)
{
    const nd_view rest = nd_view_rows(x, first, x.rows - first);
    if (rest.rows > 0)
        memset(rest.data, 0, nd_view_bytes(nd_as_const(rest)));
}

nd_attention_rows nd_attention_sequence(const nd_attention_shape *shape, int64_t kept,
                                        int64_t sequence)
{
    const int64_t start = sequence * shape->query_len, stop = start + shape->query_len;
    const int32_t *rows = shape->rows.data;
    if (!rows)
        return (nd_attention_rows){start, shape->query_len};
    int64_t first = 0;
    while (first < kept && rows[first] < start)
        first++;
    int64_t end = first;
    while (end < kept && rows[end] < stop)
        end++;
    return (nd_attention_rows){first, end - first};
}

/* Elements [first, first + n) of x as `dtype`, which is f32, or bf16 like x itself. */
static void copy_elements(const nd_fast_kernels *k, nd_cview x, int64_t first, int64_t n,
                          nd_dtype dtype, void *out)
{
    if (x.dtype == dtype)
        memcpy(out, (const char *)x.data + (size_t)first * nd_dtype_size(dtype),
               (size_t)n * nd_dtype_size(dtype));
    else
        k->load_bf16(out, (const uint16_t *)x.data + first, n);
}

void nd_attention_gather_block(const nd_fast_kernels *k, const nd_attention_plan *p, nd_cview x,
                               nd_attention_rows rows, int64_t kv_head, void *out)
{
    const int64_t d = p->shape.head_dim;
    const size_t row_bytes = (size_t)d * p->element;
    char *row = out;
    for (int64_t h = 0; h < p->group; h++) {
        for (int64_t i = 0; i < rows.count; i++, row += row_bytes) {
            const int64_t head = kv_head * p->group + h;
            copy_elements(k, x, ((rows.first + i) * p->shape.heads + head) * d, d, p->dtype, row);
        }
        memset(row, 0, (size_t)(p->queries - rows.count) * row_bytes);
        row += (size_t)(p->queries - rows.count) * row_bytes;
    }
    memset(row, 0, (size_t)(p->rows - p->group * p->queries) * row_bytes);
}

void nd_attention_scatter_block(const nd_fast_kernels *k, const nd_attention_plan *p, nd_view x,
                                nd_attention_rows rows, int64_t kv_head, const float *in)
{
    const int64_t d = p->shape.head_dim;
    for (int64_t h = 0; h < p->group; h++)
        for (int64_t i = 0; i < rows.count; i++) {
            const int64_t at = ((rows.first + i) * p->shape.heads + kv_head * p->group + h) * d;
            const float *row = in + (h * p->queries + i) * d;
            if (x.dtype == ND_F32)
                memcpy((float *)x.data + at, row, (size_t)d * sizeof *row);
            else
                nd_fast_store(k, x, at, d, row);
        }
}

void nd_attention_gather_keys(const nd_fast_kernels *k, const nd_attention_plan *p, nd_cview x,
                              int64_t kv_head, const int64_t tokens[ND_KEY_TILE], void *out)
{
    const int64_t d = p->shape.head_dim;
    const size_t row_bytes = (size_t)d * p->element;
    char *row = out;
    for (int64_t j = 0; j < ND_KEY_TILE; j++, row += row_bytes) {
        if (tokens[j] < 0)
            memset(row, 0, row_bytes);
        else
            copy_elements(k, x, (tokens[j] * p->shape.kv_heads + kv_head) * d, d, p->dtype, row);
    }
}
