#include "core/backend/cpu/panel_product.h"

#include <string.h>

/* Multiples of the panels; a tile's sums fit the second-level cache. A triangle has smaller tiles,
 * which balance the threads. */
enum { TILE_ROWS = 96, TRIANGLE_TILE_ROWS = 48, TILE_COLS = 512 };

typedef struct panel_call {
    const nd_product *p;
    const nd_panel_kind *kind;
    const char *packed; /* [panels of columns][k / step][16][step] */
    int64_t k, block;   /* padded */
} panel_call;

static int64_t panel_bytes(const panel_call *c, int64_t width, int64_t k)
{
    return k * width * c->kind->bytes;
}

static void pack_columns(const panel_call *c, int64_t panel, char *packed)
{
    const nd_product *p = c->p;
    const int64_t col = panel * ND_PANEL_COLS;
    const int64_t row_stride = p->transpose_b ? 1 : p->b.cols;
    const int64_t col_stride = p->transpose_b ? p->b.cols : 1;
    c->kind->pack_cols(packed + panel * panel_bytes(c, ND_PANEL_COLS, c->k),
                       nd_element_at(p->b, col * col_stride), row_stride, col_stride,
                       nd_fast_min(ND_PANEL_COLS, p->n - col), p->k);
}

/* Packs inner values [first, first + k) of a tile's rows into panels, which stay in cache. */
static void pack_rows(const panel_call *c, nd_tile tile, int64_t first, int64_t k, char *rows)
{
    const nd_product *p = c->p;
    const int64_t row_stride = p->transpose_a ? p->a.cols : 1;
    const int64_t col_stride = p->transpose_a ? 1 : p->a.cols;
    for (int64_t i = 0; i < tile.rows; i += ND_PANEL_ROWS)
        c->kind->pack_rows(rows + panel_bytes(c, i, k),
                           nd_element_at(p->a, (tile.row + i) * col_stride + first * row_stride),
                           row_stride, col_stride, nd_fast_min(ND_PANEL_ROWS, tile.rows - i),
                           nd_fast_min(k, p->k - first));
}

/* Initialises the sums of a tile. */
static void initialize_tile(const panel_call *c, nd_tile tile)
{
    const nd_product *p = c->p;
    int32_t *sums = tile.values;
    memset(sums, 0, (size_t)(tile.rows * tile.stride) * sizeof *sums);
    for (int64_t i = 0; c->kind->start_of_row && i < tile.rows; i++) {
        const int32_t start =
            c->kind->start_of_row((const int8_t *)p->a.data + (tile.row + i) * p->a.cols, p->k);
        for (int64_t j = 0; j < tile.stride; j++)
            sums[i * tile.stride + j] = start;
    }
}

/* The first row of panels to compute: symmetric products omit those above the diagonal. */
static int64_t first_row(const panel_call *c, nd_tile tile, int64_t col)
{
    const int64_t above = c->p->symmetric ? tile.col + col - tile.row : 0;
    return nd_fast_max(above, 0) / ND_PANEL_ROWS * ND_PANEL_ROWS;
}

static void run_tile(const panel_call *c, nd_tile tile, char *rows)
{
    const nd_panel_kind *kind = c->kind;
    initialize_tile(c, tile);
    for (int64_t k = 0; k < c->k; k += c->block) {
        const int64_t count = nd_fast_min(c->block, c->k - k);
        pack_rows(c, tile, k, count, rows);
        for (int64_t j = 0; j < tile.cols; j += ND_PANEL_COLS) {
            const char *b =
                c->packed + panel_bytes(c, tile.col + j, c->k) + panel_bytes(c, ND_PANEL_COLS, k);
            for (int64_t i = first_row(c, tile, j); i < tile.rows; i += ND_PANEL_ROWS)
                kind->multiply((int32_t *)tile.values + i * tile.stride + j, tile.stride,
                               rows + panel_bytes(c, i, count), b, count);
        }
    }
}

nd_status nd_panel_multiply(nd_cpu_fast *fast, const nd_product *p)
{
    const int which = p->a.dtype == ND_F32 ? ND_PANEL_FLOATS
                      : p->ternary         ? ND_PANEL_CODES
                                           : ND_PANEL_WORDS;
    const nd_panel_kind *kind = &fast->panels[which];
    panel_call c = {.p = p, .kind = kind, .k = nd_fast_ceil(p->k, kind->step) * kind->step};
    c.block = nd_fast_min(kind->block, c.k);
    const int64_t panels = nd_fast_ceil(p->n, ND_PANEL_COLS);
    const int64_t width = nd_fast_min(TILE_COLS, panels * ND_PANEL_COLS);
    const size_t row_bytes = nd_fast_bytes(panel_bytes(&c, TILE_ROWS, c.block), 1) + 64;
    ND_REQUIRE(p->finish && p->blocked_a == 0 && (which == ND_PANEL_FLOATS || !p->transpose_a));
    ND_TRY(nd_fast_grow(&fast->packed, (size_t)(panels * panel_bytes(&c, ND_PANEL_COLS, c.k))));
    ND_TRY(nd_fast_grow_private(fast, row_bytes + (size_t)(TILE_ROWS * width) * sizeof(int32_t)));
    c.packed = fast->packed.memory;
    const int64_t height = p->symmetric ? TRIANGLE_TILE_ROWS : TILE_ROWS;
    const int64_t col_count = nd_fast_ceil(p->n, TILE_COLS), row_count = nd_fast_ceil(p->m, height);
#pragma omp parallel num_threads(fast->threads)
    {
        char *rows = fast->private[nd_fast_thread()].memory;
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < panels; panel++)
            pack_columns(&c, panel, fast->packed.memory);
#pragma omp for schedule(dynamic, 1)
        for (int64_t index = 0; index < row_count * col_count; index++) {
            /* Starts with the lowest rows of a triangle, which are the longest. */
            const int64_t at = p->symmetric ? row_count * col_count - 1 - index : index;
            nd_tile tile = {.row = at / col_count * height,
                            .col = at % col_count * TILE_COLS,
                            .stride = width,
                            .values = rows + row_bytes};
            tile.rows = nd_fast_min(height, p->m - tile.row);
            tile.cols = nd_fast_min(TILE_COLS, p->n - tile.col);
            if (p->symmetric && tile.col >= tile.row + tile.rows)
                continue;
            run_tile(&c, tile, rows);
            p->finish(fast->kernels, p->context, tile);
        }
    }
    return ND_OK;
}
