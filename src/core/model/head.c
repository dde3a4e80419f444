#include "core/model/head.h"

nd_status nd_head_run(nd_backend *b, nd_view logits, const nd_head_pass *p)
{
    nd_cross_entropy_params params = p->loss;
    const nd_cview head = nd_cview_rows(p->head, 0, logits.cols);
    nd_view dhead = p->dhead;
    if (!p->dx.data) {
        params.gradient_scale = 0.0f;
    } else if (dhead.rows > logits.cols) {
        const nd_view padding = nd_view_rows(dhead, logits.cols, dhead.rows - logits.cols);
        if (p->dhead_beta == 0.0f)
            ND_TRY(b->ops.zero(b, padding.data, nd_view_bytes(nd_as_const(padding))));
        dhead = nd_view_rows(dhead, 0, logits.cols);
    }
    for (int64_t first = 0; first < p->x.rows; first += logits.rows) {
        const int64_t left = p->x.rows - first;
        const int64_t rows = left < logits.rows ? left : logits.rows;
        const nd_view chunk =
            p->kept.data ? nd_view_rows(p->kept, first, rows) : nd_view_rows(logits, 0, rows);
        const nd_cview x = nd_cview_rows(p->x, first, rows);
        if (p->dlogits.data)
            params.gradient = nd_view_rows(p->dlogits, 0, rows);
        const nd_cview dlogits = nd_as_const(p->dlogits.data ? params.gradient : chunk);
        if (p->norm.data)
            params.norm = nd_view_rows(p->norm, first, rows);
        if (p->weight.data)
            params.weight = nd_cview_rows(p->weight, first, rows);
        if (!p->computed)
            ND_TRY(b->ops.gemm(b, chunk, x, false, head, true, 1.0f, 0.0f));
        ND_TRY(b->ops.cross_entropy(b, nd_view_rows(p->nll, first, rows),
                                    nd_view_rows(p->total, first, rows), chunk,
                                    nd_cview_rows(p->targets, first, rows), &params));
        if (!p->dx.data)
            continue;
        ND_TRY(b->ops.gemm(b, nd_view_rows(p->dx, first, rows), dlogits, false, head, false, 1.0f,
                           p->dx_beta));
        ND_TRY(b->ops.gemm(b, dhead, dlogits, true, x, false, 1.0f,
                           first == 0 ? p->dhead_beta : 1.0f));
    }
    return ND_OK;
}
