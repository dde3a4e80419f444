#include "optim/optimizer.h"

#include "core/base/rng.h"
#include "optim/muon.h"
#include "optim/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* FLOPs that take as long as updating one weight elementwise, which is limited by bandwidth. */
static const double elementwise_flops = 400.0;

typedef struct param_state {
    bool owned;
    bool muon;
    int64_t first_row, rows; /* owned rows; all with GaLore or a single owner */
    const nd_galore *galore; /* NULL: full rank */
    nd_state first;          /* momentum or first moment */
    nd_state second;         /* second moment, AdamW only */
} param_state;

struct nd_optimizer {
    const nd_config *config;
    const nd_params *params;
    nd_backend *backend;
    nd_schedule schedule;
    nd_projectors *projectors;
    nd_muon_scratch scratch;
    nd_view lifted;       /* compute type: the largest projected update, lifted to full size */
    nd_view reduced;      /* f32: R of a gradient that is not projected yet */
    param_state states[]; /* [params] */
};

static bool uses_muon(const nd_config *config, const nd_param *param)
{
    return param->role == ND_ROLE_TERNARY && config->training.optimizer_type == ND_OPTIMIZER_MUON;
}

nd_status nd_optimizer_create(const nd_config *config, const nd_params *params, const bool *owned,
                              nd_backend *backend, nd_optimizer **optimizer)
{
    nd_optimizer *o = calloc(1, sizeof *o + (size_t)params->count * sizeof *o->states);
    ND_FAIL_IF(!o, ND_ENOMEM, "no memory for the optimizer's table");
    o->config = config;
    o->params = params;
    o->backend = backend;
    o->schedule = (nd_schedule){
        .type = (nd_schedule_type)config->training.schedule_type,
        .total_steps = config->training.total_steps,
        .warmup_steps = config->training.warmup_steps,
        .stable_ratio = config->training.stable_ratio,
        .min_lr_ratio = config->training.min_lr_ratio,
    };
    const nd_status status = nd_projectors_create(config, params, backend, &o->projectors);
    for (int64_t i = 0; status == ND_OK && i < params->count; i++)
        o->states[i] = (param_state){.owned = owned[i],
                                     .rows = params->list[i].rows,
                                     .muon = uses_muon(config, &params->list[i]),
                                     .galore = nd_projectors_shape(o->projectors, i)};
    ND_RETURN_MADE(status, o, nd_optimizer_destroy, optimizer);
}

void nd_optimizer_destroy(nd_optimizer *o)
{
    if (!o)
        return;
    nd_projectors_destroy(o->projectors);
    free(o->scratch.state.host);
    free(o);
}

void nd_optimizer_own_rows(nd_optimizer *o, int64_t index, int64_t first, int64_t count)
{
    param_state *state = &o->states[index];
    state->owned = count > 0;
    state->first_row = first;
    state->rows = count;
}

nd_projectors *nd_optimizer_projectors(nd_optimizer *o)
{
    return o->projectors;
}

bool nd_optimizer_takes_projected(const nd_optimizer *o, int64_t index)
{
    return o->states[index].galore && o->config->optimizer.galore_residual == 0.0;
}

static void state_shape(const nd_optimizer *o, int64_t index, int64_t *rows, int64_t *cols)
{
    const nd_galore *g = o->states[index].galore;
    const nd_param *p = &o->params->list[index];
    *rows = g ? nd_galore_reduced_rows(g) : o->states[index].rows;
    *cols = g ? nd_galore_reduced_cols(g) : p->cols;
}

void nd_optimizer_gradient_shape(const nd_optimizer *o, int64_t index, int64_t *rows, int64_t *cols)
{
    *rows = o->params->list[index].rows;
    *cols = o->params->list[index].cols;
    if (nd_optimizer_takes_projected(o, index))
        state_shape(o, index, rows, cols);
}

