/* Fast layer: attention backward.
 *
 * One item is one key-value head of one sequence: blocks of queries iterate over the tiles of keys
 * they see, and dk, dv of the head accumulate in f32. Scores are computed transposed, one row per
 * key, so that they are directly left operands of dv += pᵀ dout and dk += dsᵀ q; only dq = ds k
 * reads them transposed.
 *
 * Keys are stored in slots. When only some tokens take part, long sequences sort their keys: first
 * those of kept tokens, then the others, whose tiles need dq only. In both lists a query sees a
 * prefix, so that the mask stays triangular. In short sequences two partial tiles would cost more
 * than the unneeded dk and dv. */
#include "core/backend/cpu/fast_attention.h"

#include <string.h>

enum {
    SORTED_KEYS = 1024, /* minimum number of keys for sorting */
    KEY_STEP = 32, /* of the last tile's keys, only whole steps that a query sees are computed */
    KEY_STEPS = ND_KEY_TILE / KEY_STEP
};

typedef struct backward_call {
    nd_attention_plan plan;
    nd_view dq, dk, dv;
    nd_cview dout, o, lse, q, k, v;
    bool sorted;                        /* keys of kept tokens come first */
    int64_t tiles;                      /* of key slots at most */
    int64_t key_step;                   /* KEY_STEP, or a whole tile */
    int64_t kept;                       /* rows of q without those at -1 */
    const nd_matmul *scores[KEY_STEPS]; /* [keys, rows] = k qᵀ, and v doutᵀ, of 1 ... steps */
    const nd_matmul *sums[KEY_STEPS];   /* [keys, d] += pᵀ dout, and dsᵀ q */
    const nd_matmul *query_sums;        /* [rows, d] += ds k, of a whole tile */
} backward_call;

enum {
    PART_KEYS, /* [tiles * ND_KEY_TILE, d], dense */
    PART_VALUES,
    PART_PACKED_KEYS, /* right operand of dq */
    PART_DK,          /* f32 [tiles * ND_KEY_TILE, d] */
    PART_DV,
    PART_QUERY, /* [rows, d], dense; then dout */
    PART_DOUT,
    PART_QUERY_COLUMNS, /* packed qᵀ and doutᵀ */
    PART_DOUT_COLUMNS,
    PART_QUERY_ROWS, /* packed q and dout */
    PART_DOUT_ROWS,
    PART_P, /* f32 [ND_KEY_TILE, rows] */
    PART_DS,
    PART_P_NARROW, /* the same in the products' dtype, when that is bf16 */
    PART_DS_NARROW,
    PART_DQ,  /* f32 [rows, d] */
    PART_LSE, /* f32 [rows] */
    PART_DELTA,
    PART_TOKENS,      /* int64 [slots] the token of a key slot, -1 for padding */
    PART_FIRST_QUERY, /* int64 [slots] the first query that sees the key */
    PARTS
};

typedef struct backward_space {
    char *part[PARTS];
} backward_space;

/* The sequence and head of an item. */
typedef struct backward_item {
    int64_t sequence, kv_head;
    nd_attention_rows rows; /* the sequence's rows of q */
    int64_t own_tiles;      /* tiles of keys that get dk and dv */
    int64_t tiles;
    const int64_t *tokens, *first_query; /* by key slot */
} backward_item;

