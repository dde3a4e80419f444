/* Compares a library's attention with the project's kernels on random example values, once per plan
 * and before anything depends on it. The values are the same in every run and on every rank, so
 * that all reach the same decision. */
#include "attention.cuh"

extern "C" {
#include "core/base/rng.h"
}

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

namespace
{

enum { Q, K, V, DOUT, O, LSE, DQ, DK, DV, OWN_O, OWN_LSE, OWN_DQ, OWN_DK, OWN_DV, VIEWS };
enum { DRAWN = 65521 };

/* Relative differences in the Euclidean norm. Rounding differs by about 4e-3, in lse by 1e-6; a
 * kernel that computes something else differs by 1e-1 and more. */
const struct {
    int library, own;
    const char *name;
    double tolerance;
} compared[] = {{O, OWN_O, "o", 3e-2},
                {LSE, OWN_LSE, "lse", 1e-3},
                {DQ, OWN_DQ, "dq", 3e-2},
                {DK, OWN_DK, "dk", 3e-2},
                {DV, OWN_DV, "dv", 3e-2}};

struct example {
    nd_view v[VIEWS];
    unsigned char *memory;
    size_t bytes;
    uint16_t *host; /* room for two of the largest */
    size_t largest;
};

size_t aligned(nd_cview v)
{
    return (nd_view_bytes(v) + 255) / 256 * 256;
}

/* ND_ENOMEM, with no error recorded, when there is not enough memory to compare. */
nd_status allocate_example(nd_backend *b, const nd_attention_shape *s, example *e)
{
    const int64_t rows = s->sequences * s->key_len;
    const int64_t width = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const int64_t cols[VIEWS] = {width, kv, kv,    width,    width, s->heads, width,
                                 kv,    kv, width, s->heads, width, kv,       kv};
    for (int i = 0; i < VIEWS; i++) {
        e->v[i] = nd_view_of(NULL, i == LSE || i == OWN_LSE ? ND_F32 : ND_BF16, rows, cols[i]);
        const size_t bytes = aligned(nd_as_const(e->v[i]));
        e->bytes += bytes;
        e->largest = bytes > e->largest ? bytes : e->largest;
    }
    void *memory = NULL;
    e->host = static_cast<uint16_t *>(malloc(2 * e->largest));
    if (!e->host || b->ops.allocate(b, e->bytes, &memory) != ND_OK) {
        nd_error_clear();
        return ND_ENOMEM;
    }
    e->memory = static_cast<unsigned char *>(memory);
    unsigned char *at = e->memory;
    for (int i = 0; i < VIEWS; i++) {
        e->v[i].data = at;
        at += aligned(nd_as_const(e->v[i]));
    }
    return ND_OK;
}

/* Between -2 and 2, so that scores are of order one. */
nd_status draw(nd_backend *b, example *e)
{
    for (int i = Q; i <= DOUT; i++) {
        const int64_t count = nd_view_count(nd_as_const(e->v[i]));
        for (int64_t j = 0; j < count; j++)
            e->host[j] = j < DRAWN
                             ? nd_bf16_from_float(
                                   4.0f * (float)nd_rng_uniform((uint64_t)i, (uint64_t)j) - 2.0f)
                             : e->host[j - DRAWN];
        ND_TRY(b->ops.upload(b, e->v[i].data, e->host, (size_t)count * sizeof *e->host));
    }
    return ND_OK;
}

double element(nd_cview v, const void *host, int64_t i)
{
    return v.dtype == ND_BF16 ? nd_bf16_to_float(static_cast<const uint16_t *>(host)[i])
                              : static_cast<const float *>(host)[i];
}

nd_status compare(nd_backend *b, example *e, int first, int last, char *reason, size_t size)
{
    unsigned char *theirs = reinterpret_cast<unsigned char *>(e->host), *own = theirs + e->largest;
    for (int i = first; i <= last; i++) {
        const nd_cview x = nd_as_const(e->v[compared[i].library]),
                       y = nd_as_const(e->v[compared[i].own]);
        double difference = 0.0, norm = 0.0;
        ND_TRY(b->ops.download(b, theirs, x.data, nd_view_bytes(x)));
        ND_TRY(b->ops.download(b, own, y.data, nd_view_bytes(y)));
        for (int64_t j = 0; j < nd_view_count(x); j++) {
            const double d = element(x, theirs, j) - element(y, own, j);
            difference += d * d;
            norm += element(y, own, j) * element(y, own, j);
        }
        const double relative = sqrt(difference / norm);
        if (!(relative <= compared[i].tolerance)) {
            snprintf(reason, size, "its %s is off by %.2g of the norm", compared[i].name, relative);
            return ND_OK;
        }
    }
    return ND_OK;
}

nd_status run_and_compare(nd_backend *b, const nd_attention_shape *s, bool backward,
                          const nd_attention_library_pass *library, example *e, char *reason,
                          size_t size)
{
    nd_view *v = e->v;
    const nd_cview q = nd_as_const(v[Q]), k = nd_as_const(v[K]), values = nd_as_const(v[V]);
    ND_TRY(draw(b, e));
    ND_TRY(nd_cuda_attention_builtin(b, v[OWN_O], v[OWN_LSE], q, k, values, s));
    if (!backward) {
        ND_TRY(library->forward(library->context, v[O], v[LSE], q, k, values));
        return compare(b, e, 0, 1, reason, size);
    }
    const nd_cview dout = nd_as_const(v[DOUT]), o = nd_as_const(v[OWN_O]),
                   lse = nd_as_const(v[OWN_LSE]);
    nd_attention_gradients g = {v[OWN_DQ], v[OWN_DK], v[OWN_DV], dout, o, lse, q, k, values};
    ND_TRY(nd_cuda_attention_backward_builtin(b, &g, s));
    g.dq = v[DQ];
    g.dk = v[DK];
    g.dv = v[DV];
    ND_TRY(library->backward(library->context, &g));
    return compare(b, e, 2, 4, reason, size);
}

} // namespace

nd_status nd_cuda_attention_check(nd_backend *b, const nd_attention_shape *s, bool backward,
                                  const nd_attention_library_pass *library, bool *looked,
                                  char *reason, size_t size)
{
    example e = {};
    reason[0] = '\0';
    nd_status status = allocate_example(b, s, &e);
    *looked = status == ND_OK;
    if (status == ND_OK)
        status = run_and_compare(b, s, backward, library, &e, reason, size);
    else if (status == ND_ENOMEM)
        status = ND_OK;
    if (e.memory)
        b->ops.release(b, e.memory, e.bytes);
    free(e.host);
    return status;
}
