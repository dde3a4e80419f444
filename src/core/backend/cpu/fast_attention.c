/* Fast layer: attention forward, in blocks of queries, and one query at a time for decoding. */
#include "core/backend/cpu/fast_attention.h"
#include "core/backend/cpu/op_families.h"

#include <math.h>
#include <string.h>

enum { CHUNK_ROWS = 1024 /* rows that share one packing of the keys */, FEW_QUERIES = 4 };

typedef struct forward_call {
    nd_attention_plan plan;
    nd_view o, lse;
    nd_cview q, k, v;
    int64_t kept;                   /* rows of q without those at -1 */
    int64_t chunk, chunks;          /* blocks of a work item; items of a head */
    const nd_matmul *scores, *sums; /* q kᵀ of one tile; out += p v */
} forward_call;

/* A thread's working memory. */
typedef struct forward_space {
    char *keys, *values; /* packed tiles */
    char *tile;          /* one tile, or one block of queries, dense */
    char *probabilities; /* [tiles][rows][ND_KEY_TILE] in the products' dtype */
    float *scores;       /* the same in f32 */
    float *out;          /* [rows, d] */
} forward_space;

static size_t layout_space(const forward_call *c, char *memory, forward_space *space)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim, score_count = p->tiles * p->rows * ND_KEY_TILE;
    const size_t sizes[] = {
        (size_t)p->tiles * nd_matmul_packed_bytes(c->scores),
        (size_t)p->tiles * nd_matmul_packed_bytes(c->sums),
        nd_fast_bytes(nd_fast_max(ND_KEY_TILE, p->rows) * d, p->element),
        p->dtype == ND_F32 ? 0 : nd_fast_bytes(score_count, p->element),
        nd_fast_bytes(score_count, sizeof(float)),
        nd_fast_bytes(p->rows * d, sizeof(float)),
    };
    size_t offsets[6], total = 0;
    for (int i = 0; i < 6; i++) {
        offsets[i] = total;
        total += (sizes[i] + 63) / 64 * 64;
    }
    if (memory)
        *space = (forward_space){memory + offsets[0],
                                 memory + offsets[1],
                                 memory + offsets[2],
                                 p->dtype == ND_F32 ? memory + offsets[4] : memory + offsets[3],
                                 (float *)(memory + offsets[4]),
                                 (float *)(memory + offsets[5])};
    return total;
}

/* exp(scores - max) over the visible keys of each row, and the normalizer. */
static void softmax_block(const nd_fast_kernels *k, const forward_call *c, forward_space s,
                          nd_attention_rows rows, int64_t kv_head, int64_t tiles,
                          float *inverse_sum)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t stride = p->rows * ND_KEY_TILE;
    for (int64_t row = 0; row < p->rows; row++) {
        const bool padding = nd_attention_padding(p, row, rows.count);
        const int64_t index = rows.first + (padding ? 0 : row % p->queries);
        const int64_t visible = padding ? 1 : nd_attention_visible(&p->shape, index);
        const int64_t at = row * ND_KEY_TILE, total = tiles * ND_KEY_TILE;
        float *scores = s.scores + at, shift;
        const double sum = p->dtype == ND_BF16
                               ? k->softmax_tiles_bf16((uint16_t *)s.probabilities + at, scores,
                                                       stride, visible, total, p->scale, &shift)
                               : k->softmax_tiles(scores, stride, visible, total, p->scale, &shift);
        inverse_sum[row] = (float)(1.0 / sum);
        if (padding)
            continue;
        const int64_t head = kv_head * p->group + row / p->queries;
        ((float *)c->lse.data)[index * p->shape.heads + head] = (float)((double)shift + log(sum));
    }
}

/* The number of key tiles visible to the last of these rows. */
static int64_t visible_tiles(const nd_attention_plan *p, nd_attention_rows rows)
{
    return nd_fast_ceil(nd_attention_visible(&p->shape, rows.first + rows.count - 1), ND_KEY_TILE);
}

