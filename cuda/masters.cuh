/* Stores an updated weight, in bf16 with stochastic rounding by the words of core/base/rng.h. */
#pragma once

#include "floats.cuh"

#include "core/base/philox.h"

/* nd_rng_philox. */
__device__ __forceinline__ uint4 nd_philox(uint64_t key, uint64_t counter_high,
                                           uint64_t counter_low)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    ND_UNROLL
    ND_PHILOX(k0, k1, c0, c1, c2, c3)
    return make_uint4(c0, c1, c2, c3);
}

/* nd_bf16_from_float_stochastic; returns the rounded value as f32. */
__device__ __forceinline__ float nd_round_stochastic(float x, uint32_t random)
{
    const uint32_t bits = nd_bits_of(x);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return x;
    return nd_float_of((bits + (random & 0xffffu)) & 0xffff0000u);
}

/* w[i .. i+7] = x, i a multiple of 8; element e = first + i uses word e % 4 of philox(key, 2, e /
 * 4). */
__device__ __forceinline__ void nd_store_masters(nd_floats w, int64_t i, int64_t left, bool wide,
                                                 float x[ND_WIDE], uint64_t key, int64_t first)
{
    if (w.dtype == ND_BF16) {
        ND_UNROLL
        for (int half = 0; half < 2; half++) {
            const uint4 random = nd_philox(key, 2, (uint64_t)((first + i) / 4 + half));
            x[4 * half] = nd_round_stochastic(x[4 * half], random.x);
            x[4 * half + 1] = nd_round_stochastic(x[4 * half + 1], random.y);
            x[4 * half + 2] = nd_round_stochastic(x[4 * half + 2], random.z);
            x[4 * half + 3] = nd_round_stochastic(x[4 * half + 3], random.w);
        }
    }
    nd_store_wide(w, i, left, wide, x);
}

__device__ __forceinline__ float nd_decayed(float w, float update, float decay, bool cautious)
{
    return !cautious || update * w >= 0.0f ? w - decay * w : w;
}

/* nd_adamw_params with the terms that do not depend on the element computed once. */
struct nd_adamw_rule_cuda {
    float rate, decay, beta1, beta2, rest1, rest2, epsilon, scale, inverse1, inverse2;
    bool cautious;
    uint64_t key;
    int64_t first; /* element of the tensor */
};

static inline nd_adamw_rule_cuda nd_adamw_rule_of(const nd_adamw_params *p)
{
    nd_adamw_rule_cuda r;
    r.rate = p->learning_rate;
    r.decay = (float)((double)p->learning_rate * (double)p->weight_decay);
    r.beta1 = p->beta1;
    r.beta2 = p->beta2;
    r.rest1 = (float)(1.0 - (double)p->beta1);
    r.rest2 = (float)(1.0 - (double)p->beta2);
    r.epsilon = p->epsilon;
    r.scale = p->gradient_scale;
    r.inverse1 = (float)(1.0 / (double)p->correction1);
    r.inverse2 = (float)(1.0 / (double)p->correction2);
    r.cautious = p->cautious_decay;
    r.key = p->rounding_key;
    r.first = p->first_element;
    return r;
}

/* Updates m and v from g; returns the new weight. */
__device__ __forceinline__ float nd_adamw_element(const nd_adamw_rule_cuda &r, float w, float *m,
                                                  float *v, float g)
{
    const float gradient = r.scale * g;
    *m = r.beta1 * *m + r.rest1 * gradient;
    *v = r.beta2 * *v + r.rest2 * gradient * gradient;
    const float update = *m * r.inverse1 / (sqrtf(*v * r.inverse2) + r.epsilon);
    return nd_decayed(w, update, r.decay, r.cautious) - r.rate * update;
}
