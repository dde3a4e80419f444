#include "core/backend/cpu/fast_matmul.h"

#include "core/backend/cpu/onednn.h"
#include "core/backend/cpu/panel_matmul.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

struct nd_matmul {
    nd_matmul *next; /* in the cache */
    nd_matmul_shape shape;
    nd_matmul_cache *cache;
    const nd_panel_kind *panels; /* NULL: oneDNN computes it, by the two calls below */
    nd_onednn_call *product;
    nd_onednn_call *packing; /* NULL unless packed_b */
};

struct nd_matmul_cache {
    nd_onednn *onednn;
    int threads;
    const nd_panel_kind *bf16; /* panels of such products, or NULL */
    nd_fast_arena *scratches;  /* [threads] */
    nd_matmul *list;           /* list, newest first: models have few shapes */
};

static nd_onednn_matrix stored(int64_t rows, int64_t cols, nd_dtype dtype, int64_t stride,
                               bool transposed)
{
    return (nd_onednn_matrix){rows, cols, transposed ? 1 : stride, transposed ? stride : 1, dtype};
}

static void destroy_matmul(nd_matmul *matmul)
{
    nd_onednn_call_destroy(matmul->product);
    nd_onednn_call_destroy(matmul->packing);
    free(matmul);
}

static nd_status grow_scratches(nd_matmul_cache *cache, size_t bytes)
{
    for (int i = 0; i < cache->threads; i++)
        ND_TRY(nd_fast_grow(&cache->scratches[i], bytes));
    return ND_OK;
}

static nd_status fill_matmul(nd_matmul *created)
{
    const nd_matmul_shape *s = &created->shape;
    nd_matmul_cache *cache = created->cache;
    if (s->a == ND_BF16 && nd_panel_matmul_covers(cache->bf16, s)) {
        created->panels = cache->bf16;
        return grow_scratches(cache, nd_panel_matmul_scratch_bytes(cache->bf16));
    }
    const nd_onednn_matrix a = stored(s->m, s->k, s->a, s->lda, s->transpose_a);
    const nd_onednn_matrix b = stored(s->k, s->n, s->b, s->ldb, s->transpose_b);
    const nd_onednn_matrix c = stored(s->m, s->n, s->c, s->ldc, false);
    const nd_onednn_matrix any = {.rows = s->k, .cols = s->n, .dtype = s->b};
    ND_TRY(nd_onednn_product(cache->onednn, &a, s->packed_b ? &any : &b, &c, s->accumulate,
                             &created->product));
    if (s->packed_b) {
        /* Copies do not sum, so any number of threads gives the same bits. */
        omp_set_num_threads(cache->threads);
        const nd_status status =
            nd_onednn_packing(cache->onednn, &b, created->product, &created->packing);
        omp_set_num_threads(1);
        ND_TRY(status);
    }
    return grow_scratches(cache, nd_onednn_bytes(created->product, ND_ONEDNN_SCRATCH) + 64);
}

/* oneDNN plans a primitive for OpenMP's number of threads at its creation. Planned for one thread,
 * it sums in the same order everywhere. */
static nd_status make_matmul(nd_matmul_cache *cache, const nd_matmul_shape *shape,
                             nd_matmul **matmul)
{
    nd_matmul *created = calloc(1, sizeof *created);
    ND_FAIL_IF(!created, ND_ENOMEM, "no memory for a product");
    *created = (nd_matmul){.next = cache->list, .shape = *shape, .cache = cache};
    const int max_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const nd_status status = fill_matmul(created);
    omp_set_num_threads(max_threads);
    if (status == ND_OK)
        cache->list = created;
    ND_RETURN_MADE(status, created, destroy_matmul, matmul);
}

nd_status nd_matmul_find(nd_matmul_cache *cache, const nd_matmul_shape *shape,
                         const nd_matmul **found)
{
    nd_matmul *matmul = cache->list;
    while (matmul && memcmp(&matmul->shape, shape, sizeof *shape) != 0)
        matmul = matmul->next;
    if (!matmul)
        ND_TRY(make_matmul(cache, shape, &matmul));
    *found = matmul;
    return ND_OK;
}