static bool attend_block(const nd_cpu_fast *fast, const forward_call *c, forward_space s,
                         nd_attention_rows rows, int64_t kv_head, int thread)
{
    const nd_fast_kernels *k = fast->kernels;
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim, stride = p->rows * ND_KEY_TILE;
    const int64_t tiles = visible_tiles(p, rows);
    const size_t key_bytes = nd_matmul_packed_bytes(c->scores);
    const size_t value_bytes = nd_matmul_packed_bytes(c->sums);
    float inverse_sum[p->rows];
    bool ok = true;
    nd_attention_gather_block(k, p, c->q, rows, kv_head, s.tile);
    for (int64_t j = 0; j < tiles; j++)
        ok = ok && nd_matmul_run(c->scores, thread, s.tile, s.keys + (size_t)j * key_bytes,
                                 s.scores + j * stride);
    softmax_block(k, c, s, rows, kv_head, tiles, inverse_sum);
    memset(s.out, 0, (size_t)(p->rows * d) * sizeof *s.out);
    for (int64_t j = 0; j < tiles; j++)
        ok = ok &&
             nd_matmul_run(c->sums, thread, s.probabilities + (size_t)(j * stride) * p->element,
                           s.values + (size_t)j * value_bytes, s.out);
    for (int64_t row = 0; row < p->rows; row++)
        k->scale(s.out + row * d, s.out + row * d, inverse_sum[row], d);
    nd_attention_scatter_block(k, p, c->o, rows, kv_head, s.out);
    return ok;
}

/* One item: a run of blocks of one key/value head. */
static bool attend_item(const nd_cpu_fast *fast, const forward_call *c, int64_t item, int thread)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t heads = p->shape.sequences * p->shape.kv_heads;
    const int64_t head = item % heads, chunk = c->chunks - 1 - item / heads; /* long ones first */
    const int64_t sequence = head / p->shape.kv_heads, kv_head = head % p->shape.kv_heads;
    const nd_attention_rows rows = nd_attention_sequence(&p->shape, c->kept, sequence);
    const int64_t first = chunk * c->chunk;
    const int64_t last = nd_fast_min(first + c->chunk, nd_fast_ceil(rows.count, p->queries));
    if (first >= last)
        return true;
    const int64_t tiles = visible_tiles(p, nd_attention_block(p, rows, last - 1));
    forward_space s;
    layout_space(c, fast->private[thread].memory, &s);
    bool ok = true;
    for (int64_t j = 0; j < tiles; j++) {
        int64_t tokens[ND_KEY_TILE];
        for (int64_t i = 0; i < ND_KEY_TILE; i++) {
            const int64_t key = j * ND_KEY_TILE + i;
            tokens[i] = key < p->shape.key_len ? sequence * p->shape.key_len + key : -1;
        }
        nd_attention_gather_keys(fast->kernels, p, c->k, kv_head, tokens, s.tile);
        ok = ok && nd_matmul_pack(c->scores, thread, s.tile,
                                  s.keys + (size_t)j * nd_matmul_packed_bytes(c->scores));
        nd_attention_gather_keys(fast->kernels, p, c->v, kv_head, tokens, s.tile);
        ok = ok && nd_matmul_pack(c->sums, thread, s.tile,
                                  s.values + (size_t)j * nd_matmul_packed_bytes(c->sums));
    }
    for (int64_t block = first; ok && block < last; block++)
        ok = attend_block(fast, c, s, nd_attention_block(p, rows, block), kv_head, thread);
    return ok;
}

static nd_status find_products(nd_cpu_fast *fast, forward_call *c)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim;
    nd_matmul_shape shape = {.m = p->rows, .n = ND_KEY_TILE, .k = d, .packed_b = 1};
    shape.a = shape.b = p->dtype;
    shape.c = ND_F32;
    shape.lda = shape.ldb = d;
    shape.ldc = ND_KEY_TILE;
    shape.transpose_b = 1;
    ND_TRY(nd_matmul_find(fast->matmuls, &shape, &c->scores));
    shape.n = shape.ldb = shape.ldc = d;
    shape.k = shape.lda = ND_KEY_TILE;
    shape.transpose_b = 0;
    shape.accumulate = 1;
    return nd_matmul_find(fast->matmuls, &shape, &c->sums);
}

