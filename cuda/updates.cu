/* Optimizer updates of weights and moments. */
#include "masters.cuh"

__global__ void momentum_kernel(nd_floats u, float *m, nd_floats g, float beta, float scale,
                                bool nesterov, int64_t count, bool wide)
{
    const nd_floats moments = {m, ND_F32};
    ND_GRID_LOOP_WIDE(i, count) {
        float a[ND_WIDE], moment[ND_WIDE];
        nd_load_wide(g, i, count - i, wide, a);
        nd_load_wide(moments, i, count - i, wide, moment);
        for (int j = 0; j < ND_WIDE; j++) {
            const float gradient = scale * a[j];
            moment[j] = beta * moment[j] + gradient;
            a[j] = nesterov ? gradient + beta * moment[j] : moment[j];
        }
        nd_store_wide(moments, i, count - i, wide, moment);
        nd_store_wide(u, i, count - i, wide, a);
    }
}

__global__ void apply_update_kernel(nd_floats w, nd_floats u, nd_update_params p, int64_t count,
                                    bool wide)
{
    ND_GRID_LOOP_WIDE(i, count) {
        float weight[ND_WIDE], update[ND_WIDE];
        nd_load_wide(w, i, count - i, wide, weight);
        nd_load_wide(u, i, count - i, wide, update);
        for (int j = 0; j < ND_WIDE; j++)
            weight[j] = nd_decayed(weight[j], update[j], p.decay, p.cautious_decay) -
                        p.step_size * update[j];
        nd_store_masters(w, i, count - i, wide, weight, p.rounding_key, 0);
    }
}

__global__ void adamw_kernel(nd_floats w, float *m, float *v, nd_floats g, nd_adamw_rule_cuda rule,
                             int64_t count, bool wide)
{
    const nd_floats first = {m, ND_F32}, second = {v, ND_F32};
    ND_GRID_LOOP_WIDE(i, count) {
        float weight[ND_WIDE], moment1[ND_WIDE], moment2[ND_WIDE], gradient[ND_WIDE];
        nd_load_wide(w, i, count - i, wide, weight);
        nd_load_wide(first, i, count - i, wide, moment1);
        nd_load_wide(second, i, count - i, wide, moment2);
        nd_load_wide(g, i, count - i, wide, gradient);
        for (int j = 0; j < ND_WIDE; j++)
            weight[j] = nd_adamw_element(rule, weight[j], &moment1[j], &moment2[j], gradient[j]);
        nd_store_wide(first, i, count - i, wide, moment1);
        nd_store_wide(second, i, count - i, wide, moment2);
        nd_store_masters(w, i, count - i, wide, weight, rule.key, rule.first);
    }
}

static nd_status momentum_cuda(nd_backend *b, nd_view u, nd_view m, nd_cview g, float beta,
                               float scale, bool nesterov)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(g);
    ND_REQUIRE(nd_all_wide(u.dtype) && m.dtype == ND_F32 && nd_all_wide(g.dtype));
    ND_REQUIRE(nd_same_shape(nd_as_const(u), g) && nd_same_shape(nd_as_const(m), g));
    return ND_LAUNCH_WIDE(momentum_kernel, cuda, count, nd_floats_of(u),
                          static_cast<float *>(m.data), nd_floats_of(g), beta, scale, nesterov,
                          count, nd_aligned(count, u.data, m.data, g.data));
}

static nd_status apply_update_cuda(nd_backend *b, nd_view w, nd_cview u, const nd_update_params *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(u);
    ND_REQUIRE(nd_all_wide(w.dtype, u.dtype) && nd_same_shape(nd_as_const(w), u));
    return ND_LAUNCH_WIDE(apply_update_kernel, cuda, count, nd_floats_of(w), nd_floats_of(u), *p,
                          count, nd_aligned(count, w.data, u.data));
}

static nd_status adamw_cuda(nd_backend *b, nd_view w, nd_view m, nd_view v, nd_cview g,
                            const nd_adamw_params *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const int64_t count = nd_view_count(g);
    ND_REQUIRE(nd_all_wide(w.dtype, g.dtype));
    ND_REQUIRE(m.dtype == ND_F32 && v.dtype == ND_F32 && nd_same_shape(nd_as_const(w), g));
    ND_REQUIRE(nd_same_shape(nd_as_const(m), g) && nd_same_shape(nd_as_const(v), g));
    return ND_LAUNCH_WIDE(adamw_kernel, cuda, count, nd_floats_of(w), static_cast<float *>(m.data),
                          static_cast<float *>(v.data), nd_floats_of(g), nd_adamw_rule_of(p), count,
                          nd_aligned(count, w.data, m.data, v.data, g.data));
}

void nd_cuda_fill_updates(nd_backend_ops *ops)
{
    ops->momentum = momentum_cuda;
    ops->apply_update = apply_update_cuda;
    ops->adamw = adamw_cuda;
}
