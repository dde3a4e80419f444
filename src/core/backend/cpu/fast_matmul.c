#include "core/backend/cpu/fast_matmul.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

/* Memory objects carry the pointers of a call, so each thread has its own set. */
typedef struct thread_memories {
    dnnl_memory_t a, b, c, scratchpad, plain_b, packed_b;
} thread_memories;

struct nd_matmul {
    nd_matmul_shape shape;
    uint64_t hash;
    nd_matmul_cache *cache;
    dnnl_primitive_t product;
    dnnl_primitive_t packing; /* NULL unless packed_b */
    dnnl_memory_desc_t packed;
    size_t packed_bytes;
    thread_memories *memories; /* [threads] */
};

struct nd_matmul_cache {
    dnnl_engine_t engine;
    int threads;
    dnnl_stream_t *streams;   /* [threads] */
    nd_fast_arena *scratches; /* [threads] */
    nd_matmul **slots;        /* open addressing; capacity is a power of two */
    size_t capacity, count;
};

static nd_status dnnl_failed(dnnl_status_t status, const char *what)
{
    return ND_FAIL(status == dnnl_out_of_memory ? ND_ENOMEM : ND_EINTERNAL,
                   "oneDNN: %s failed with status %d", what, (int)status);
}

#define TRY_DNNL(call)                                                                             \
    do {                                                                                           \
        const dnnl_status_t dnnl_status_ = (call);                                                 \
        if (dnnl_status_ != dnnl_success)                                                          \
            return dnnl_failed(dnnl_status_, #call);                                               \
    } while (0)

static dnnl_data_type_t type_of(nd_dtype dtype)
{
    switch (dtype) {
    case ND_F32:
        return dnnl_f32;
    case ND_BF16:
        return dnnl_bf16;
    case ND_I32:
        return dnnl_s32;
    case ND_I8:
        return dnnl_s8;
    case ND_U8:
        return dnnl_u8;
    case ND_F64:
        break;
    }
    return dnnl_data_type_undef;
}

static dnnl_status_t describe(dnnl_memory_desc_t *desc, int64_t rows, int64_t cols, nd_dtype dtype,
                              int64_t stride, bool transposed)
{
    const dnnl_dims_t dims = {rows, cols};
    const dnnl_dims_t strides = {transposed ? 1 : stride, transposed ? stride : 1};
    return dnnl_memory_desc_init_by_strides(desc, 2, dims, type_of(dtype), strides);
}

/* Fills `primitive`; the caller owns and destroys `primitive_desc`, which may be NULL on failure. */
static dnnl_status_t make_product(dnnl_engine_t engine, const nd_matmul_shape *s,
                                  dnnl_primitive_desc_t *primitive_desc)
{
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_status_t status = describe(&a, s->m, s->k, s->a, s->lda, s->transpose_a);
    if (status == dnnl_success && s->packed_b)
        status = dnnl_memory_desc_init_by_tag(&b, 2, (const dnnl_dims_t){s->k, s->n}, type_of(s->b),
                                              dnnl_format_tag_any);
    else if (status == dnnl_success)
        status = describe(&b, s->k, s->n, s->b, s->ldb, s->transpose_b);
    if (status == dnnl_success)
        status = describe(&c, s->m, s->n, s->c, s->ldc, false);
    if (status == dnnl_success)
        status = dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && s->accumulate) {
        status = dnnl_post_ops_create(&post_ops);
        if (status == dnnl_success)
            status = dnnl_post_ops_append_sum(post_ops, 1.0f);
        if (status == dnnl_success)
            status = dnnl_primitive_attr_set_post_ops(attr, post_ops);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(primitive_desc, &desc, attr, engine, NULL);
    dnnl_post_ops_destroy(post_ops);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static const dnnl_memory_desc_t *md_of(dnnl_primitive_desc_t desc, dnnl_query_t what, int index)
{
    return dnnl_primitive_desc_query_md(desc, what, index);
}

static nd_status make_memories(nd_matmul *made, dnnl_primitive_desc_t desc,
                               const dnnl_memory_desc_t *plain_b)
{
    nd_matmul_cache *cache = made->cache;
    const dnnl_memory_desc_t *scratchpad = md_of(desc, dnnl_query_scratchpad_md, 0);
    const size_t bytes = dnnl_memory_desc_get_size(scratchpad);
    for (int i = 0; i < cache->threads; i++) {
        thread_memories *m = &made->memories[i];
        dnnl_engine_t engine = cache->engine;
        TRY_DNNL(
            dnnl_memory_create(&m->a, md_of(desc, dnnl_query_src_md, 0), engine, DNNL_MEMORY_NONE));
        TRY_DNNL(dnnl_memory_create(&m->b, md_of(desc, dnnl_query_weights_md, 0), engine,
                                    DNNL_MEMORY_NONE));
        TRY_DNNL(
            dnnl_memory_create(&m->c, md_of(desc, dnnl_query_dst_md, 0), engine, DNNL_MEMORY_NONE));
        TRY_DNNL(dnnl_memory_create(&m->scratchpad, scratchpad, engine, DNNL_MEMORY_NONE));
        if (plain_b) {
            TRY_DNNL(dnnl_memory_create(&m->plain_b, plain_b, engine, DNNL_MEMORY_NONE));
            TRY_DNNL(dnnl_memory_create(&m->packed_b, md_of(desc, dnnl_query_weights_md, 0), engine,
                                        DNNL_MEMORY_NONE));
        }
        ND_TRY(nd_fast_grow(&cache->scratches[i], bytes + 64));
    }
    return ND_OK;
}

static nd_status make_packing(nd_matmul *made, dnnl_primitive_desc_t desc,
                              dnnl_memory_desc_t *plain_b)
{
    const nd_matmul_shape *s = &made->shape;
    const dnnl_memory_desc_t *packed = md_of(desc, dnnl_query_weights_md, 0);
    dnnl_engine_t engine = made->cache->engine;
    made->packed = *packed;
    made->packed_bytes = dnnl_memory_desc_get_size(packed);
    TRY_DNNL(describe(plain_b, s->k, s->n, s->b, s->ldb, s->transpose_b));
    dnnl_primitive_desc_t reorder = NULL;
    omp_set_num_threads(made->cache->threads); /* copies may be shared: they sum nothing */
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&reorder, plain_b, engine, packed, engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&made->packing, reorder);
    omp_set_num_threads(1);
    dnnl_primitive_desc_destroy(reorder);
    TRY_DNNL(status);
    return ND_OK;
}

static void destroy_matmul(nd_matmul *matmul)
{
    if (!matmul)
        return;
    for (int i = 0; matmul->memories && i < matmul->cache->threads; i++) {
        thread_memories *m = &matmul->memories[i];
        dnnl_memory_destroy(m->a);
        dnnl_memory_destroy(m->b);
        dnnl_memory_destroy(m->c);
        dnnl_memory_destroy(m->scratchpad);
        dnnl_memory_destroy(m->plain_b);
        dnnl_memory_destroy(m->packed_b);
    }
    free(matmul->memories);
    dnnl_primitive_destroy(matmul->product);
    dnnl_primitive_destroy(matmul->packing);
    free(matmul);
}

static nd_status fill_matmul(nd_matmul *made)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_memory_desc_t plain_b;
    nd_status status = ND_OK;
    const dnnl_status_t made_desc = make_product(made->cache->engine, &made->shape, &desc);
    if (made_desc != dnnl_success) {
        const nd_matmul_shape *s = &made->shape;
        return ND_FAIL(ND_EINTERNAL, "oneDNN has no product [%lld, %lld, %lld] %s x %s -> %s (%d)",
                       (long long)s->m, (long long)s->n, (long long)s->k, nd_dtype_name(s->a),
                       nd_dtype_name(s->b), nd_dtype_name(s->c), (int)made_desc);
    }
    const dnnl_status_t created = dnnl_primitive_create(&made->product, desc);
    if (created != dnnl_success) {
        status = dnnl_failed(created, "dnnl_primitive_create");
        goto done;
    }
    if (made->shape.packed_b)
        ND_TRY_GOTO(make_packing(made, desc, &plain_b), done);
    ND_TRY_GOTO(make_memories(made, desc, made->shape.packed_b ? &plain_b : NULL), done);
done:
    dnnl_primitive_desc_destroy(desc);
    return status;
}