/* The smallest scratch for every matrix updated here. */
typedef struct scratch_size {
    int64_t largest, side;     /* elements of an orthogonalized matrix; its smaller side */
    int64_t lifted, reduced;   /* elements of a projected matrix; of R where it is projected here */
    int64_t rank, left, right; /* of the low-rank codec's matrices */
} scratch_size;

static scratch_size measure_scratch(const nd_optimizer *o)
{
    scratch_size size = {0};
    for (int64_t i = 0; i < o->params->count; i++) {
        const param_state *state = &o->states[i];
        int64_t rows, cols;
        if (!state->owned || (!state->muon && !state->galore))
            continue;
        if (state->galore)
            size.lifted = nd_larger(size.lifted, state->galore->rows * state->galore->cols);
        nd_optimizer_gradient_shape(o, i, &rows, &cols);
        size.largest = nd_larger(size.largest, rows * cols);
        if (state->muon)
            size.side = nd_larger(size.side, rows < cols ? rows : cols);
        state_shape(o, i, &rows, &cols);
        if (state->galore && !nd_optimizer_takes_projected(o, i))
            size.reduced = nd_larger(size.reduced, rows * cols);
        if (state->first.codec != &nd_state_low_rank4)
            continue;
        const int64_t rank = nd_state_low_rank(rows, cols);
        size.rank = nd_larger(size.rank, rank);
        size.left = nd_larger(size.left, rank * rows);
        size.right = nd_larger(size.right, rank * cols);
    }
    return size;
}

static nd_status reserve_state_scratch(nd_state_scratch *scratch, const scratch_size *size,
                                       nd_arena *arena)
{
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size->left, &scratch->left));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size->right, &scratch->right));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size->left, &scratch->product));
    ND_TRY(nd_arena_reserve(arena, ND_F32, size->rank, size->rank, &scratch->gram));
    if (size->rank > 0 && !scratch->host) {
        scratch->host = calloc((size_t)(2 * size->rank * size->rank), sizeof *scratch->host);
        ND_FAIL_IF(!scratch->host, ND_ENOMEM, "no memory for factors of rank %lld",
                   (long long)size->rank);
    }
    return ND_OK;
}

static nd_status reserve_scratch(nd_optimizer *o, nd_arena *arena)
{
    const nd_dtype compute = o->config->hardware.precision == ND_PRECISION_BF16 ? ND_BF16 : ND_F32;
    const scratch_size size = measure_scratch(o);
    const size_t x_bytes = ((size_t)size.largest * nd_dtype_size(compute) + 63) / 64 * 64;
    nd_muon_scratch *s = &o->scratch;
    nd_view x;
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size.largest, &s->update));
    ND_TRY(nd_arena_reserve(arena, ND_U8, 2, (int64_t)x_bytes, &x));
    s->x[0] = nd_view_of(x.data, compute, 1, size.largest);
    s->x[1] = nd_view_of(x.data ? (char *)x.data + x_bytes : NULL, compute, 1, size.largest);
    s->momentum = nd_view_of(x.data, ND_F32, 1, size.largest);
    for (int i = 0; i < 2; i++)
        ND_TRY(nd_arena_reserve(arena, compute, size.side, size.side, &s->gram[i]));
    ND_TRY(nd_arena_reserve(arena, ND_F64, 1, 1, &s->norm));
    ND_TRY(nd_arena_reserve(arena, compute, 1, size.lifted, &o->lifted));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size.reduced, &o->reduced));
    return reserve_state_scratch(&s->state, &size, arena);
}

/* Moments of m rows of `rows`; `rows` alone selects the codec. */
static nd_status reserve_moments(param_state *state, int bits, int64_t rows, int64_t m, int64_t n,
                                 nd_arena *arena)
{
    const nd_state_codec *first = nd_state_codec_moment(bits, rows, n, false);
    const nd_state_codec *second = nd_state_codec_moment(bits, rows, n, true);
    ND_TRY(nd_state_reserve(&state->first, first, m, n, arena));
    return nd_state_reserve(&state->second, second, m, n, arena);
}