static size_t layout_space(const backward_call *c, char *memory, backward_space *space)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim, keys = c->tiles * ND_KEY_TILE;
    const size_t narrow = p->dtype == ND_F32 ? 0 : nd_fast_bytes(ND_KEY_TILE * p->rows, p->element);
    const size_t sizes[PARTS] = {
        [PART_KEYS] = nd_fast_bytes(keys * d, p->element),
        [PART_VALUES] = nd_fast_bytes(keys * d, p->element),
        [PART_PACKED_KEYS] = (size_t)c->tiles * nd_matmul_packed_bytes(c->query_sums),
        [PART_DK] = nd_fast_bytes(keys * d, sizeof(float)),
        [PART_DV] = nd_fast_bytes(keys * d, sizeof(float)),
        [PART_QUERY] = nd_fast_bytes(p->rows * d, p->element),
        [PART_DOUT] = nd_fast_bytes(p->rows * d, p->element),
        [PART_QUERY_COLUMNS] = nd_matmul_packed_bytes(c->scores[KEY_STEPS - 1]),
        [PART_DOUT_COLUMNS] = nd_matmul_packed_bytes(c->scores[KEY_STEPS - 1]),
        [PART_QUERY_ROWS] = nd_matmul_packed_bytes(c->sums[KEY_STEPS - 1]),
        [PART_DOUT_ROWS] = nd_matmul_packed_bytes(c->sums[KEY_STEPS - 1]),
        [PART_P] = nd_fast_bytes(ND_KEY_TILE * p->rows, sizeof(float)),
        [PART_DS] = nd_fast_bytes(ND_KEY_TILE * p->rows, sizeof(float)),
        [PART_P_NARROW] = narrow,
        [PART_DS_NARROW] = narrow,
        [PART_DQ] = nd_fast_bytes(p->rows * d, sizeof(float)),
        [PART_LSE] = nd_fast_bytes(p->rows, sizeof(float)),
        [PART_DELTA] = nd_fast_bytes(p->rows, sizeof(float)),
        [PART_TOKENS] = nd_fast_bytes(keys, sizeof(int64_t)),
        [PART_FIRST_QUERY] = nd_fast_bytes(keys, sizeof(int64_t)),
    };
    size_t total = 0;
    for (int i = 0; i < PARTS; i++) {
        if (memory)
            space->part[i] = memory + total;
        total += (sizes[i] + 63) / 64 * 64;
    }
    if (memory && p->dtype == ND_F32) {
        space->part[PART_P_NARROW] = space->part[PART_P];
        space->part[PART_DS_NARROW] = space->part[PART_DS];
    }
    return total;
}

/* Assigns the sequence's keys to slots. */
static void assign_key_slots(const backward_call *c, backward_space s, backward_item *item)
{
    const nd_attention_shape *shape = &c->plan.shape;
    const int32_t *rows = shape->rows.data;
    const int64_t before = shape->key_len - shape->query_len; /* keys before the first query */
    const int64_t own = c->sorted ? item->rows.count : shape->key_len;
    const int64_t base = item->sequence * shape->key_len;
    int64_t *tokens = (int64_t *)s.part[PART_TOKENS],
            *first_query = (int64_t *)s.part[PART_FIRST_QUERY];
    item->own_tiles = nd_fast_ceil(own, ND_KEY_TILE);
    item->tiles = item->own_tiles + nd_fast_ceil(shape->key_len - own, ND_KEY_TILE);
    for (int64_t slot = 0; slot < item->tiles * ND_KEY_TILE; slot++) {
        tokens[slot] = -1;
        first_query[slot] = INT64_MAX;
    }
    int64_t slot = item->own_tiles * ND_KEY_TILE;
    for (int64_t j = 0, row = 0; j < shape->key_len; j++) {
        const bool takes_part =
            rows && row < item->rows.count && rows[item->rows.first + row] == base + j;
        const int64_t at = !c->sorted ? j : takes_part ? row : slot++;
        tokens[at] = base + j;
        first_query[at] = rows ? row : j - before;
        row += takes_part;
    }
    item->tokens = tokens;
    item->first_query = first_query;
}

/* Per row of the block: lse, and delta = dout · o. Padding rows have zero dout and so
 * add nothing. */
static void load_row_terms(const nd_fast_kernels *k, const backward_call *c, backward_space s,
                           const backward_item *item, nd_attention_rows rows)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim;
    float *lse = (float *)s.part[PART_LSE], *delta = (float *)s.part[PART_DELTA];
    float buffers[2][d];
    for (int64_t row = 0; row < p->rows; row++) {
        const int64_t i = row % p->queries;
        lse[row] = delta[row] = 0.0f;
        if (nd_attention_padding(p, row, rows.count))
            continue;
        const int64_t head = item->kv_head * p->group + row / p->queries;
        const int64_t index = (rows.first + i) * p->shape.heads + head;
        lse[row] = ((const float *)c->lse.data)[index];
        delta[row] = (float)k->dot(nd_fast_load(k, c->dout, index * d, d, buffers[0]),
                                   nd_fast_load(k, c->o, index * d, d, buffers[1]), d);
    }
}