/* oneDNN plans for as many threads as OpenMP offers when a primitive is made. Planned for one, it
 * runs the same way wherever it is called, and its sums have one order. */
static nd_status make_matmul(nd_matmul_cache *cache, const nd_matmul_shape *shape, uint64_t hash,
                             nd_matmul **matmul)
{
    nd_matmul *made = calloc(1, sizeof *made);
    thread_memories *memories = calloc((size_t)cache->threads, sizeof *memories);
    if (!made || !memories) {
        free(made);
        free(memories);
        return ND_FAIL(ND_ENOMEM, "no memory for a product");
    }
    *made = (nd_matmul){.shape = *shape, .hash = hash, .cache = cache, .memories = memories};
    const int offered = omp_get_max_threads();
    omp_set_num_threads(1);
    const nd_status status = fill_matmul(made);
    omp_set_num_threads(offered);
    if (status != ND_OK) {
        destroy_matmul(made);
        return status;
    }
    *matmul = made;
    return ND_OK;
}

static uint64_t hash_of(const nd_matmul_shape *shape)
{
    uint64_t words[sizeof *shape / sizeof(uint64_t)];
    memcpy(words, shape, sizeof words);
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static nd_status grow_slots(nd_matmul_cache *cache)
{
    const size_t capacity = cache->capacity * 2;
    nd_matmul **slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return ND_FAIL(ND_ENOMEM, "no memory for %zu products", capacity);
    for (size_t i = 0; i < cache->capacity; i++) {
        if (!cache->slots[i])
            continue;
        size_t at = cache->slots[i]->hash & (capacity - 1);
        while (slots[at])
            at = (at + 1) & (capacity - 1);
        slots[at] = cache->slots[i];
    }
    free(cache->slots);
    cache->slots = slots;
    cache->capacity = capacity;
    return ND_OK;
}

nd_status nd_matmul_find(nd_matmul_cache *cache, const nd_matmul_shape *shape,
                         const nd_matmul **found)
{
    if (2 * cache->count >= cache->capacity)
        ND_TRY(grow_slots(cache));
    const uint64_t hash = hash_of(shape);
    size_t at = hash & (cache->capacity - 1);
    while (cache->slots[at]) {
        if (memcmp(&cache->slots[at]->shape, shape, sizeof *shape) == 0) {
            *found = cache->slots[at];
            return ND_OK;
        }
        at = (at + 1) & (cache->capacity - 1);
    }
    ND_TRY(make_matmul(cache, shape, hash, &cache->slots[at]));
    cache->count++;
    *found = cache->slots[at];
    return ND_OK;
}

static bool point(dnnl_memory_t memory, const void *data, dnnl_stream_t stream)
{
    void *handle;
    memcpy(&handle, &data, sizeof handle); /* oneDNN's memories do not know const */
    return dnnl_memory_set_data_handle_v2(memory, handle, stream) == dnnl_success;
}

/* Some of oneDNN's products take the threads that OpenMP offers when they run, whatever they were
 * planned for, unless a team of several is already at work. */
static bool execute_on(int threads, dnnl_primitive_t primitive, dnnl_stream_t stream, int count,
                       const dnnl_exec_arg_t *arguments)
{
    const int offered = omp_get_max_threads();
    omp_set_num_threads(threads);
    const dnnl_status_t status = dnnl_primitive_execute(primitive, stream, count, arguments);
    omp_set_num_threads(offered);
    return status == dnnl_success;
}

bool nd_matmul_run(const nd_matmul *matmul, int thread, const void *a, const void *b, void *c)
{
    nd_matmul_cache *cache = matmul->cache;
    const thread_memories *m = &matmul->memories[thread];
    dnnl_stream_t stream = cache->streams[thread];
    if (!point(m->a, a, stream) || !point(m->b, b, stream) || !point(m->c, c, stream) ||
        !point(m->scratchpad, cache->scratches[thread].memory, stream))
        return false;
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, m->a},
                                         {DNNL_ARG_WEIGHTS, m->b},
                                         {DNNL_ARG_DST, m->c},
                                         {DNNL_ARG_SCRATCHPAD, m->scratchpad}};
    return execute_on(1, matmul->product, stream, 4, arguments);
}

