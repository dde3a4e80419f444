/* Fast layer: rotary positions, from a table of cosines and sines kept between calls. */
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/op_families.h"

#include <math.h>

/* The table holds [positions, head_dim]: half cosines, half sines, for positions from 0. It doubles
 * when longer ones come, so that decoding rarely extends it. */
static nd_status extend_table(nd_cpu_fast *fast, const nd_rope_params *p)
{
    const int64_t needed = p->start + p->seq_len, half = p->head_dim / 2;
    const bool same = fast->rope_head_dim == p->head_dim && fast->rope_base == p->base;
    if (same && needed <= fast->rope_positions)
        return ND_OK;
    int64_t positions = 256;
    while (positions < needed)
        positions *= 2;
    ND_TRY(nd_fast_grow(&fast->rope, nd_fast_bytes(positions * p->head_dim, sizeof(float))));
    float *table = fast->rope.memory;
#pragma omp parallel for num_threads(fast->threads)
    for (int64_t i = 0; i < half; i++) {
        const double rate = pow(p->base, -2.0 * (double)i / (double)p->head_dim);
        for (int64_t position = 0; position < positions; position++) {
            table[position * p->head_dim + i] = (float)cos((double)position * rate);
            table[position * p->head_dim + half + i] = (float)sin((double)position * rate);
        }
    }
    fast->rope_head_dim = p->head_dim;
    fast->rope_base = p->base;
    fast->rope_positions = positions;
    return ND_OK;
}

static nd_status rope_fast(nd_backend *b, nd_view x, const nd_rope_params *p)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(x.dtype) || p->start < 0)
        return fast->reference.rope(b, x, p);
    ND_REQUIRE(p->head_dim > 0 && p->head_dim % 2 == 0 && x.cols % p->head_dim == 0);
    ND_REQUIRE(p->seq_len > 0);
    const int32_t *rows = p->rows.data;
    ND_REQUIRE(!rows || p->rows.cols == x.rows);
    const nd_fast_kernels *k = fast->kernels;
    const int64_t n = x.cols, half = p->head_dim / 2;
    const float sign = p->inverse ? -1.0f : 1.0f;
    ND_TRY(extend_table(fast, p));
    ND_TRY(nd_fast_grow_private(fast, nd_fast_bytes(n, sizeof(float))));
#pragma omp parallel for num_threads(nd_fast_team(fast, x.rows *n))
    for (int64_t t = 0; t < x.rows; t++) {
        const int64_t token = rows ? rows[t] : t;
        if (token < 0)
            continue;
        const int64_t position = p->start + token % p->seq_len;
        const float *cosine = (const float *)fast->rope.memory + position * p->head_dim;
        float *row = nd_fast_target(x, t * n, fast->private[nd_fast_thread()].memory);
        nd_fast_load(k, nd_as_const(x), t * n, n, row);
        for (int64_t head = 0; head < n; head += p->head_dim) {
            if (p->style == ND_ROPE_HALVES)
                k->rotate_halves(row + head, cosine, cosine + half, sign, half);
            else
                k->rotate_pairs(row + head, cosine, cosine + half, sign, half);
        }
        nd_fast_store(k, x, t * n, n, row);
    }
    return ND_OK;
}

void nd_fast_fill_rope(nd_backend_ops *ops)
{
    ops->rope = rope_fast;
}
