/* Reference: embedding and softmax cross-entropy. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"

#include <math.h>

nd_status nd_check_tokens(nd_cview tokens, int64_t rows, int64_t vocab, int32_t lowest)
{
    ND_REQUIRE(tokens.dtype == ND_I32 && nd_view_count(tokens) == rows);
    const int32_t *ids = tokens.data;
    for (int64_t t = 0; t < rows; t++)
        ND_FAIL_IF(ids[t] < lowest || ids[t] >= vocab, ND_EINTERNAL,
                   "token %d at position %lld is outside [%d, %lld)", ids[t], (long long)t, lowest,
                   (long long)vocab);
    return ND_OK;
}

static nd_status embedding_reference(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens)
{
    (void)b;
    ND_REQUIRE(nd_is_float(x.dtype) && nd_is_float(table.dtype) && x.cols == table.cols);
    ND_TRY(nd_check_tokens(tokens, x.rows, table.rows, 0));
    const int32_t *ids = tokens.data;
    for (int64_t t = 0; t < x.rows; t++)
        for (int64_t i = 0; i < x.cols; i++)
            nd_store(x, t * x.cols + i, nd_load(table, ids[t] * table.cols + i));
    return ND_OK;
}

static nd_status embedding_backward_reference(nd_backend *b, nd_view dtable, nd_cview dx,
                                              nd_cview tokens)
{
    (void)b;
    ND_REQUIRE_FLOATS(dx.dtype);
    ND_REQUIRE((dtable.dtype == ND_F32 || dtable.dtype == ND_F64) && dx.cols == dtable.cols);
    ND_TRY(nd_check_tokens(tokens, dx.rows, dtable.rows, 0));
    const int32_t *ids = tokens.data;
    for (int64_t t = 0; t < dx.rows; t++)
        for (int64_t i = 0; i < dx.cols; i++) {
            const int64_t at = ids[t] * dtable.cols + i;
            nd_store(dtable, at, nd_load(nd_as_const(dtable), at) + nd_load(dx, t * dx.cols + i));
        }
    return ND_OK;
}

static double offset_weight(const nd_cross_entropy_params *p, const int32_t *targets, int offset)
{
    return targets[offset] < 0 ? 0.0 : offset == 0 ? 1.0 : (double)p->offset_weight[offset];
}

typedef struct row_loss {
    double nll, total, norm;
} row_loss;

/* One row: with p = softmax(z), H = -sum p log p,
 *   d nll_smooth / dz_i = p_i - (1-e)[i = target] - e/V   (each offset's, times its weight)
 *   d lse^2 / dz_i      = 2 lse p_i
 *   d (-H) / dz_i       = p_i (log p_i + H) */
static row_loss cross_entropy_row(nd_cview z, nd_view dz, int64_t row, const int32_t *targets,
                                  const nd_cross_entropy_params *p, double scale)
{
    const int64_t vocab = z.cols;
    double largest = -INFINITY, sum = 0.0, mean = 0.0, entropy = 0.0, squares = 0.0;
    for (int64_t i = 0; i < vocab; i++)
        largest = fmax(largest, nd_load(z, row + i));
    for (int64_t i = 0; i < vocab; i++)
        sum += exp(nd_load(z, row + i) - largest);
    /* cppcheck-suppress invalidFunctionArg ; a row has logits, so sum > 0 */
    const double lse = largest + log(sum);
    for (int64_t i = 0; i < vocab; i++) {
        const double log_p = nd_load(z, row + i) - lse;
        entropy -= exp(log_p) * log_p;
        mean += log_p / (double)vocab;
        const double error = exp(log_p) - (i == targets[0] ? 1.0 : 0.0);
        squares += error * error;
    }
    const double smooth = p->label_smoothing;
    double weights = 0.0;
    row_loss out = {.nll = lse - nd_load(z, row + targets[0]),
                    .total = p->z_loss_weight * lse * lse - p->entropy_weight * entropy,
                    .norm = sqrt(squares)};
    for (int j = 0; j < nd_cross_entropy_offsets(p); j++) {
        const double weight = offset_weight(p, targets, j);
        if (weight == 0.0)
            continue;
        const double offset_nll = lse - nd_load(z, row + targets[j]);
        out.total += weight * ((1.0 - smooth) * offset_nll - smooth * mean);
        weights += weight;
    }
    for (int64_t i = 0; p->gradient_scale != 0.0f && i < vocab; i++) {
        const double log_p = nd_load(z, row + i) - lse;
        const double prob = exp(log_p);
        double d = weights * (prob - smooth / (double)vocab);
        for (int j = 0; j < nd_cross_entropy_offsets(p); j++)
            if (i == targets[j])
                d -= (1.0 - smooth) * offset_weight(p, targets, j);
        d += p->z_loss_weight * 2.0 * lse * prob;
        d += p->entropy_weight * prob * (log_p + entropy);
        nd_store(dz, row + i, scale * d);
    }
    return out;
}

nd_status nd_cross_entropy_check(nd_view nll, nd_view total, nd_view logits, nd_view out,
                                 nd_cview targets, const nd_cross_entropy_params *p)
{
    const int offsets = nd_cross_entropy_offsets(p);
    ND_REQUIRE_FLOATS(logits.dtype, nll.dtype, total.dtype, out.dtype);
    ND_REQUIRE(nll.rows == logits.rows && total.rows == logits.rows);
    ND_REQUIRE(offsets <= ND_OFFSETS_MAX);
    ND_REQUIRE(!p->norm.data || (p->norm.rows == logits.rows && nd_is_float(p->norm.dtype)));
    ND_REQUIRE(!p->weight.data || (p->weight.rows == logits.rows && nd_is_float(p->weight.dtype)));
    ND_REQUIRE(nd_same_shape(nd_as_const(out), nd_as_const(logits)));
    return nd_check_tokens(targets, logits.rows * offsets, logits.cols, -1);
}

static nd_status cross_entropy_reference(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                         nd_cview targets, const nd_cross_entropy_params *p)
{
    (void)b;
    const int offsets = nd_cross_entropy_offsets(p);
    const nd_view dlogits = p->gradient.data ? p->gradient : logits;
    ND_TRY(nd_cross_entropy_check(nll, total, logits, dlogits, targets, p));
    const int32_t *ids = targets.data;
    for (int64_t t = 0; t < logits.rows; t++) {
        row_loss row = {0.0, 0.0, 0.0};
        const double weight = p->weight.data ? nd_load(p->weight, t) : 1.0;
        if (ids[t * offsets] >= 0)
            row = cross_entropy_row(nd_as_const(logits), dlogits, t * logits.cols,
                                    ids + t * offsets, p, (double)p->gradient_scale * weight);
        else
            for (int64_t i = 0; p->gradient_scale != 0.0f && i < logits.cols; i++)
                nd_store(dlogits, t * logits.cols + i, 0.0);
        nd_store(nll, t, row.nll);
        nd_store(total, t, row.total);
        if (p->norm.data)
            nd_store(p->norm, t, row.norm);
    }
    return ND_OK;
}

void nd_reference_fill_loss(nd_backend_ops *ops)
{
    ops->embedding = embedding_reference;
    ops->embedding_backward = embedding_backward_reference;
    ops->cross_entropy = cross_entropy_reference;
}