nd_status nd_optimizer_reserve(nd_optimizer *o, nd_arena *arena)
{
    const int bits = nd_config_state_bits(o->config);
    for (int64_t i = 0; i < o->params->count; i++) {
        param_state *state = &o->states[i];
        int64_t m, n;
        if (!state->owned)
            continue;
        state_shape(o, i, &m, &n);
        if (state->muon) {
            ND_TRY(
                nd_state_reserve(&state->first, nd_state_codec_momentum(bits, m, n), m, n, arena));
            continue;
        }
        const int64_t rows = state->galore ? m : o->params->list[i].rows;
        ND_TRY(reserve_moments(state, bits, rows, m, n, arena));
    }
    ND_TRY(reserve_scratch(o, arena));
    return nd_projectors_reserve(o->projectors, arena);
}

/* Appends the tensors of one state, with its name as prefix. */
static int list_parts(const nd_state *state, const char *name, nd_optimizer_state *out)
{
    for (int i = 0; i < state->codec->parts; i++) {
        snprintf(out[i].name, sizeof out[i].name, "%s%s", name, state->codec->suffixes[i]);
        out[i].view = state->parts[i];
    }
    return state->codec->parts;
}

int nd_optimizer_states(const nd_optimizer *o, int64_t index, nd_optimizer_state *states)
{
    const param_state *state = &o->states[index];
    if (!state->owned)
        return 0;
    int count = 0;
    if (state->galore)
        count += list_parts(nd_projectors_state(o->projectors, index), "projector", states);
    if (state->muon)
        return count + list_parts(&state->first, "momentum", states + count);
    count += list_parts(&state->first, "moment1", states + count);
    return count + list_parts(&state->second, "moment2", states + count);
}

