#include "optim/optimizer.h"

#include "core/rng.h"
#include "optim/muon.h"

#include <math.h>
#include <stdlib.h>

/* FLOPs that an elementwise update of one weight is worth in time: its bytes over the ratio of
 * arithmetic to bandwidth of today's machines. */
static const double elementwise_flops = 400.0;

typedef struct param_state {
    bool owned;
    bool muon;
    nd_view first;  /* momentum or first moment, f32 */
    nd_view second; /* second moment, AdamW only */
} param_state;

struct nd_optimizer {
    const nd_config *config;
    const nd_params *params;
    nd_backend *backend;
    nd_schedule schedule;
    param_state *states;
    nd_muon_scratch scratch;
};

static bool uses_muon(const nd_config *config, const nd_param *param)
{
    return param->role == ND_ROLE_TERNARY && config->training.optimizer_type == ND_OPTIMIZER_MUON;
}

nd_status nd_optimizer_create(const nd_config *config, const nd_params *params, const bool *owned,
                              nd_backend *backend, nd_optimizer **optimizer)
{
    nd_optimizer *o = calloc(1, sizeof *o);
    param_state *states = calloc((size_t)params->count, sizeof *states);
    if (!o || !states) {
        free(o);
        free(states);
        return ND_FAIL(ND_ENOMEM, "no memory for the optimizer's table");
    }
    o->config = config;
    o->params = params;
    o->backend = backend;
    o->states = states;
    o->schedule = (nd_schedule){
        .type = (nd_schedule_type)config->training.schedule_type,
        .total_steps = config->training.total_steps,
        .warmup_steps = config->training.warmup_steps,
        .stable_ratio = config->training.stable_ratio,
        .min_lr_ratio = config->training.min_lr_ratio,
    };
    for (int64_t i = 0; i < params->count; i++) {
        states[i].owned = owned[i];
        states[i].muon = uses_muon(config, &params->list[i]);
    }
    *optimizer = o;
    return ND_OK;
}

void nd_optimizer_destroy(nd_optimizer *o)
{
    if (!o)
        return;
    free(o->states);
    free(o);
}

static nd_status take_scratch(nd_optimizer *o, nd_arena *arena)
{
    const nd_dtype compute = o->config->hardware.precision == ND_PRECISION_BF16 ? ND_BF16 : ND_F32;
    int64_t largest = 0, side = 0;
    for (int64_t i = 0; i < o->params->count; i++) {
        const nd_param *p = &o->params->list[i];
        if (!o->states[i].owned || !o->states[i].muon)
            continue;
        const int64_t smaller = p->rows < p->cols ? p->rows : p->cols;
        largest = p->rows * p->cols > largest ? p->rows * p->cols : largest;
        side = smaller > side ? smaller : side;
    }
    ND_TRY(nd_arena_take(arena, ND_F32, 1, largest, &o->scratch.update));
    for (int i = 0; i < 2; i++) {
        ND_TRY(nd_arena_take(arena, compute, 1, largest, &o->scratch.x[i]));
        ND_TRY(nd_arena_take(arena, compute, side, side, &o->scratch.gram[i]));
    }
    return nd_arena_take(arena, ND_F64, 1, 1, &o->scratch.norm);
}

nd_status nd_optimizer_take(nd_optimizer *o, nd_arena *arena)
{
    for (int64_t i = 0; i < o->params->count; i++) {
        const nd_param *p = &o->params->list[i];
        param_state *state = &o->states[i];
        if (!state->owned)
            continue;
        ND_TRY(nd_arena_take(arena, ND_F32, p->rows, p->cols, &state->first));
        if (!state->muon)
            ND_TRY(nd_arena_take(arena, ND_F32, p->rows, p->cols, &state->second));
    }
    return take_scratch(o, arena);
}

int nd_optimizer_states(const nd_optimizer *o, int64_t index, nd_optimizer_state *states)
{
    const param_state *state = &o->states[index];
    if (!state->owned)
        return 0;
    if (state->muon) {
        states[0] = (nd_optimizer_state){"momentum", state->first};
        return 1;
    }
    states[0] = (nd_optimizer_state){"moment1", state->first};
    states[1] = (nd_optimizer_state){"moment2", state->second};
    return 2;
}

double nd_optimizer_learning_rate(const nd_optimizer *o, int64_t step)
{
    return o->config->training.learning_rate * nd_schedule_factor(&o->schedule, step);
}

static double peak_rate(const nd_config *config, nd_param_role role)
{
    switch (role) {
    case ND_ROLE_EMBEDDING:
        return config->optimizer.embedding_lr;
    case ND_ROLE_HEAD:
        return config->optimizer.head_lr;
    case ND_ROLE_NORM:
        return config->optimizer.norm_lr;
    case ND_ROLE_TERNARY:
        break;
    }
    return config->training.learning_rate;
}

nd_status nd_optimizer_update(nd_optimizer *o, int64_t index, nd_view master, nd_cview gradient,
                              float gradient_scale, int64_t step)
{
    const nd_config *c = o->config;
    const nd_param *param = &o->params->list[index];
    const param_state *state = &o->states[index];
    const double rate = peak_rate(c, param->role) * nd_schedule_factor(&o->schedule, step);
    /* Norms and embeddings are not decayed: shrinking them only moves scale elsewhere. */
    const double decay = param->role == ND_ROLE_TERNARY ? c->training.weight_decay : 0.0;
    const uint64_t rounding_key = nd_rng_key(
        (uint64_t)c->training.seed + 0x9e3779b97f4a7c15u * (uint64_t)(step + 1), param->name);
    if (state->muon) {
        const nd_muon_params params = {
            .momentum = (float)c->training.muon_momentum,
            .nesterov = c->optimizer.nesterov,
            .method = (nd_orthogonalization)c->optimizer.orthogonalization,
            .iterations = (int)c->optimizer.orthogonalization_steps,
            .learning_rate = (float)rate,
            .weight_decay = (float)decay,
            .cautious_decay = c->optimizer.cautious_weight_decay,
            .gradient_scale = gradient_scale,
            .rounding_key = rounding_key,
        };
        return nd_muon_update(o->backend, master, state->first, gradient, &params, &o->scratch);
    }
    const nd_adamw_params params = {
        .learning_rate = (float)rate,
        .beta1 = (float)c->optimizer.adam_beta1,
        .beta2 = (float)c->optimizer.adam_beta2,
        .epsilon = (float)c->optimizer.adam_epsilon,
        .weight_decay = (float)decay,
        .gradient_scale = gradient_scale,
        .correction1 = (float)(1.0 - pow(c->optimizer.adam_beta1, (double)(step + 1))),
        .correction2 = (float)(1.0 - pow(c->optimizer.adam_beta2, (double)(step + 1))),
        .cautious_decay = c->optimizer.cautious_weight_decay,
        .rounding_key = rounding_key,
    };
    return o->backend->ops.adamw(o->backend, master, state->first, state->second, gradient,
                                 &params);
}

double nd_optimizer_cost(const nd_config *config, const nd_param *param)
{
    const double elementwise = elementwise_flops * (double)(param->rows * param->cols);
    if (!uses_muon(config, param))
        return elementwise;
    return elementwise +
           nd_muon_flops(param->rows, param->cols, (int)config->optimizer.orthogonalization_steps);
}
