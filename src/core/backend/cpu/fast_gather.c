/* Fast layer: gathering rows.
 *
 * In place, row i overwrites memory that earlier rows may read, but later ones do not. Rows [i,
 * rows[i]) read nothing that they write, so threads copy whole rows of such a run, twice as fast as
 * parts of rows. Where runs are short, at the start, threads share the bytes of each row. */
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/op_families.h"

enum { LINE = 64, MIN_RUN_BYTES = 1 << 18 /* bytes of a run of whole rows */ };

/* The end of the longest run of rows from `first` that read nothing they write. */
static int64_t run_end(nd_view y, nd_cview x, nd_cview rows, int64_t first)
{
    const int32_t next = ((const int32_t *)rows.data)[first];
    return y.data != x.data || next < 0 ? y.rows
                                        : nd_fast_min(nd_fast_max(next, first + 1), y.rows);
}

static void share_rows(int threads, nd_view y, nd_cview x, nd_cview rows, int64_t first,
                       int64_t end)
{
    const size_t stride = (size_t)x.cols * nd_dtype_size(x.dtype);
    const int64_t part = nd_fast_ceil(end - first, threads);
#pragma omp parallel for num_threads(threads)
    for (int64_t at = first; at < end; at += part)
        nd_gather_rows_part(y, x, rows,
                            (nd_gather_part){at, nd_fast_min(at + part, end), 0, stride});
}

static void share_bytes(int threads, nd_view y, nd_cview x, nd_cview rows, int64_t first,
                        int64_t end)
{
    const int64_t stride = x.cols * (int64_t)nd_dtype_size(x.dtype);
    const int64_t part = nd_fast_ceil(nd_fast_ceil(stride, LINE), threads) * LINE;
#pragma omp parallel for num_threads(threads)
    for (int64_t at = 0; at < stride; at += part)
        nd_gather_rows_part(
            y, x, rows,
            (nd_gather_part){first, end, (size_t)at, (size_t)nd_fast_min(part, stride - at)});
}

static nd_status gather_rows_fast(nd_backend *b, nd_view y, nd_cview x, nd_cview rows)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    ND_REQUIRE(y.dtype == x.dtype && y.cols == x.cols && rows.dtype == ND_I32);
    ND_REQUIRE(rows.cols == y.rows);
    const int64_t stride = x.cols * (int64_t)nd_dtype_size(x.dtype);
    const int threads = nd_fast_team(fast, y.rows * stride / 4);
    if (threads == 1)
        nd_gather_rows_part(y, x, rows, (nd_gather_part){0, y.rows, 0, (size_t)stride});
    for (int64_t at = 0; threads > 1 && at < y.rows;) {
        int64_t start = at, end = run_end(y, x, rows, at);
        while (end < y.rows && (end - start) * stride < MIN_RUN_BYTES)
            end = run_end(y, x, rows, ++start);
        if (start > at)
            share_bytes(threads, y, x, rows, at, start);
        share_rows(threads, y, x, rows, start, end);
        at = end;
    }
    return ND_OK;
}

void nd_fast_fill_gather(nd_backend_ops *ops)
{
    ops->gather_rows = gather_rows_fast;
}