/* Outside parallel regions some oneDNN products use OpenMP's threads at run time, whatever they
 * were planned for. */
static bool run_on(int threads, const nd_onednn_call *call, int thread,
                   const void *const operands[ND_ONEDNN_OPERANDS])
{
    const int max_threads = omp_get_max_threads();
    omp_set_num_threads(threads);
    const bool ran = nd_onednn_run(call, thread, operands);
    omp_set_num_threads(max_threads);
    return ran;
}

bool nd_matmul_run(const nd_matmul *matmul, int thread, const void *a, const void *b, void *c)
{
    void *scratch = matmul->cache->scratches[thread].memory;
    const void *const operands[ND_ONEDNN_OPERANDS] = {a, b, c, scratch};
    if (matmul->panels) {
        nd_panel_matmul_run(matmul->panels, &matmul->shape, a, b, c, scratch);
        return true;
    }
    return run_on(1, matmul->product, thread, operands);
}

size_t nd_matmul_packed_bytes(const nd_matmul *matmul)
{
    return matmul->panels ? nd_panel_matmul_packed_bytes(matmul->panels, &matmul->shape)
                          : nd_onednn_bytes(matmul->product, ND_ONEDNN_B);
}

bool nd_matmul_pack(const nd_matmul *matmul, int thread, const void *b, void *packed)
{
    const nd_panel_kind *panels = matmul->panels;
    const nd_matmul_shape *shape = &matmul->shape;
    if (!panels)
        return run_on(1, matmul->packing, thread, (const void *[ND_ONEDNN_OPERANDS]){b, packed});
    for (int64_t i = 0; i < nd_panel_matmul_panels(panels, shape); i++)
        nd_panel_matmul_pack(panels, shape, b, packed, i);
    return true;
}

bool nd_matmul_pack_by_all(const nd_matmul *matmul, int threads, const void *b, void *packed)
{
    const nd_panel_kind *panels = matmul->panels;
    const nd_matmul_shape *shape = &matmul->shape;
    if (!panels)
        return run_on(threads, matmul->packing, 0, (const void *[ND_ONEDNN_OPERANDS]){b, packed});
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < nd_panel_matmul_panels(panels, shape); i++)
        nd_panel_matmul_pack(panels, shape, b, packed, i);
    return true;
}

bool nd_matmul_same_packing(const nd_matmul *x, const nd_matmul *y)
{
    if (x->panels || y->panels)
        return x->panels == y->panels && x->shape.n == y->shape.n && x->shape.k == y->shape.k;
    return nd_onednn_same_layout(x->product, y->product, ND_ONEDNN_B);
}

nd_status nd_matmul_cache_create(int threads, const nd_panel_kind *bf16, nd_matmul_cache **cache)
{
    nd_matmul_cache *created = calloc(1, sizeof *created);
    ND_FAIL_IF(!created, ND_ENOMEM, "no memory for the product cache");
    created->threads = threads;
    created->bf16 = bf16;
    created->scratches = calloc((size_t)threads, sizeof *created->scratches);
    nd_status status = ND_CHECK(created->scratches, ND_ENOMEM, "no memory for the product cache");
    ND_IF_OK(nd_onednn_create(threads, &created->onednn));
    ND_RETURN_MADE(status, created, nd_matmul_cache_destroy, cache);
}

void nd_matmul_cache_destroy(nd_matmul_cache *cache)
{
    if (!cache)
        return;
    for (nd_matmul *matmul = cache->list, *next; matmul; matmul = next) {
        next = matmul->next;
        destroy_matmul(matmul);
    }
    for (int i = 0; cache->scratches && i < cache->threads; i++)
        free(cache->scratches[i].memory);
    nd_onednn_destroy(cache->onednn);
    free(cache->scratches);
    free(cache);
}

size_t nd_matmul_cache_bytes(const nd_matmul_cache *cache)
{
    size_t bytes = 0;
    for (int i = 0; i < cache->threads; i++)
        bytes += cache->scratches[i].bytes;
    return bytes;
}
