/* Norms of summed gradients. Parameters that may be owned by rows are squared in blocks of rows, so
 * that the sum of squares has the same bits for any number of owners. */
#include "train/gradients/gradient_reducer_parts.h"

#include <math.h>
#include <stdlib.h>

static int64_t blocks_in(const nd_gradient_reducer *r, int64_t index, int64_t rows)
{
    const int64_t block = nd_optimizer_row_block(r->config, &r->params->list[index]);
    return (rows + block - 1) / block;
}

/* Whether the gradient has the parameter's rows. */
static bool has_blocks(const nd_gradient_reducer *r, int64_t index)
{
    return blocks_in(r, index, r->params->list[index].rows) > 1;
}

/* The number of values a rank reports of a parameter: 1, or the most blocks of rows of an owner. */
static int64_t places_of(const nd_gradient_reducer *r, int64_t index)
{
    const int64_t rows = r->params->list[index].rows;
    int64_t most = 1;
    if (!r->own->rows[index])
        return 1;
    for (int rank = 0; rank < r->own->ranks; rank++) {
        const int64_t blocks =
            blocks_in(r, index, nd_ownership_span(r->own, index, rank, rows).count);
        most = blocks > most ? blocks : most;
    }
    return most;
}

static int64_t places(const nd_gradient_reducer *r, int64_t first, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = first; i < first + count; i++)
        sum += places_of(r, i);
    return sum;
}

size_t nd_gradient_reducer_norm_bytes(const nd_gradient_reducer *r, int64_t first, int64_t count)
{
    return (size_t)places(r, first, count) * sizeof(double);
}

/* The blocks and the sketch of each parameter. */
static int64_t most_computed(const nd_gradient_reducer *r)
{
    int64_t most = r->params->count;
    for (int64_t i = 0; i < r->params->count; i++)
        most += has_blocks(r, i) ? blocks_in(r, i, r->params->list[i].rows) : 1;
    return most;
}

nd_status nd_gradient_norms_reserve(nd_gradient_reducer *r, nd_arena *arena)
{
    return nd_arena_reserve(arena, ND_F64, 1, most_computed(r), &r->sums.norms);
}

/* Squares of what this rank owns of a parameter: of each block, then of the sketch. */
static nd_status compute(const nd_gradient_reducer *r, int64_t index, int64_t *computed)
{
    nd_backend *b = r->backend;
    const nd_view sum = r->sums.sums[index], sketch = r->sums.sketches[index];
    double *device = r->sums.norms.data;
    const int64_t block = has_blocks(r, index)
                              ? nd_optimizer_row_block(r->config, &r->params->list[index])
                              : sum.rows;
    for (int64_t row = 0; sum.data && row < sum.rows; row += block) {
        const int64_t rows = sum.rows - row < block ? sum.rows - row : block;
        ND_TRY(b->ops.sum_squares(b, nd_view_of(device + (*computed)++, ND_F64, 1, 1),
                                  nd_as_const(nd_view_rows(sum, row, rows))));
    }
    return sum.data && sketch.data
               ? b->ops.sum_squares(b, nd_view_of(device + (*computed)++, ND_F64, 1, 1),
                                    nd_as_const(sketch))
               : ND_OK;
}

/* What this rank reports of a parameter it owns, from its squares at *at (advanced): NaN if its
 * sketch, which is reduced separately, is not finite. */
static void fill(const nd_gradient_reducer *r, int64_t index, const double **at, double *mine)
{
    const nd_view sum = r->sums.sums[index];
    if (!sum.data)
        return;
    const int64_t blocks = has_blocks(r, index) ? blocks_in(r, index, sum.rows) : 1;
    for (int64_t k = 0; k < blocks; k++)
        mine[r->own->rows[index] ? k : 0] += *(*at)++;
    if (r->sums.sketches[index].data && !isfinite(*(*at)++))
        mine[0] = (double)NAN;
}

/* Downloads all at once. */
static nd_status own_squares(const nd_gradient_reducer *r, int64_t first, int64_t count,
                             double *host, double *mine)
{
    int64_t computed = 0;
    for (int64_t i = first; i < first + count; i++)
        ND_TRY(compute(r, i, &computed));
    if (computed > 0)
        ND_TRY(r->backend->ops.download(r->backend, host, r->sums.norms.data,
                                        (size_t)computed * sizeof *host));
    const double *at = host;
    for (int64_t i = first; i < first + count; i++) {
        fill(r, i, &at, mine);
        mine += places_of(r, i);
    }
    return ND_OK;
}

/* A value of `owner`; if copies in other groups differ, the non-finite one: all judge alike. */
static double reported(const nd_gradient_reducer *r, const double *all, int64_t each, int owner,
                       int64_t at)
{
    double value = all[owner * each + at];
    for (int rank = owner; rank < r->comm->size; rank += r->own->ranks)
        value = isfinite(value) && !isfinite(all[rank * each + at]) ? all[rank * each + at] : value;
    return value;
}

/* From the owners' reports of `each` values per rank, this parameter's starting at `at`. */
static double square_of(const nd_gradient_reducer *r, int64_t index, const double *all,
                        int64_t each, int64_t at)
{
    double sum = 0.0;
    for (int owner = -1; (owner = nd_ownership_next(r->own, index, owner)) >= 0;) {
        const nd_row_span span =
            nd_ownership_span(r->own, index, owner, r->params->list[index].rows);
        const int64_t blocks = r->own->rows[index] ? blocks_in(r, index, span.count) : 1;
        for (int64_t k = 0; k < blocks; k++)
            sum += reported(r, all, each, owner, at + k);
    }
    return sum;
}

nd_status nd_gradient_norms_share(nd_gradient_reducer *r, int64_t first, int64_t count,
                                  int64_t *nonfinite)
{
    const int64_t each = places(r, first, count), most = most_computed(r);
    ND_AUTOFREE double *host = calloc((size_t)(most + each * (r->comm->size + 1)), sizeof *host);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory for the table of norms");
    double *mine = host + most, *all = mine + each;
    int64_t at = 0;
    *nonfinite = -1;
    ND_TRY(own_squares(r, first, count, host, mine));
    ND_TRY(r->comm->ops.allgather(r->comm, all, mine, (size_t)each * sizeof *mine));
    for (int64_t i = first; i < first + count; i++) {
        r->sums.squares[i] = square_of(r, i, all, each, at);
        if (!isfinite(r->sums.squares[i]) && *nonfinite < 0)
            *nonfinite = i;
        at += places_of(r, i);
    }
    return ND_OK;
}