nd_status nd_optimizer_whole_states(const nd_optimizer *o, int64_t index,
                                    nd_optimizer_state *states, int *count)
{
    const nd_param *p = &o->params->list[index];
    param_state whole = {.owned = true};
    nd_arena arena;
    nd_arena_start_sizing(&arena, "optimizer", o->backend);
    ND_TRY(reserve_moments(&whole, nd_config_state_bits(o->config), p->rows, p->rows, p->cols,
                           &arena));
    *count = list_parts(&whole.first, "moment1", states);
    *count += list_parts(&whole.second, "moment2", states + *count);
    return ND_OK;
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

/* *lifted = factor times the matrix of `direction`, in the compute type. */
static nd_status lift(nd_optimizer *o, int64_t index, nd_cview direction, double factor,
                      nd_view *lifted)
{
    const nd_galore *g = o->states[index].galore;
    nd_view projector;
    *lifted = nd_view_shaped(o->lifted, g->rows, g->cols);
    ND_TRY(nd_projectors_load(o->projectors, index, &projector));
    return nd_galore_lift(o->backend, g, *lifted, nd_as_const(projector), direction, (float)factor);
}

/* lifted += galore_residual times the orthogonalized remainder of the gradient beyond `reduced`. */
static nd_status add_residual(nd_optimizer *o, int64_t index, nd_view lifted, nd_cview gradient,
                              nd_cview reduced, const nd_muon_params *p)
{
    const nd_muon_scratch s = nd_muon_scratch_shaped(&o->scratch, gradient.rows, gradient.cols);
    const float residual = (float)o->config->optimizer.galore_residual;
    nd_backend *b = o->backend;
    nd_view projector, orthogonal;
    ND_TRY(nd_projectors_load(o->projectors, index, &projector));
    ND_TRY(nd_galore_lift(b, o->states[index].galore, s.update, nd_as_const(projector), reduced,
                          -1.0f));
    ND_TRY(b->ops.axpby(b, s.update, 1.0f, gradient, 1.0f));
    ND_TRY(nd_muon_orthogonalize(b, p->method, p->iterations, &s, &orthogonal));
    return b->ops.axpby(b, lifted, residual, nd_as_const(orthogonal), 1.0f);
}

static nd_status update_muon(nd_optimizer *o, int64_t index, nd_view master, nd_cview gradient,
                             const nd_muon_params *p)
{
    const param_state *state = &o->states[index];
    const bool whole = !nd_optimizer_takes_projected(o, index);
    if (!state->galore)
        return nd_muon_update(o->backend, master, &state->first, gradient, p, &o->scratch);
    nd_view direction, lifted;
    nd_cview reduced = gradient;
    if (whole) {
        const nd_view into = nd_view_shaped(o->reduced, state->first.rows, state->first.cols);
        ND_TRY(nd_projectors_project(o->projectors, index, into, gradient, 0.0f));
        reduced = nd_as_const(into);
    }
    ND_TRY(nd_muon_direction(o->backend, &state->first, reduced, p, &o->scratch, &direction));
    ND_TRY(lift(o, index, nd_as_const(direction), o->config->optimizer.galore_scale, &lifted));
    if (whole)
        ND_TRY(add_residual(o, index, lifted, gradient, reduced, p));
    return nd_muon_apply(o->backend, master, nd_as_const(lifted), p);
}

static nd_status adamw(nd_optimizer *o, const param_state *state, nd_view w, nd_cview gradient,
                       const nd_adamw_params *params)
{
    nd_backend *b = o->backend;
    if (state->first.codec == &nd_state_fp32)
        return b->ops.adamw(b, w, state->first.parts[0], state->second.parts[0], gradient, params);
    const nd_blocks m = nd_state_blocks(&state->first), v = nd_state_blocks(&state->second);
    return b->ops.adamw_blocks(b, w, &m, &v, gradient, params);
}

static nd_status update_adamw(nd_optimizer *o, int64_t index, nd_view master, nd_cview gradient,
                              const nd_adamw_params *p)
{
    const param_state *state = &o->states[index];
    nd_backend *b = o->backend;
    if (!state->galore)
        return adamw(o, state, master, gradient, p);
    const nd_update_params update = {
        .step_size = p->learning_rate,
        .decay = p->learning_rate * p->weight_decay,
        .cautious_decay = p->cautious_decay,
        .rounding_key = p->rounding_key,
    };
    /* The direction is a step with learning rate 1 from zero weights. */
    const nd_view w = nd_view_shaped(o->scratch.update, gradient.rows, gradient.cols);
    nd_adamw_params unit = *p;
    unit.learning_rate = 1.0f;
    unit.weight_decay = 0.0f;
    ND_TRY(b->ops.zero(b, w.data, nd_view_bytes(nd_as_const(w))));
    nd_view lifted;
    ND_TRY(adamw(o, state, w, gradient, &unit));
    ND_TRY(lift(o, index, nd_as_const(w), -o->config->optimizer.galore_scale, &lifted));
    return b->ops.apply_update(b, master, nd_as_const(lifted), &update);
}

nd_status nd_optimizer_update(nd_optimizer *o, int64_t index, nd_view master, nd_cview gradient,
                              float gradient_scale, int64_t step)
{
    const nd_config *c = o->config;
    const nd_param *param = &o->params->list[index];
    const param_state *state = &o->states[index];
    const double rate = peak_rate(c, param->role) * nd_schedule_factor(&o->schedule, step);
    /* Norms and embeddings are not decayed, which would only move scale elsewhere. */
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
        return update_muon(o, index, master, gradient, &params);
    }
    /* As the moments are computed with, so that the corrections leave them no bias. */
    const float beta1 = (float)c->optimizer.adam_beta1, beta2 = (float)c->optimizer.adam_beta2;
    const nd_adamw_params params = {
        .learning_rate = (float)rate,
        .beta1 = beta1,
        .beta2 = beta2,
        .epsilon = (float)c->optimizer.adam_epsilon,
        .weight_decay = (float)decay,
        .gradient_scale = gradient_scale,
        .correction1 = (float)(1.0 - pow((double)beta1, (double)(step + 1))),
        .correction2 = (float)(1.0 - pow((double)beta2, (double)(step + 1))),
        .cautious_decay = c->optimizer.cautious_weight_decay,
        .rounding_key = rounding_key,
        .first_element = state->first_row * param->cols,
    };
    return update_adamw(o, index, master, gradient, &params);
}

