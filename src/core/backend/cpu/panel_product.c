#include "core/backend/cpu/panel_product.h"

#include "core/backend/cpu/fast_product.h"

#include <string.h>

/* Multiples of the panels; a tile's sums fit the second-level cache. A triangle has smaller tiles,
 * which balance the threads. A line more a row keeps rows apart in the cache's sets. How c is cut
 * changes no bits. */
enum { TILE_ROWS = 192, SHORT_TILE_ROWS = 96, TRIANGLE_TILE_ROWS = 48, TILE_COLS = 512, LINE = 16 };

typedef struct panel_call {
    const nd_product *p;
    const nd_panel_kind *kind;
    char *packed;     /* panels of columns */
    int64_t k, block; /* padded */
} panel_call;

static void pack_columns(const panel_call *c, int64_t panel)
{
    const nd_product *p = c->p;
    const int64_t width = c->kind->cols, col = panel * width;
    const int64_t row_stride = p->transpose_b ? 1 : p->b.cols;
    const int64_t col_stride = p->transpose_b ? p->b.cols : 1;
    c->kind->pack_cols(c->packed + panel * nd_panel_bytes(c->kind, width, c->k),
                       nd_element_at(p->b, col * col_stride), row_stride, col_stride,
                       nd_fast_min(width, p->n - col), p->k);
}

/* Packs inner values [first, first + k) of a tile's rows into panels, which stay in cache. */
static void pack_rows(const panel_call *c, nd_tile tile, int64_t first, int64_t k, char *rows)
{
    const nd_product *p = c->p;
    const int64_t row_stride = p->transpose_a ? p->a.cols : 1;
    const int64_t col_stride = p->transpose_a ? 1 : p->a.cols;
    const int64_t height = c->kind->rows;
    for (int64_t i = 0; i < tile.rows; i += height)
        c->kind->pack_rows(rows + nd_panel_bytes(c->kind, i, k),
                           nd_element_at(p->a, (tile.row + i) * col_stride + first * row_stride),
                           row_stride, col_stride, nd_fast_min(height, tile.rows - i),
                           nd_fast_min(k, p->k - first));
}

/* Where the sums of a tile's rows start. */
static void find_starts(const panel_call *c, nd_tile tile, int32_t start[TILE_ROWS])
{
    const nd_product *p = c->p;
    memset(start, 0, TILE_ROWS * sizeof *start);
    for (int64_t i = 0; c->kind->start_of_row && i < tile.rows; i++)
        start[i] =
            c->kind->start_of_row((const int8_t *)p->a.data + (tile.row + i) * p->a.cols, p->k);
}

/* The first row of panels to compute: symmetric products omit those above the diagonal. */
static int64_t first_row(const panel_call *c, nd_tile tile, int64_t col)
{
    const int64_t above = c->p->symmetric ? tile.col + col - tile.row : 0;
    return nd_fast_max(above, 0) / c->kind->rows * c->kind->rows;
}

static void run_tile(const panel_call *c, nd_tile tile, char *rows)
{
    const nd_panel_kind *kind = c->kind;
    int32_t start[TILE_ROWS];
    find_starts(c, tile, start);
    for (int64_t k = 0; k < c->k; k += c->block) {
        const int64_t count = nd_fast_min(c->block, c->k - k);
        pack_rows(c, tile, k, count, rows);
        const int64_t row_panels = nd_fast_ceil(tile.rows, kind->rows);
        const int64_t col_panels = nd_fast_ceil(tile.cols, kind->cols);
        /* The larger panel stays in the first-level cache. */
        for (int64_t index = 0; index < row_panels * col_panels; index++) {
            const bool by_cols = kind->rows < kind->cols;
            const int64_t i = (by_cols ? index % row_panels : index / col_panels) * kind->rows;
            const int64_t j = (by_cols ? index / row_panels : index % col_panels) * kind->cols;
            const char *b = c->packed + nd_panel_bytes(c->kind, tile.col + j, c->k) +
                            nd_panel_bytes(c->kind, kind->cols, k);
            if (i >= first_row(c, tile, j))
                kind->multiply((int32_t *)tile.values + i * tile.stride + j, tile.stride,
                               rows + nd_panel_bytes(c->kind, i, count), b, count,
                               k > 0 ? NULL : start + i);
        }
    }
}

const nd_panel_kind *nd_panel_kind_of(const nd_cpu_fast *fast, const nd_product *p)
{
    const int which = p->a.dtype == ND_F32    ? ND_PANEL_FLOATS
                      : p->a.dtype == ND_BF16 ? ND_PANEL_BF16
                      : p->ternary            ? ND_PANEL_CODES
                                              : ND_PANEL_WORDS;
    const nd_panel_kind *kinds = p->a.dtype == ND_I8 ? fast->panels : fast->float_panels;
    return kinds && kinds[which].multiply ? &kinds[which] : NULL;
}

