/* Reference: row ops, elementwise ops and reductions. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"

#include <math.h>
#include <string.h>

static nd_status rmsnorm_reference(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview w)
{
    (void)b;
    ND_REQUIRE_FLOATS(y.dtype, r.dtype, x.dtype, w.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(y), x));
    ND_REQUIRE(w.rows == 1 && w.cols == x.cols && r.rows == x.rows && r.cols == 1);
    for (int64_t t = 0; t < x.rows; t++) {
        double sum = 0.0;
        for (int64_t i = 0; i < x.cols; i++)
            sum += nd_load(x, t * x.cols + i) * nd_load(x, t * x.cols + i);
        const double scale = 1.0 / sqrt(sum / (double)x.cols + 1e-5);
        nd_store(r, t, scale);
        for (int64_t i = 0; i < x.cols; i++)
            nd_store(y, t * x.cols + i, nd_load(x, t * x.cols + i) * scale * nd_load(w, i));
    }
    return ND_OK;
}

static nd_status rmsnorm_quantize_reference(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                            nd_cview x, nd_cview w)
{
    float row[x.cols > 0 ? x.cols : 1];
    for (int64_t t = 0; t < x.rows; t++) {
        const nd_view normed = nd_view_of(row, ND_F32, 1, x.cols);
        ND_TRY(rmsnorm_reference(b, normed, nd_view_rows(r, t, 1), nd_cview_rows(x, t, 1), w));
        ND_TRY(b->ops.quantize_rows(b, nd_view_rows(q, t, 1), nd_view_rows(a, t, 1),
                                    nd_as_const(normed)));
    }
    return ND_OK;
}

static nd_status rmsnorm_backward_reference(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy,
                                            nd_cview x, nd_cview w, nd_cview r, float beta)
{
    (void)b;
    ND_REQUIRE_FLOATS(dx.dtype, dy.dtype, x.dtype, w.dtype, r.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(dx), x) && nd_same_shape(dy, x) && w.cols == x.cols);
    ND_REQUIRE((dw.dtype == ND_F32 || dw.dtype == ND_F64) && dw.cols == x.cols && r.rows == x.rows);
    for (int64_t t = 0; t < x.rows; t++) {
        const int64_t row = t * x.cols;
        const double scale = nd_load(r, t);
        double dot = 0.0;
        for (int64_t i = 0; i < x.cols; i++)
            dot += nd_load(dy, row + i) * nd_load(w, i) * nd_load(x, row + i);
        const double mean = dot / (double)x.cols;
        for (int64_t i = 0; i < x.cols; i++) {
            const double g = nd_load(dy, row + i) * nd_load(w, i);
            nd_accumulate(dx, row + i, scale * (g - nd_load(x, row + i) * scale * scale * mean),
                          beta);
        }
    }
    for (int64_t i = 0; i < x.cols; i++) {
        double sum = 0.0;
        for (int64_t t = 0; t < x.rows; t++)
            sum += nd_load(dy, t * x.cols + i) * nd_load(x, t * x.cols + i) * nd_load(r, t);
        nd_store(dw, i, nd_load(nd_as_const(dw), i) + sum);
    }
    return ND_OK;
}

static nd_status rope_reference(nd_backend *b, nd_view x, const nd_rope_params *p)
{
    (void)b;
    ND_REQUIRE(nd_is_float(x.dtype) && p->seq_len > 0);
    ND_REQUIRE(p->head_dim > 0 && p->head_dim % 2 == 0 && x.cols % p->head_dim == 0);
    const int64_t half = p->head_dim / 2;
    const int32_t *rows = p->rows.data;
    ND_REQUIRE(!rows || p->rows.cols == x.rows);
    for (int64_t t = 0; t < x.rows; t++) {
        if (rows && rows[t] < 0)
            continue;
        const double position = (double)(p->start + (rows ? rows[t] : t) % p->seq_len);
        for (int64_t head = 0; head < x.cols / p->head_dim; head++)
            for (int64_t i = 0; i < half; i++) {
                const double exponent = -2.0 * (double)i / (double)p->head_dim;
                const double angle = position * pow(p->base, exponent);
                const double c = cos(angle), s = p->inverse ? -sin(angle) : sin(angle);
                const int64_t base = t * x.cols + head * p->head_dim;
                const bool halves = p->style == ND_ROPE_HALVES;
                const int64_t first = base + (halves ? i : 2 * i);
                const int64_t second = base + (halves ? i + half : 2 * i + 1);
                const double u = nd_load(nd_as_const(x), first),
                             v = nd_load(nd_as_const(x), second);
                nd_store(x, first, u * c - v * s);
                nd_store(x, second, u * s + v * c);
            }
    }
    return ND_OK;
}

void nd_gather_rows_part(nd_view y, nd_cview x, nd_cview rows, nd_gather_part part)
{
    const size_t stride = (size_t)x.cols * nd_dtype_size(x.dtype);
    const int32_t *source = rows.data;
    for (int64_t i = part.first; i < part.end; i++) {
        char *to = (char *)y.data + (size_t)i * stride + part.from;
        if (source[i] < 0)
            memset(to, 0, part.count);
        else
            memmove(to, (const char *)x.data + (size_t)source[i] * stride + part.from, part.count);
    }
}

static nd_status gather_rows_reference(nd_backend *b, nd_view y, nd_cview x, nd_cview rows)
{
    (void)b;
    ND_REQUIRE(y.dtype == x.dtype && y.cols == x.cols && rows.dtype == ND_I32);
    ND_REQUIRE(rows.cols == y.rows);
    const size_t stride = (size_t)x.cols * nd_dtype_size(x.dtype);
    nd_gather_rows_part(y, x, rows, (nd_gather_part){0, y.rows, 0, stride});
    return ND_OK;
}

static nd_status add_reference(nd_backend *b, nd_view y, nd_cview x, nd_cview z)
{
    (void)b;
    ND_REQUIRE_FLOATS(y.dtype, x.dtype, z.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(y), x) && nd_same_shape(x, z));
    for (int64_t i = 0; i < nd_view_count(x); i++)
        nd_store(y, i, nd_load(x, i) + nd_load(z, i));
    return ND_OK;
}

static nd_status axpby_reference(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta)
{
    (void)b;
    ND_REQUIRE_FLOATS(y.dtype, x.dtype);
    ND_REQUIRE(nd_view_count(nd_as_const(y)) == nd_view_count(x));
    for (int64_t i = 0; i < nd_view_count(x); i++)
        nd_accumulate(y, i, (double)alpha * nd_load(x, i), beta);
    return ND_OK;
}

/* Uses this backend's own axpby, reference or fast. */
static nd_status divide_by_norm_reference(nd_backend *b, nd_view y, nd_cview x, nd_cview squares,
                                          double factor)
{
    ND_REQUIRE(squares.dtype == ND_F64);
    const double norm = (sqrt(nd_load(squares, 0)) + 1e-30) * factor;
    return b->ops.axpby(b, y, (float)(1.0 / norm), x, 0.0f);
}

