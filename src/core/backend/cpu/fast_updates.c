/* Fast layer: optimizer updates of weights and moments. */
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/op_families.h"

enum { CHUNK = 2048 /* a multiple of 4, because stochastic rounding draws four words at once */ };

/* Loads and stores a chunk of weights as f32. */
static float *load_master(const nd_fast_kernels *k, nd_view w, int64_t at, int64_t n, float *buffer)
{
    float *target = nd_fast_target(w, at, buffer);
    nd_fast_load(k, nd_as_const(w), at, n, target);
    return target;
}

static void store_master(const nd_fast_kernels *k, nd_view w, int64_t at, int64_t n,
                         const float *computed, uint64_t key, int64_t first)
{
    if (w.dtype == ND_BF16)
        k->store_bf16_stochastic((uint16_t *)w.data + at, computed, key, first + at, n);
}

static nd_status momentum_fast(nd_backend *b, nd_view u, nd_view m, nd_cview g, float beta,
                               float scale, bool nesterov)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(u.dtype) || !nd_fast_covers(g.dtype) || m.dtype != ND_F32)
        return fast->reference.momentum(b, u, m, g, beta, scale, nesterov);
    ND_REQUIRE(nd_same_shape(nd_as_const(u), g) && nd_same_shape(nd_as_const(m), g));
    const nd_fast_kernels *k = fast->kernels;
    const int64_t count = nd_view_count(g);
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < count; at += CHUNK) {
        float buffers[2][CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - at);
        const float *gradient = nd_fast_load(k, g, at, n, buffers[0]);
        float *target = nd_fast_target(u, at, buffers[1]);
        k->momentum(target, (float *)m.data + at, gradient, beta, scale, nesterov, n);
        nd_fast_store(k, u, at, n, target);
    }
    return ND_OK;
}

static nd_status apply_update_fast(nd_backend *b, nd_view w, nd_cview u, const nd_update_params *p)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(w.dtype) || !nd_fast_covers(u.dtype))
        return fast->reference.apply_update(b, w, u, p);
    ND_REQUIRE(nd_same_shape(nd_as_const(w), u));
    const nd_fast_kernels *k = fast->kernels;
    const nd_decay_rule rule = {p->decay, p->cautious_decay, p->step_size};
    const int64_t count = nd_view_count(u);
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < count; at += CHUNK) {
        float buffers[2][CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - at);
        float *weights = load_master(k, w, at, n, buffers[0]);
        k->update(weights, nd_fast_load(k, u, at, n, buffers[1]), &rule, n);
        store_master(k, w, at, n, weights, p->rounding_key, 0);
    }
    return ND_OK;
}

static nd_status adamw_fast(nd_backend *b, nd_view w, nd_view m, nd_view v, nd_cview g,
                            const nd_adamw_params *p)
{
    nd_cpu_fast *fast = nd_cpu_fast_of(b);
    if (!nd_fast_covers(w.dtype) || !nd_fast_covers(g.dtype) || m.dtype != ND_F32 ||
        v.dtype != ND_F32)
        return fast->reference.adamw(b, w, m, v, g, p);
    ND_REQUIRE(nd_same_shape(nd_as_const(w), g));
    ND_REQUIRE(nd_same_shape(nd_as_const(m), g) && nd_same_shape(nd_as_const(v), g));
    const nd_fast_kernels *k = fast->kernels;
    const nd_adamw_rule rule = nd_fast_adamw_rule(p);
    const int64_t count = nd_view_count(g);
#pragma omp parallel for num_threads(nd_fast_team(fast, count))
    for (int64_t at = 0; at < count; at += CHUNK) {
        float buffers[2][CHUNK];
        const int64_t n = nd_fast_min(CHUNK, count - at);
        float *weights = load_master(k, w, at, n, buffers[0]);
        k->adamw(weights, (float *)m.data + at, (float *)v.data + at,
                 nd_fast_load(k, g, at, n, buffers[1]), &rule, n);
        store_master(k, w, at, n, weights, p->rounding_key, p->first_element);
    }
    return ND_OK;
}

void nd_fast_fill_updates(nd_backend_ops *ops)
{
    ops->momentum = momentum_fast;
    ops->apply_update = apply_update_fast;
    ops->adamw = adamw_fast;
}