/* Prepares the calls, their packed columns one after another. Errors: ND_ENOMEM. */
static nd_status prepare(nd_cpu_fast *fast, const nd_product *p, int count, panel_call *calls,
                         int64_t panels)
{
    const nd_panel_kind *kind = nd_panel_kind_of(fast, p);
    size_t bytes = 0, offsets[ND_PRODUCTS_MAX];
    for (int i = 0; i < count; i++) {
        ND_REQUIRE(p[i].finish && p[i].blocked_a == 0 &&
                   (p[i].a.dtype != ND_I8 || !p[i].transpose_a));
        calls[i] = (panel_call){.p = &p[i], .kind = kind};
        calls[i].k = nd_panel_padded(kind, p[i].k);
        calls[i].block = nd_fast_min(kind->block, calls[i].k);
        offsets[i] = bytes;
        bytes += (size_t)(panels * nd_panel_bytes(kind, kind->cols, calls[i].k));
    }
    ND_TRY(nd_fast_grow(&fast->packed, bytes));
    for (int i = 0; i < count; i++)
        calls[i].packed = (char *)fast->packed.memory + offsets[i];
    return ND_OK;
}

/* The tiles of c, which the threads of a parallel region share. */
static void run_tiles(const nd_cpu_fast *fast, const panel_call *calls, int count, nd_tile empty,
                      char *rows)
{
    const nd_product *p = calls->p;
    const int64_t height = empty.rows;
    const int64_t col_count = nd_fast_ceil(p->n, TILE_COLS), row_count = nd_fast_ceil(p->m, height);
    if (calls->kind->begin)
        calls->kind->begin();
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < row_count * col_count; index++) {
        /* Starts with the lowest rows of a triangle, which are the longest. */
        const int64_t at = p->symmetric ? row_count * col_count - 1 - index : index;
        nd_tile tile = empty;
        tile.row = at % row_count * height;
        tile.col = at / row_count * TILE_COLS;
        tile.rows = nd_fast_min(height, p->m - tile.row);
        tile.cols = nd_fast_min(TILE_COLS, p->n - tile.col);
        if (p->symmetric && tile.col >= tile.row + tile.rows)
            continue;
        for (int i = 0; i < count; i++) {
            run_tile(&calls[i], tile, rows);
            calls[i].p->finish(fast->kernels, calls[i].p->context, tile);
        }
    }
    if (calls->kind->end)
        calls->kind->end();
}

/* Rows of a tile: many, for which packed columns are read once, if each thread has two such tiles.
 */
static int64_t tile_rows(const nd_cpu_fast *fast, const nd_panel_kind *kind, const nd_product *p)
{
    const int64_t col_count = nd_fast_ceil(p->n, TILE_COLS);
    if (p->symmetric)
        return nd_fast_ceil(TRIANGLE_TILE_ROWS, kind->rows) * kind->rows;
    return nd_fast_ceil(p->m, TILE_ROWS) * col_count >= 2 * fast->threads ? TILE_ROWS
                                                                          : SHORT_TILE_ROWS;
}

nd_status nd_panel_multiply(nd_cpu_fast *fast, const nd_product *p, int count)
{
    const nd_panel_kind *kind = nd_panel_kind_of(fast, p);
    panel_call calls[ND_PRODUCTS_MAX];
    ND_REQUIRE(kind && count <= ND_PRODUCTS_MAX);
    const int64_t panels = nd_fast_ceil(p->n, kind->cols);
    ND_TRY(prepare(fast, p, count, calls, panels));
    const int64_t height = tile_rows(fast, kind, p);
    const int64_t stride = nd_fast_min(TILE_COLS, panels * kind->cols) + LINE;
    const size_t row_bytes = nd_fast_bytes(nd_panel_bytes(kind, height, calls->block), 1) + 64;
    ND_TRY(nd_fast_grow_private(fast, row_bytes + (size_t)(height * stride) * sizeof(int32_t)));
#pragma omp parallel num_threads(fast->threads)
    {
        char *rows = fast->private[nd_fast_thread()].memory;
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < count * panels; panel++)
            pack_columns(&calls[panel / panels], panel % panels);
        run_tiles(fast, calls, count,
                  (nd_tile){.rows = height, .stride = stride, .values = rows + row_bytes}, rows);
    }
    return ND_OK;
}