static nd_status sum_squares_reference(nd_backend *b, nd_view out, nd_cview x)
{
    (void)b;
    ND_REQUIRE_FLOATS(x.dtype);
    ND_REQUIRE(out.dtype == ND_F64 && out.rows == 1 && out.cols == 1);
    double sum = 0.0;
    for (int64_t i = 0; i < nd_view_count(x); i++)
        sum += nd_load(x, i) * nd_load(x, i);
    nd_store(out, 0, sum);
    return ND_OK;
}

static nd_status sum_reference(nd_backend *b, nd_view out, nd_cview x)
{
    (void)b;
    ND_REQUIRE_FLOATS(x.dtype);
    ND_REQUIRE(out.dtype == ND_F64 && out.rows == 1 && out.cols == 1);
    double sum = 0.0;
    for (int64_t i = 0; i < nd_view_count(x); i++)
        sum += nd_load(x, i);
    nd_store(out, 0, sum);
    return ND_OK;
}

void nd_reference_fill_rows(nd_backend_ops *ops)
{
    ops->rmsnorm = rmsnorm_reference;
    ops->rmsnorm_quantize = rmsnorm_quantize_reference;
    ops->rmsnorm_backward = rmsnorm_backward_reference;
    ops->rope = rope_reference;
    ops->gather_rows = gather_rows_reference;
    ops->add = add_reference;
    ops->axpby = axpby_reference;
    ops->divide_by_norm = divide_by_norm_reference;
    ops->sum_squares = sum_squares_reference;
    ops->sum = sum_reference;
}
