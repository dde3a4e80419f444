/* Momentum in 4 bits: M ~ Lᵀ R + E.
 *
 * Muon makes all singular values of the momentum equal, so an error as large as the small ones is
 * amplified to full size. The size of 4-bit errors follows the largest elements, which come from
 * the few largest singular directions. These are stored separately in 8 bits (L: [rank, rows], R:
 * [rank, cols], one scale per row), and only the remainder E in 4 bits, in tiles scaled by the
 * smaller of the row's and the column's maximum. Each store tracks the directions by one step of
 * subspace iteration from the last R; E holds whatever L and R miss, so a poor start costs
 * precision only once. */
#include "optim/orthonormal.h"
#include "optim/state_codec.h"

enum { LEFT, LEFT_SCALES, RIGHT, RIGHT_SCALES, REST, REST_ROWS, REST_COLUMNS, PARTS };

/* As many directions as cost a byte per ELEMENTS_PER_BYTE elements, so that the total stays below
 * 0.57 bytes per element; at least four for small matrices. */
enum { ELEMENTS_PER_BYTE = 28, RANK_MIN = 4 };

int64_t nd_state_low_rank(int64_t rows, int64_t cols)
{
    const int64_t side = rows < cols ? rows : cols;
    const int64_t rank = rows * cols / (ELEMENTS_PER_BYTE * (rows + cols));
    const int64_t least = side < RANK_MIN ? side : RANK_MIN;
    return rank > least ? rank : least;
}

static nd_status reserve(nd_state *s, nd_arena *arena)
{
    const int64_t rank = nd_state_low_rank(s->rows, s->cols);
    const int64_t tile_rows = (s->rows + ND_TILE - 1) / ND_TILE;
    const int64_t tile_cols = (s->cols + ND_TILE - 1) / ND_TILE;
    ND_TRY(nd_arena_reserve(arena, ND_I8, rank, s->rows, &s->parts[LEFT]));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, rank, &s->parts[LEFT_SCALES]));
    ND_TRY(nd_arena_reserve(arena, ND_I8, rank, s->cols, &s->parts[RIGHT]));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, rank, &s->parts[RIGHT_SCALES]));
    ND_TRY(nd_arena_reserve(arena, ND_U8, s->rows, (s->cols + 1) / 2, &s->parts[REST]));
    ND_TRY(nd_arena_reserve(arena, ND_BF16, s->rows, tile_cols, &s->parts[REST_ROWS]));
    return nd_arena_reserve(arena, ND_BF16, tile_rows, s->cols, &s->parts[REST_COLUMNS]);
}

static nd_blocks factor_of(const nd_state *s, int part)
{
    return (nd_blocks){.codes = s->parts[part],
                       .scales = s->parts[part + 1],
                       .block = s->parts[part].cols,
                       .code = ND_BLOCK_LINEAR};
}

static nd_tiles rest_of(const nd_state *s)
{
    return (nd_tiles){s->parts[REST], s->parts[REST_ROWS], s->parts[REST_COLUMNS]};
}

/* The shared scratch with views of this matrix's shape. */
static nd_state_scratch shaped(const nd_state_scratch *scratch, const nd_state *s)
{
    const int64_t rank = nd_state_low_rank(s->rows, s->cols);
    nd_state_scratch out = *scratch;
    out.left = nd_view_shaped(scratch->left, rank, s->rows);
    out.right = nd_view_shaped(scratch->right, rank, s->cols);
    out.product = nd_view_shaped(scratch->product, rank, s->rows);
    out.gram = nd_view_shaped(scratch->gram, rank, rank);
    return out;
}

static nd_status load(nd_backend *b, const nd_state *s, const nd_state_scratch *scratch,
                      nd_view into, nd_view *m)
{
    const nd_state_scratch r = shaped(scratch, s);
    const nd_blocks left = factor_of(s, LEFT), right = factor_of(s, RIGHT);
    const nd_tiles rest = rest_of(s);
    *m = nd_view_of(into.data, ND_F32, s->rows, s->cols);
    ND_TRY(b->ops.dequantize_blocks(b, r.left, &left));
    ND_TRY(b->ops.dequantize_blocks(b, r.right, &right));
    ND_TRY(b->ops.gemm(b, *m, nd_as_const(r.left), true, nd_as_const(r.right), false, 1.0f, 0.0f));
    return b->ops.dequantize_tiles(b, *m, &rest, 1.0f);
}

/* right := evenly spaced rows of m, for the first store. */
static nd_status start(nd_backend *b, nd_view right, nd_view m)
{
    for (int64_t k = 0; k < right.rows; k++)
        ND_TRY(b->ops.copy(b, nd_view_rows(right, k, 1).data,
                           nd_view_rows(m, k * m.rows / right.rows, 1).data,
                           nd_view_bytes(nd_as_const(nd_view_rows(right, k, 1)))));
    return ND_OK;
}

/* left := orthonormal rows that span M rightᵀ. *size 0: there are none. */
static nd_status iterate(nd_backend *b, const nd_state_scratch *r, nd_view m, double *size)
{
    ND_TRY(
        b->ops.gemm(b, r->product, nd_as_const(r->right), false, nd_as_const(m), true, 1.0f, 0.0f));
    return nd_orthonormal_rows(b, r->left, nd_as_const(r->product), r->gram, r->host, size);
}

/* codes := the encoded factor; factor := the decoded codes. */
static nd_status round_factor(nd_backend *b, const nd_blocks *codes, nd_view factor)
{
    ND_TRY(b->ops.quantize_blocks(b, codes, nd_as_const(factor)));
    return b->ops.dequantize_blocks(b, factor, codes);
}

static nd_status store(nd_backend *b, const nd_state *s, const nd_state_scratch *scratch, nd_view m)
{
    const nd_state_scratch r = shaped(scratch, s);
    const nd_blocks left = factor_of(s, LEFT), right = factor_of(s, RIGHT);
    const nd_tiles rest = rest_of(s);
    double size = 0.0;
    ND_TRY(b->ops.dequantize_blocks(b, r.right, &right));
    ND_TRY(iterate(b, &r, m, &size));
    if (size == 0.0) {
        ND_TRY(start(b, r.right, m));
        ND_TRY(iterate(b, &r, m, &size));
    }
    ND_TRY(round_factor(b, &left, r.left));
    ND_TRY(b->ops.gemm(b, r.right, nd_as_const(r.left), false, nd_as_const(m), false, 1.0f, 0.0f));
    ND_TRY(round_factor(b, &right, r.right));
    ND_TRY(b->ops.gemm(b, m, nd_as_const(r.left), true, nd_as_const(r.right), false, -1.0f, 1.0f));
    return b->ops.quantize_tiles(b, &rest, nd_as_const(m));
}

const nd_state_codec nd_state_low_rank4 = {
    "4-bit with a low-rank part",
    PARTS,
    {"_left", "_left_scales", "_right", "_right_scales", "_rest", "_rest_rows", "_rest_columns"},
    reserve,
    load,
    store};