size_t nd_matmul_packed_bytes(const nd_matmul *matmul)
{
    return matmul->packed_bytes;
}

static bool pack_on(const nd_matmul *matmul, int threads, int thread, const void *b, void *packed)
{
    const thread_memories *m = &matmul->memories[thread];
    dnnl_stream_t stream = matmul->cache->streams[thread];
    if (!point(m->plain_b, b, stream) || !point(m->packed_b, packed, stream))
        return false;
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, m->plain_b}, {DNNL_ARG_TO, m->packed_b}};
    return execute_on(threads, matmul->packing, stream, 2, arguments);
}

bool nd_matmul_pack(const nd_matmul *matmul, int thread, const void *b, void *packed)
{
    return pack_on(matmul, 1, thread, b, packed);
}

bool nd_matmul_pack_by_all(const nd_matmul *matmul, const void *b, void *packed)
{
    return pack_on(matmul, matmul->cache->threads, 0, b, packed);
}

bool nd_matmul_same_packing(const nd_matmul *x, const nd_matmul *y)
{
    return dnnl_memory_desc_equal(&x->packed, &y->packed) != 0;
}

nd_status nd_matmul_cache_create(int threads, nd_matmul_cache **cache)
{
    nd_matmul_cache *made = calloc(1, sizeof *made);
    if (!made)
        return ND_FAIL(ND_ENOMEM, "no memory for the product cache");
    nd_status status = ND_OK;
    *made = (nd_matmul_cache){.threads = threads, .capacity = 64};
    made->streams = calloc((size_t)threads, sizeof *made->streams);
    made->scratches = calloc((size_t)threads, sizeof *made->scratches);
    made->slots = calloc(made->capacity, sizeof *made->slots);
    if (!made->streams || !made->scratches || !made->slots) {
        status = ND_FAIL(ND_ENOMEM, "no memory for the product cache");
        goto failed;
    }
    dnnl_status_t created = dnnl_engine_create(&made->engine, dnnl_cpu, 0);
    for (int i = 0; i < threads && created == dnnl_success; i++)
        created = dnnl_stream_create(&made->streams[i], made->engine, dnnl_stream_default_flags);
    if (created != dnnl_success) {
        status = dnnl_failed(created, "creating the CPU engine");
        goto failed;
    }
    *cache = made;
    return ND_OK;
failed:
    nd_matmul_cache_destroy(made);
    return status;
}

void nd_matmul_cache_destroy(nd_matmul_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; cache->slots && i < cache->capacity; i++)
        destroy_matmul(cache->slots[i]);
    for (int i = 0; i < cache->threads; i++) {
        if (cache->streams)
            dnnl_stream_destroy(cache->streams[i]);
        if (cache->scratches)
            free(cache->scratches[i].memory);
    }
    dnnl_engine_destroy(cache->engine);
    free(cache->streams);
    free(cache->scratches);
    free(cache->slots);
    free(cache);
}

size_t nd_matmul_cache_bytes(const nd_matmul_cache *cache)
{
    size_t bytes = cache->capacity * sizeof *cache->slots;
    for (int i = 0; i < cache->threads; i++)
        bytes += cache->scratches[i].bytes;
    return bytes;
}
