/* Fast layer: sums and elementwise ops, in chunks that fit the first cache. */
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"

enum { CHUNK = 2048, CHUNKS_IN_BLOCK = 16 };

static nd_status add_fast(nd_backend *b, nd_view y, nd_cview x, nd_cview z)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(y.dtype) || !nd_fast_covers(x.dtype) || !nd_fast_covers(z.dtype))
        return fast->reference.add(b, y, x, z);
    ND_REQUIRE(nd_same_shape(nd_as_const(y), x) && nd_same_shape(x, z));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t count = nd_view_count(x);
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < count; at += CHUNK) {
        float buffers[2][CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - at);
        const float *first = nd_fast_load(k, x, at, n, buffers[0]);
        const float *second = nd_fast_load(k, z, at, n, buffers[1]);
        float *target = nd_fast_target(y, at, buffers[0]);
        k->add(target, first, second, n);
        nd_fast_store(k, y, at, n, target);
    }
    return ND_OK;
}

static nd_status axpby_fast(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(y.dtype) || !nd_fast_covers(x.dtype))
        return fast->reference.axpby(b, y, alpha, x, beta);
    ND_REQUIRE(nd_view_count(nd_as_const(y)) == nd_view_count(x));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t count = nd_view_count(x);
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < count; at += CHUNK) {
        float buffers[2][CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - at);
        const float *in = nd_fast_load(k, x, at, n, buffers[0]);
        float *target = nd_fast_target(y, at, buffers[1]);
        if (beta == 0.0f) {
            k->scale(target, in, alpha, n);
        } else {
            nd_fast_load(k, nd_as_const(y), at, n, target);
            k->axpby(target, alpha, in, beta, n);
        }
        nd_fast_store(k, y, at, n, target);
    }
    return ND_OK;
}

typedef double (*chunk_sum)(const float *x, int64_t n);

/* Blocks of a fixed size, each summed by one thread, then added in order. */
static nd_status sum_blocks(nd_cpu_fast *fast, nd_view out, nd_cview x, chunk_sum sum_of)
{
    ND_REQUIRE(out.dtype == ND_F64 && out.rows == 1 && out.cols == 1);
    const int64_t count = nd_view_count(x), block = CHUNK * CHUNKS_IN_BLOCK;
    const int64_t blocks = nd_fast_ceil(count, block);
    ND_TRY(nd_fast_grow(&fast->shared, nd_fast_bytes(blocks, sizeof(double))));
    double *partial = fast->shared.memory;
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t i = 0; i < blocks; i++) {
        float buffer[CHUNK];
        const int64_t end = nd_fast_min((i + 1) * block, count);
        partial[i] = 0.0;
        for (int64_t at = i * block; at < end; at += CHUNK) {
            const int64_t n = nd_fast_min(CHUNK, end - at);
            partial[i] += sum_of(nd_fast_load(fast->kernels, x, at, n, buffer), n);
        }
    }
    double total = 0.0;
    for (int64_t i = 0; i < blocks; i++)
        total += partial[i];
    *(double *)out.data = total;
    return ND_OK;
}

static nd_status sum_squares_fast(nd_backend *b, nd_view out, nd_cview x)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(x.dtype))
        return fast->reference.sum_squares(b, out, x);
    return sum_blocks(fast, out, x, fast->kernels->sum_squares);
}

static nd_status sum_fast(nd_backend *b, nd_view out, nd_cview x)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(x.dtype))
        return fast->reference.sum(b, out, x);
    return sum_blocks(fast, out, x, fast->kernels->sum);
}

void nd_fast_fill_elementwise(nd_backend_ops *ops)
{
    ops->add = add_fast;
    ops->axpby = axpby_fast;
    ops->sum_squares = sum_squares_fast;
    ops->sum = sum_fast;
}