/* Keys of a tile that some query before `end` sees, which are its first, in whole steps. */
static int64_t visible_keys(const backward_call *c, const backward_item *item, int64_t tile,
                            int64_t end)
{
    const int64_t *first_query = item->first_query + tile * ND_KEY_TILE;
    int64_t keys = ND_KEY_TILE;
    while (keys > 0 && first_query[keys - 1] >= end)
        keys--;
    return nd_fast_ceil(keys, c->key_step) * c->key_step;
}

/* Applies the causal mask: zeroes queries before a key, and keys beyond the first `keys`. */
static void mask_tile(const backward_call *c, backward_space s, const backward_item *item,
                      int64_t block, int64_t tile, int64_t keys)
{
    const nd_attention_plan *p = &c->plan;
    char *const parts[] = {s.part[PART_P_NARROW], s.part[PART_DS_NARROW]};
    for (int64_t j = 0; j < keys; j++) {
        const int64_t first_query = item->first_query[tile * ND_KEY_TILE + j];
        const int64_t hidden = nd_fast_min(first_query - block * p->queries, p->queries);
        for (int64_t h = 0; hidden > 0 && h < p->group; h++)
            for (int i = 0; i < 2; i++)
                memset(parts[i] + (size_t)(j * p->rows + h * p->queries) * p->element, 0,
                       (size_t)hidden * p->element);
    }
    memset(parts[1] + (size_t)(keys * p->rows) * p->element, 0,
           (size_t)((ND_KEY_TILE - keys) * p->rows) * p->element);
}

static bool run_tile(const nd_fast_kernels *k, const backward_call *c, backward_space s,
                     const backward_item *item, int64_t block, int64_t tile, int64_t keys,
                     int thread)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t first = tile * ND_KEY_TILE * p->shape.head_dim;
    const size_t at = (size_t)first * p->element;
    const int64_t step = keys / KEY_STEP - 1;
    float *scores = (float *)s.part[PART_P], *ds = (float *)s.part[PART_DS];
    char *narrow_p = s.part[PART_P_NARROW], *narrow_ds = s.part[PART_DS_NARROW];
    const float *lse = (const float *)s.part[PART_LSE], *delta = (const float *)s.part[PART_DELTA];
    const char *packed_keys =
        s.part[PART_PACKED_KEYS] + (size_t)tile * nd_matmul_packed_bytes(c->query_sums);
    if (!nd_matmul_run(c->scores[step], thread, s.part[PART_KEYS] + at, s.part[PART_QUERY_COLUMNS],
                       scores) ||
        !nd_matmul_run(c->scores[step], thread, s.part[PART_VALUES] + at, s.part[PART_DOUT_COLUMNS],
                       ds))
        return false;
    if (p->dtype == ND_BF16)
        k->attention_gradient_bf16((uint16_t *)narrow_p, (uint16_t *)narrow_ds, scores, ds, lse,
                                   delta, p->scale, keys, p->rows);
    else
        k->attention_gradient(scores, ds, lse, delta, p->scale, keys, p->rows);
    mask_tile(c, s, item, block, tile, keys);
    if (tile < item->own_tiles &&
        (!nd_matmul_run(c->sums[step], thread, narrow_p, s.part[PART_DOUT_ROWS],
                        (float *)s.part[PART_DV] + first) ||
         !nd_matmul_run(c->sums[step], thread, narrow_ds, s.part[PART_QUERY_ROWS],
                        (float *)s.part[PART_DK] + first)))
        return false;
    return nd_matmul_run(c->query_sums, thread, narrow_ds, packed_keys, s.part[PART_DQ]);
}