static nd_status move_state(nd_optimizer *o, const nd_galore *g, const nd_state *state,
                            nd_cview rotation)
{
    nd_backend *b = o->backend;
    const nd_view into = nd_view_shaped(o->scratch.momentum, state->rows, state->cols);
    const nd_view moved = nd_view_shaped(o->scratch.update, state->rows, state->cols);
    nd_view m;
    ND_TRY(state->codec->load(b, state, &o->scratch.state, into, &m));
    ND_TRY(nd_galore_rotate(b, g, moved, rotation, nd_as_const(m)));
    if (state->codec == &nd_state_fp32)
        return b->ops.copy(b, m.data, moved.data, nd_view_bytes(nd_as_const(moved)));
    return state->codec->store(b, state, &o->scratch.state, moved);
}

static nd_status square(nd_backend *b, nd_view c)
{
    const size_t bytes = nd_view_bytes(nd_as_const(c));
    ND_AUTOFREE float *host = malloc(bytes);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory for a rotation of %zu bytes", bytes);
    ND_TRY(b->ops.download(b, host, c.data, bytes));
    for (int64_t i = 0; i < c.rows * c.cols; i++)
        host[i] *= host[i];
    return b->ops.upload(b, c.data, host, bytes);
}

nd_status nd_optimizer_replace_subspace(nd_optimizer *o, int64_t index, int64_t step, nd_cview y)
{
    const param_state *state = &o->states[index];
    nd_view rotation;
    ND_TRY(nd_projectors_replace(o->projectors, index, step, y, &rotation));
    ND_TRY(move_state(o, state->galore, &state->first, nd_as_const(rotation)));
    if (state->muon)
        return ND_OK;
    ND_TRY(square(o->backend, rotation));
    return move_state(o, state->galore, &state->second, nd_as_const(rotation));
}

double nd_optimizer_cost(const nd_config *config, const nd_param *param)
{
    const int iterations = (int)config->optimizer.orthogonalization_steps;
    const double elementwise = elementwise_flops * (double)(param->rows * param->cols);
    nd_galore g;
    if (nd_projectors_apply(config, param, &g)) {
        const double lifting = 2.0 * (double)g.rank * (double)(g.rows * g.cols);
        const double rest = config->optimizer.galore_residual > 0.0
                                ? 2.0 * lifting + nd_muon_flops(g.rows, g.cols, iterations)
                                : 0.0;
        const double direction =
            nd_muon_flops(nd_galore_reduced_rows(&g), nd_galore_reduced_cols(&g), iterations);
        return elementwise + lifting + rest + (uses_muon(config, param) ? direction : 0.0);
    }
    if (!uses_muon(config, param))
        return elementwise;
    return elementwise + nd_muon_flops(param->rows, param->cols, iterations);
}

enum { ROW_BLOCKS_MAX = 32 };

int64_t nd_optimizer_row_block(const nd_config *config, const nd_param *param)
{
    const bool dense = param->role == ND_ROLE_EMBEDDING || param->role == ND_ROLE_HEAD;
    if (!dense || uses_muon(config, param) || nd_projectors_apply(config, param, NULL))
        return param->rows;
    int64_t least = 1; /* rows that end at a block boundary of the state */
    while (least * param->cols % ND_STATE_DYNAMIC_BLOCK != 0)
        least *= 2;
    int64_t rows = (param->rows + ROW_BLOCKS_MAX - 1) / ROW_BLOCKS_MAX;
    const int64_t some = (ND_STATE_QUANTIZED_MIN + param->cols - 1) / param->cols;
    rows = (nd_larger(rows, some) + least - 1) / least * least;
    return rows < param->rows ? rows : param->rows;
}
