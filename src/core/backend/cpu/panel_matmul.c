#include "core/backend/cpu/panel_matmul.h"

#include <string.h>

typedef struct strides {
    int64_t row, col; /* bytes from one inner value to the next, and from one row or column */
} strides;

static strides strides_of(const nd_panel_kind *kind, int64_t stride, bool inner_is_row)
{
    const int64_t bytes = kind->bytes;
    return inner_is_row ? (strides){stride * bytes, bytes} : (strides){bytes, stride * bytes};
}

bool nd_panel_matmul_covers(const nd_panel_kind *kind, const nd_matmul_shape *s)
{
    return kind && s->packed_b && s->c != ND_BF16;
}

int64_t nd_panel_matmul_panels(const nd_panel_kind *kind, const nd_matmul_shape *s)
{
    return nd_fast_ceil(s->n, kind->cols);
}

size_t nd_panel_matmul_packed_bytes(const nd_panel_kind *kind, const nd_matmul_shape *s)
{
    return (size_t)(nd_panel_matmul_panels(kind, s) * nd_panel_bytes(kind, kind->cols, s->k));
}

/* A panel of a, and a block of c. */
size_t nd_panel_matmul_scratch_bytes(const nd_panel_kind *kind)
{
    return nd_fast_bytes(kind->rows * kind->block, (size_t)kind->bytes) +
           nd_fast_bytes(kind->rows * kind->cols, sizeof(float));
}

void nd_panel_matmul_pack(const nd_panel_kind *kind, const nd_matmul_shape *s, const void *b,
                          void *packed, int64_t panel)
{
    const strides by = strides_of(kind, s->ldb, !s->transpose_b);
    const int64_t col = panel * kind->cols;
    kind->pack_cols((char *)packed + panel * nd_panel_bytes(kind, kind->cols, s->k),
                    (const char *)b + col * by.col, by.row / kind->bytes, by.col / kind->bytes,
                    nd_fast_min(kind->cols, s->n - col), s->k);
}

/* A block of c that is smaller than a panel each way, through `block`. */
static void multiply_part(const nd_panel_kind *kind, char *c, int64_t stride, int64_t rows,
                          int64_t cols, const void *a, const void *b, int64_t k,
                          const int32_t *start, char *block)
{
    const size_t bytes = (size_t)cols * sizeof(float);
    const int64_t row_bytes = stride * (int64_t)sizeof(float);
    const int64_t block_bytes = kind->cols * (int64_t)sizeof(float);
    for (int64_t i = 0; !start && i < rows; i++)
        memcpy(block + i * block_bytes, c + i * row_bytes, bytes);
    kind->multiply(block, kind->cols, a, b, k, start);
    for (int64_t i = 0; i < rows; i++)
        memcpy(c + i * row_bytes, block + i * block_bytes, bytes);
}

void nd_panel_matmul_run(const nd_panel_kind *kind, const nd_matmul_shape *s, const void *a,
                         const void *packed, void *c, void *scratch)
{
    const strides by = strides_of(kind, s->lda, s->transpose_a);
    char *block = (char *)scratch + nd_fast_bytes(kind->rows * kind->block, (size_t)kind->bytes);
    static const int32_t zeros[64]; /* at least kind->rows */
    if (kind->begin)
        kind->begin();
    for (int64_t k = 0; k < s->k; k += kind->block)
        for (int64_t i = 0; i < s->m; i += kind->rows) {
            const int64_t count = nd_fast_min(kind->block, s->k - k);
            const int64_t rows = nd_fast_min(kind->rows, s->m - i);
            const int32_t *start = s->accumulate || k > 0 ? NULL : zeros;
            kind->pack_rows(scratch, (const char *)a + i * by.col + k * by.row,
                            by.row / kind->bytes, by.col / kind->bytes, rows, count);
            for (int64_t j = 0; j < s->n; j += kind->cols) {
                const char *b = (const char *)packed +
                                j / kind->cols * nd_panel_bytes(kind, kind->cols, s->k) +
                                k * kind->cols * kind->bytes;
                char *at = (char *)c + (i * s->ldc + j) * (int64_t)sizeof(float);
                const int64_t cols = nd_fast_min(kind->cols, s->n - j);
                if (rows == kind->rows && cols == kind->cols)
                    kind->multiply(at, s->ldc, scratch, b, nd_panel_padded(kind, count), start);
                else
                    multiply_part(kind, at, s->ldc, rows, cols, scratch, b,
                                  nd_panel_padded(kind, count), start, block);
            }
        }
    if (kind->end)
        kind->end();
}
