#include "core/backend/cpu/integer_product.h"

/* Multiples of the panels; a tile's sums stay in the second-level cache. */
enum { TILE_ROWS = 96, TILE_COLS = 512 };

typedef struct integer_call {
    const nd_product *p;
    const nd_integer_kind *kind;
    const char *packed; /* [panels of columns][k / step][16][step] */
    int64_t k;          /* padded */
} integer_call;

static int64_t panel_bytes(const integer_call *c, int64_t width)
{
    return c->k * width * c->kind->bytes;
}

static void pack_panel(const integer_call *c, int64_t panel, char *packed)
{
    const nd_product *p = c->p;
    const int64_t col = panel * ND_INTEGER_COLS;
    const int64_t down = p->transpose_b ? 1 : p->b.cols, across = p->transpose_b ? p->b.cols : 1;
    c->kind->pack_cols(packed + panel * panel_bytes(c, ND_INTEGER_COLS),
                       (const int8_t *)p->b.data + col * across, down, across,
                       nd_fast_min(ND_INTEGER_COLS, p->n - col), p->k);
}

/* Rows of a as panels, and where the sums of each row start. */
static void begin_tile(const integer_call *c, nd_tile tile, char *rows)
{
    const nd_product *p = c->p;
    for (int64_t i = 0; i < tile.rows; i += ND_INTEGER_ROWS)
        c->kind->pack_rows(rows + i / ND_INTEGER_ROWS * panel_bytes(c, ND_INTEGER_ROWS),
                           (const int8_t *)p->a.data + (tile.row + i) * p->a.cols, p->a.cols,
                           nd_fast_min(ND_INTEGER_ROWS, tile.rows - i), p->k);
    int32_t *sums = tile.values;
    for (int64_t i = 0; i < TILE_ROWS; i++) {
        const int32_t start =
            i < tile.rows ? c->kind->start_of_row(
                                (const int8_t *)p->a.data + (tile.row + i) * p->a.cols, p->k)
                          : 0;
        for (int64_t j = 0; j < tile.stride; j++)
            sums[i * tile.stride + j] = start;
    }
}

static void run_tile(const integer_call *c, nd_tile tile, char *rows)
{
    const nd_integer_kind *kind = c->kind;
    const int64_t first = tile.col / ND_INTEGER_COLS;
    begin_tile(c, tile, rows);
    for (int64_t k = 0; k < c->k; k += kind->block) {
        const int64_t count = nd_fast_min(kind->block, c->k - k);
        for (int64_t j = 0; j < tile.cols; j += ND_INTEGER_COLS) {
            const char *b = c->packed +
                            (first + j / ND_INTEGER_COLS) * panel_bytes(c, ND_INTEGER_COLS) +
                            k * ND_INTEGER_COLS * kind->bytes;
            for (int64_t i = 0; i < tile.rows; i += ND_INTEGER_ROWS)
                kind->multiply((int32_t *)tile.values + i * tile.stride + j, tile.stride,
                               rows + i / ND_INTEGER_ROWS * panel_bytes(c, ND_INTEGER_ROWS) +
                                   k * ND_INTEGER_ROWS * kind->bytes,
                               b, count);
        }
    }
}

nd_status nd_integer_multiply(nd_cpu_fast *fast, const nd_product *p)
{
    const nd_integer_kind *kind = &fast->integers[p->ternary];
    integer_call c = {.p = p, .kind = kind, .k = nd_fast_ceil(p->k, kind->step) * kind->step};
    const int64_t panels = nd_fast_ceil(p->n, ND_INTEGER_COLS);
    const int64_t width = nd_fast_min(TILE_COLS, panels * ND_INTEGER_COLS);
    const size_t row_bytes = nd_fast_bytes(panel_bytes(&c, TILE_ROWS), 1);
    ND_REQUIRE(!p->transpose_a && p->blocked_a == 0 && !p->c.data);
    ND_TRY(nd_fast_grow(&fast->packed, (size_t)(panels * panel_bytes(&c, ND_INTEGER_COLS))));
    ND_TRY(nd_fast_grow_private(fast, row_bytes + (size_t)(TILE_ROWS * width) * sizeof(int32_t)));
    c.packed = fast->packed.memory;
    const int64_t across = nd_fast_ceil(p->n, TILE_COLS), down = nd_fast_ceil(p->m, TILE_ROWS);
#pragma omp parallel num_threads(fast->threads)
    {
        char *rows = fast->private[nd_fast_thread()].memory;
#pragma omp for schedule(static)
        for (int64_t panel = 0; panel < panels; panel++)
            pack_panel(&c, panel, fast->packed.memory);
#pragma omp for schedule(dynamic, 1)
        for (int64_t index = 0; index < down * across; index++) {
            nd_tile tile = {.row = index / across * TILE_ROWS,
                            .col = index % across * TILE_COLS,
                            .stride = width,
                            .values = rows + row_bytes};
            tile.rows = nd_fast_min(TILE_ROWS, p->m - tile.row);
            tile.cols = nd_fast_min(TILE_COLS, p->n - tile.col);
            run_tile(&c, tile, rows);
            p->finish(fast->kernels, p->context, tile);
        }
    }
    return ND_OK;
}