static bool run_block(const nd_fast_kernels *k, const backward_call *c, backward_space s,
                      const backward_item *item, int64_t block, int thread)
{
    const nd_attention_plan *p = &c->plan;
    const nd_attention_rows rows = nd_attention_block(p, item->rows, block);
    const nd_matmul *scores = c->scores[KEY_STEPS - 1], *sums = c->sums[KEY_STEPS - 1];
    nd_attention_gather_block(k, p, c->q, rows, item->kv_head, s.part[PART_QUERY]);
    nd_attention_gather_block(k, p, c->dout, rows, item->kv_head, s.part[PART_DOUT]);
    load_row_terms(k, c, s, item, rows);
    bool ok = nd_matmul_pack(scores, thread, s.part[PART_QUERY], s.part[PART_QUERY_COLUMNS]) &&
              nd_matmul_pack(scores, thread, s.part[PART_DOUT], s.part[PART_DOUT_COLUMNS]) &&
              nd_matmul_pack(sums, thread, s.part[PART_QUERY], s.part[PART_QUERY_ROWS]) &&
              nd_matmul_pack(sums, thread, s.part[PART_DOUT], s.part[PART_DOUT_ROWS]);
    const int64_t end = block * p->queries + rows.count;
    memset(s.part[PART_DQ], 0, (size_t)(p->rows * p->shape.head_dim) * sizeof(float));
    for (int64_t tile = 0; ok && tile < item->tiles; tile++) {
        const int64_t keys = visible_keys(c, item, tile, end);
        ok = keys == 0 || run_tile(k, c, s, item, block, tile, keys, thread);
    }
    nd_attention_scatter_block(k, p, c->dq, rows, item->kv_head, (float *)s.part[PART_DQ]);
    return ok;
}

static void store_head(const nd_fast_kernels *k, const backward_call *c, nd_view out,
                       const backward_item *item, const float *sums)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim;
    const int32_t *rows = p->shape.rows.data;
    const bool all = !rows;
    const int64_t first = all ? item->sequence * p->shape.key_len : item->rows.first;
    const int64_t count = all ? p->shape.key_len : item->rows.count;
    for (int64_t j = 0; j < count; j++) {
        const int64_t at = ((first + j) * p->shape.kv_heads + item->kv_head) * d;
        const int64_t slot = c->sorted || all ? j : rows[first + j] % p->shape.key_len;
        if (out.dtype == ND_F32)
            memcpy((float *)out.data + at, sums + slot * d, (size_t)d * sizeof *sums);
        else
            nd_fast_store(k, out, at, d, sums + slot * d);
    }
}

static bool run_head(const nd_cpu_fast *fast, const backward_call *c, int64_t index, int thread)
{
    const nd_fast_kernels *k = fast->kernels;
    const nd_attention_plan *p = &c->plan;
    const int64_t tile_count = ND_KEY_TILE * p->shape.head_dim;
    backward_item item = {.sequence = index / p->shape.kv_heads,
                          .kv_head = index % p->shape.kv_heads};
    backward_space s;
    layout_space(c, fast->private[thread].memory, &s);
    item.rows = nd_attention_sequence(&p->shape, c->kept, item.sequence);
    assign_key_slots(c, s, &item);
    const size_t sum_bytes = (size_t)(item.own_tiles * tile_count) * sizeof(float);
    memset(s.part[PART_DK], 0, sum_bytes);
    memset(s.part[PART_DV], 0, sum_bytes);
    bool ok = true;
    for (int64_t tile = 0; ok && tile < item.tiles; tile++) {
        char *keys = s.part[PART_KEYS] + (size_t)(tile * tile_count) * p->element;
        char *values = s.part[PART_VALUES] + (size_t)(tile * tile_count) * p->element;
        const int64_t *tokens = item.tokens + tile * ND_KEY_TILE;
        nd_attention_gather_keys(k, p, c->k, item.kv_head, tokens, keys);
        nd_attention_gather_keys(k, p, c->v, item.kv_head, tokens, values);
        ok = nd_matmul_pack(c->query_sums, thread, keys,
                            s.part[PART_PACKED_KEYS] +
                                (size_t)tile * nd_matmul_packed_bytes(c->query_sums));
    }
    for (int64_t block = 0; ok && block * p->queries < item.rows.count; block++)
        ok = run_block(k, c, s, &item, block, thread);
    store_head(k, c, c->dk, &item, (const float *)s.part[PART_DK]);
    store_head(k, c, c->dv, &item, (const float *)s.part[PART_DV]);
    return ok;
}

/* The product for 1 ... KEY_STEPS steps of keys. Without a packed operand that serves all, only
 * that of a whole tile is used. */
