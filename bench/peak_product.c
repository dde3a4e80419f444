#include "peak_product.h"

#include "timing.h"

#include <string.h>

bool peak_create(peak_product *p, int64_t m, int64_t n, int64_t k, nd_dtype in, nd_dtype out)
{
    const nd_onednn_matrix a = {m, k, k, 1, in}, c = {m, n, n, 1, out};
    const nd_onednn_matrix b = {.rows = k, .cols = n, .dtype = in};
    *p = (peak_product){.m = m, .n = n, .k = k};
    bool made = nd_onednn_create(1, &p->onednn) == ND_OK &&
                nd_onednn_product(p->onednn, &a, &b, &c, false, &p->call) == ND_OK;
    for (int i = 0; made && i < ND_ONEDNN_OPERANDS; i++) {
        const size_t bytes = (nd_onednn_bytes(p->call, i) + 64) / 64 * 64;
        p->operands[i] = aligned_alloc(64, bytes);
        made = p->operands[i] != NULL;
        if (made)
            memset(p->operands[i], i == ND_ONEDNN_B, bytes);
    }
    if (!made) {
        nd_error_clear();
        peak_destroy(p);
    }
    return made;
}

void peak_destroy(peak_product *p)
{
    for (int i = 0; i < ND_ONEDNN_OPERANDS; i++)
        free(p->operands[i]);
    nd_onednn_call_destroy(p->call);
    nd_onednn_destroy(p->onednn);
    *p = (peak_product){0};
}

double peak_measure(const peak_product *p)
{
    const double start = nd_seconds();
    if (!nd_onednn_run(p->call, 0, (const void *const *)p->operands))
        return 0.0;
    return 2.0 * (double)p->m * (double)p->n * (double)p->k / (nd_seconds() - start);
}