static nd_status attention_blocked(nd_cpu_fast *fast, forward_call *c)
{
    const nd_attention_plan *p = &c->plan;
    ND_TRY(find_products(fast, c));
    c->chunk = nd_fast_max(1, CHUNK_ROWS / p->rows);
    c->chunks = nd_fast_ceil(p->blocks, c->chunk);
    ND_TRY(nd_fast_grow_private(fast, layout_space(c, NULL, NULL)));
    const int64_t items = p->shape.sequences * p->shape.kv_heads * c->chunks;
    bool ok = true;
#pragma omp parallel for num_threads(fast->threads) schedule(dynamic, 1) reduction(&& : ok)
    for (int64_t item = 0; item < items; item++)
        ok = attend_item(fast, c, item, nd_fast_thread()) && ok;
    return ok ? ND_OK : ND_FAIL(ND_EINTERNAL, "oneDNN refused a product of attention");
}

/* One query of one head, directly from the cache: for few queries packing does not pay. */
static void attend_query(const nd_fast_kernels *k, const forward_call *c, int64_t index,
                         float *space)
{
    const nd_attention_shape *s = &c->plan.shape;
    const int64_t d = s->head_dim, head = index % s->heads, row_of_q = index / s->heads;
    const int64_t sequence = nd_attention_token(s, row_of_q) / s->query_len;
    const int64_t kv_head = head / c->plan.group, visible = nd_attention_visible(s, row_of_q);
    float *scores = space, *row = space + c->plan.tiles * ND_KEY_TILE, *sum_of_values = row + d,
          *query = row + 2 * d;
    const float *loaded = nd_fast_load(k, c->q, index * d, d, query);
    for (int64_t j = 0; j < visible; j++) {
        const int64_t at = ((sequence * s->key_len + j) * s->kv_heads + kv_head) * d;
        scores[j] = k->dot_short(loaded, nd_fast_load(k, c->k, at, d, row), d);
    }
    float shift;
    const double sum =
        k->softmax_tiles(scores, ND_KEY_TILE, visible, visible, c->plan.scale, &shift);
    memset(sum_of_values, 0, (size_t)d * sizeof *sum_of_values);
    for (int64_t j = 0; j < visible; j++) {
        const int64_t at = ((sequence * s->key_len + j) * s->kv_heads + kv_head) * d;
        k->axpby(sum_of_values, scores[j], nd_fast_load(k, c->v, at, d, row), 1.0f, d);
    }
    ((float *)c->lse.data)[index] = (float)((double)shift + log(sum));
    float *target = nd_fast_target(c->o, index * d, sum_of_values);
    k->scale(target, sum_of_values, (float)(1.0 / sum), d);
    nd_fast_store(k, c->o, index * d, d, target);
}

static nd_status attention_rows(nd_cpu_fast *fast, const forward_call *c)
{
    const nd_attention_shape *s = &c->plan.shape;
    const int64_t scores = c->plan.tiles * ND_KEY_TILE;
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(scores + 3 * s->head_dim, sizeof(float))));
#pragma omp parallel for num_threads(fast->threads) schedule(dynamic, 1)
    for (int64_t index = 0; index < c->kept * s->heads; index++)
        attend_query(fast->kernels, c, index, fast->private[nd_fast_thread()].memory);
    return ND_OK;
}

static nd_status attention_fast(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                nd_cview v, const nd_attention_shape *shape)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    ND_TRY(nd_attention_check(q, k, v, shape));
    ND_REQUIRE(nd_same_shape(nd_as_const(o), q) && lse.rows == q.rows && lse.cols == shape->heads);
    if (!nd_fast_covers(o.dtype) || !nd_fast_covers(q.dtype) || !nd_fast_covers(k.dtype) ||
        !nd_fast_covers(v.dtype) || lse.dtype != ND_F32)
        return fast->reference.attention(b, o, lse, q, k, v, shape);
    if (nd_view_count(q) == 0)
        return ND_OK;
    const bool all_bf16 = q.dtype == ND_BF16 && k.dtype == ND_BF16 && v.dtype == ND_BF16;
    forward_call call = {.plan = nd_attention_plan_of(fast, shape, all_bf16),
                         .o = o,
                         .lse = lse,
                         .q = q,
                         .k = k,
                         .v = v,
                         .kept = nd_attention_kept(shape, q.rows)};
    ND_TRY(shape->query_len <= FEW_QUERIES ? attention_rows(fast, &call)
                                           : attention_blocked(fast, &call));
    nd_attention_zero_rows(o, call.kept);
    nd_attention_zero_rows(lse, call.kept);
    return ND_OK;
}

void nd_fast_fill_attention(nd_backend_ops *ops)
{
    ops->attention = attention_fast;
    ops->attention_backward = nd_attention_backward_blocked;
}
