/* Reference: optimizer updates of weights and moments. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"
#include "core/base/rng.h"

#include <math.h>

/* Masters in bf16 round stochastically: at a learning rate of 1e-3 nearest rounding loses most
 * updates. One 32-bit draw an element, four elements a block. */
static void store_master(nd_view w, int64_t i, double x, uint64_t key, int64_t first)
{
    if (w.dtype != ND_BF16) {
        nd_store(w, i, x);
        return;
    }
    const int64_t element = first + i;
    const nd_rng_block block = nd_rng_philox(key, 2, (uint64_t)(element / 4));
    ((uint16_t *)w.data)[i] = nd_bf16_from_float_stochastic((float)x, block.word[element % 4]);
}

static double decayed(double w, double update, double decay, bool cautious)
{
    return !cautious || update * w >= 0.0 ? w - decay * w : w;
}

static nd_status momentum_reference(nd_backend *b, nd_view u, nd_view m, nd_cview g, float beta,
                                    float scale, bool nesterov)
{
    (void)b;
    ND_REQUIRE_FLOATS(u.dtype, g.dtype);
    ND_REQUIRE(m.dtype == ND_F32 || m.dtype == ND_F64);
    ND_REQUIRE(nd_same_shape(nd_as_const(u), g) && nd_same_shape(nd_as_const(m), g));
    for (int64_t i = 0; i < nd_view_count(g); i++) {
        const double gradient = (double)scale * nd_load(g, i);
        const double moment = (double)beta * nd_load(nd_as_const(m), i) + gradient;
        nd_store(m, i, moment);
        nd_store(u, i, nesterov ? gradient + (double)beta * moment : moment);
    }
    return ND_OK;
}

static nd_status apply_update_reference(nd_backend *b, nd_view w, nd_cview u,
                                        const nd_update_params *p)
{
    (void)b;
    ND_REQUIRE(nd_is_float(w.dtype) && nd_is_float(u.dtype) && nd_same_shape(nd_as_const(w), u));
    for (int64_t i = 0; i < nd_view_count(u); i++) {
        const double weight = nd_load(nd_as_const(w), i), update = nd_load(u, i);
        const double kept = decayed(weight, update, p->decay, p->cautious_decay);
        store_master(w, i, kept - (double)p->step_size * update, p->rounding_key, 0);
    }
    return ND_OK;
}

void nd_reference_adamw(nd_view w, int64_t first, int64_t n, double *m, double *v, nd_cview g,
                        const nd_adamw_params *p)
{
    const double decay = (double)p->learning_rate * (double)p->weight_decay;
    for (int64_t i = 0; i < n; i++) {
        const double gradient = (double)p->gradient_scale * nd_load(g, first + i);
        m[i] = (double)p->beta1 * m[i] + (1.0 - (double)p->beta1) * gradient;
        v[i] = (double)p->beta2 * v[i] + (1.0 - (double)p->beta2) * gradient * gradient;
        const double update = m[i] / (double)p->correction1 /
                              (sqrt(v[i] / (double)p->correction2) + (double)p->epsilon);
        const double weight = nd_load(nd_as_const(w), first + i);
        const double kept = decayed(weight, update, decay, p->cautious_decay);
        store_master(w, first + i, kept - (double)p->learning_rate * update, p->rounding_key,
                     p->first_element);
    }
}

static nd_status adamw_reference(nd_backend *b, nd_view w, nd_view m, nd_view v, nd_cview g,
                                 const nd_adamw_params *p)
{
    (void)b;
    ND_REQUIRE_FLOATS(w.dtype, m.dtype, v.dtype, g.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(w), g));
    ND_REQUIRE(nd_same_shape(nd_as_const(m), g) && nd_same_shape(nd_as_const(v), g));
    for (int64_t i = 0; i < nd_view_count(g); i++) {
        double moment1 = nd_load(nd_as_const(m), i), moment2 = nd_load(nd_as_const(v), i);
        nd_reference_adamw(w, i, 1, &moment1, &moment2, g, p);
        nd_store(m, i, moment1);
        nd_store(v, i, moment2);
    }
    return ND_OK;
}

void nd_reference_fill_updates(nd_backend_ops *ops)
{
    ops->momentum = momentum_reference;
    ops->apply_update = apply_update_reference;
    ops->adamw = adamw_reference;
}