static nd_status find_by_step(nd_cpu_fast *fast, nd_matmul_shape shape, const nd_matmul *found[],
                              int64_t *key_step)
{
    for (int64_t step = KEY_STEPS - 1; step >= 0; step--) {
        shape.m = (step + 1) * KEY_STEP;
        ND_TRY(nd_matmul_find(fast->matmuls, &shape, &found[step]));
        if (!nd_matmul_same_packing(found[KEY_STEPS - 1], found[step]))
            *key_step = ND_KEY_TILE;
    }
    return ND_OK;
}

static nd_status find_products(nd_cpu_fast *fast, backward_call *c)
{
    const nd_attention_plan *p = &c->plan;
    const int64_t d = p->shape.head_dim, rows = p->rows;
    const nd_matmul_shape scores = {.n = rows,
                                    .k = d,
                                    .lda = d,
                                    .ldb = d,
                                    .ldc = rows,
                                    .a = p->dtype,
                                    .b = p->dtype,
                                    .c = ND_F32,
                                    .transpose_b = 1,
                                    .packed_b = 1};
    ND_TRY(find_by_step(fast, scores, c->scores, &c->key_step));
    nd_matmul_shape shape = {.n = d, .k = rows, .accumulate = 1, .packed_b = 1};
    shape.a = shape.b = p->dtype;
    shape.c = ND_F32;
    shape.lda = rows;
    shape.ldb = shape.ldc = d;
    ND_TRY(find_by_step(fast, shape, c->sums, &c->key_step));
    shape.m = rows;
    shape.k = ND_KEY_TILE;
    shape.transpose_a = 1;
    return nd_matmul_find(fast->matmuls, &shape, &c->query_sums);
}

nd_status nd_attention_backward_blocked(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                        nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                        nd_cview k, nd_cview v, const nd_attention_shape *shape)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    ND_TRY(nd_attention_check(q, k, v, shape));
    ND_REQUIRE(nd_same_shape(nd_as_const(dq), q) && nd_same_shape(dout, q) && nd_same_shape(o, q));
    ND_REQUIRE(dk.rows == (shape->rows.data ? q.rows : k.rows) && dk.cols == k.cols);
    ND_REQUIRE(nd_same_shape(nd_as_const(dv), nd_as_const(dk)));
    if (!nd_fast_covers(dq.dtype) || !nd_fast_covers(dk.dtype) || !nd_fast_covers(dv.dtype) ||
        !nd_fast_covers(dout.dtype) || !nd_fast_covers(o.dtype) || !nd_fast_covers(q.dtype) ||
        !nd_fast_covers(k.dtype) || !nd_fast_covers(v.dtype) || lse.dtype != ND_F32)
        return fast->reference.attention_backward(b, dq, dk, dv, dout, o, lse, q, k, v, shape);
    const bool all_bf16 =
        q.dtype == ND_BF16 && k.dtype == ND_BF16 && v.dtype == ND_BF16 && dout.dtype == ND_BF16;
    backward_call call = {.plan = nd_attention_plan_of(fast, shape, all_bf16),
                          .key_step = KEY_STEP,
                          .dq = dq,
                          .dk = dk,
                          .dv = dv,
                          .dout = dout,
                          .o = o,
                          .lse = lse,
                          .q = q,
                          .k = k,
                          .v = v};
    if (shape->query_len == 0)
        return fast->reference.attention_backward(b, dq, dk, dv, dout, o, lse, q, k, v, shape);
    const bool part = shape->rows.data != NULL;
    call.kept = nd_attention_kept(shape, q.rows);
    call.sorted = part && shape->key_len >= SORTED_KEYS;
    call.tiles = call.plan.tiles + (call.sorted ? 1 : 0);
    ND_TRY(find_products(fast, &call));
    ND_TRY(nd_fast_grow_private(fast, layout_space(&call, NULL, NULL)));
    bool ok = true;
#pragma omp parallel for num_threads(fast->threads) schedule(dynamic, 1) reduction(&& : ok)
    for (int64_t item = 0; item < shape->sequences * shape->kv_heads; item++)
        ok = run_head(fast, &call, item, nd_fast_thread()) && ok;
    nd_attention_zero_rows(dq, call.kept);
    if (part) {
        nd_attention_zero_rows(dk, call.kept);
        nd_attention_zero_rows(dv, call.kept);
    }
    return ok ? ND_OK : ND_FAIL(ND_EINTERNAL, "oneDNN refused a product of attention");
}
