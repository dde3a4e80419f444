#include "optim/projectors.h"

#include "core/base/rng.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct projector {
    bool used;
    nd_galore shape;
    int64_t order; /* among the projected */
    nd_state state;
} projector;

struct nd_projectors {
    const nd_config *config;
    const nd_params *params;
    nd_backend *backend;
    int64_t count;  /* of projected parameters */
    nd_view loaded; /* f32 [rank, small] of the largest */
    nd_view next;   /* f32, like `loaded` */
    nd_view omega;  /* f32 [per_step, sketch x large]: of the matrices due in a step */
    nd_view rotation;
    nd_galore_scratch scratch;
    int64_t *omega_step; /* [per_step] the step of each row of omega; INT64_MIN: none */
    projector list[];    /* [params.count] */
};

bool nd_projectors_apply(const nd_config *config, const nd_param *param, nd_galore *g)
{
    const int64_t small = param->rows < param->cols ? param->rows : param->cols;
    const bool block = param->layer < 0; /* whose gradients are not summed projected */
    if (!config->training.use_galore || param->role != ND_ROLE_TERNARY ||
        config->training.galore_rank >= small ||
        (block && config->optimizer.galore_residual == 0.0))
        return false;
    if (g)
        *g = nd_galore_create(param->rows, param->cols, config->training.galore_rank);
    return true;
}

nd_status nd_projectors_create(const nd_config *config, const nd_params *params,
                               nd_backend *backend, nd_projectors **projectors)
{
    nd_projectors *p = calloc(1, sizeof *p + (size_t)params->count * sizeof *p->list);
    ND_FAIL_IF(!p, ND_ENOMEM, "no memory for the table of projectors");
    *p = (nd_projectors){.config = config, .params = params, .backend = backend};
    for (int64_t i = 0; i < params->count; i++) {
        projector *one = &p->list[i];
        one->used = nd_projectors_apply(config, &params->list[i], &one->shape);
        if (one->used)
            one->order = p->count++;
    }
    const int64_t per_step = nd_projectors_per_step(p);
    p->omega_step = malloc((size_t)(per_step + 1) * sizeof *p->omega_step);
    for (int64_t i = 0; p->omega_step && i < per_step; i++)
        p->omega_step[i] = INT64_MIN;
    ND_RETURN_MADE(ND_CHECK(p->omega_step, ND_ENOMEM, "no memory for the steps of %lld sketches",
                            (long long)per_step),
                   p, nd_projectors_destroy, projectors);
}

void nd_projectors_destroy(nd_projectors *p)
{
    if (!p)
        return;
    free(p->scratch.host);
    free(p->scratch.host_integers);
    free(p->scratch.drawn);
    free(p->omega_step);
    free(p);
}

typedef struct scratch_size {
    int64_t projector, omega, rank, sketch;
} scratch_size;

static scratch_size measure_scratch(const nd_projectors *p)
{
    scratch_size size = {0};
    for (int64_t i = 0; i < p->params->count; i++) {
        const nd_galore *g = &p->list[i].shape;
        if (!p->list[i].used)
            continue;
        size.projector = nd_larger(size.projector, g->rank * nd_galore_small(g));
        size.omega = nd_larger(size.omega, g->sketch * nd_galore_large(g));
        size.rank = nd_larger(size.rank, g->rank);
        size.sketch = nd_larger(size.sketch, g->sketch);
    }
    return size;
}

static nd_status allocate_host(nd_galore_scratch *scratch, const scratch_size *size)
{
    if (scratch->host)
        return ND_OK;
    scratch->host = calloc((size_t)nd_galore_host_doubles(size->sketch), sizeof *scratch->host);
    scratch->host_integers =
        calloc((size_t)nd_galore_host_integers(size->sketch), sizeof *scratch->host_integers);
    scratch->drawn = calloc(ND_GALORE_DRAWN, sizeof *scratch->drawn);
    return ND_CHECK(scratch->host && scratch->host_integers && scratch->drawn, ND_ENOMEM,
                    "no memory to find subspaces of rank %lld", (long long)size->rank);
}

nd_status nd_projectors_reserve(nd_projectors *p, nd_arena *arena)
{
    const int bits = nd_config_projector_bits(p->config);
    if (p->count == 0)
        return ND_OK;
    for (int64_t i = 0; i < p->params->count; i++) {
        projector *one = &p->list[i];
        const int64_t rank = one->shape.rank, small = nd_galore_small(&one->shape);
        if (one->used)
            ND_TRY(nd_state_reserve(&one->state, nd_state_codec_momentum(bits, rank, small), rank,
                                    small, arena));
    }
    const scratch_size size = measure_scratch(p);
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size.projector, &p->loaded));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size.projector, &p->next));
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, size.projector, &p->scratch.basis));
    ND_TRY(nd_arena_reserve(arena, ND_F32, nd_projectors_per_step(p), size.omega, &p->omega));
    ND_TRY(nd_arena_reserve(arena, ND_F32, size.rank, size.rank, &p->rotation));
    ND_TRY(nd_arena_reserve(arena, ND_F32, size.sketch, size.sketch, &p->scratch.gram));
    ND_TRY(nd_arena_reserve(arena, ND_F32, size.rank, size.sketch, &p->scratch.coefficients));
    return allocate_host(&p->scratch, &size);
}

const nd_galore *nd_projectors_shape(const nd_projectors *p, int64_t index)
{
    return p->list[index].used ? &p->list[index].shape : NULL;
}

const nd_state *nd_projectors_state(const nd_projectors *p, int64_t index)
{
    return &p->list[index].state;
}

int64_t nd_projectors_count(const nd_projectors *p)
{
    return p->count;
}

int64_t nd_projectors_per_step(const nd_projectors *p)
{
    const int64_t every = p->config->training.galore_update_freq;
    return (p->count + every - 1) / every;
}

bool nd_projectors_due(const nd_projectors *p, int64_t index, int64_t step, int64_t *place)
{
    const projector *one = &p->list[index];
    if (!one->used)
        return false;
    const int64_t per_step = nd_projectors_per_step(p);
    if (place)
        *place = one->order % per_step;
    return (step - one->order / per_step) % p->config->training.galore_update_freq == 0;
}

int64_t nd_projectors_replacements(const nd_projectors *p, int64_t index, int64_t steps)
{
    const projector *one = &p->list[index];
    if (!one->used)
        return 0;
    const int64_t every = p->config->training.galore_update_freq;
    const int64_t first = one->order / nd_projectors_per_step(p);
    return steps > first ? 1 + (steps - 1 - first) / every : 0;
}

int64_t nd_projectors_sketch_count(const nd_projectors *p)
{
    int64_t count = 0;
    for (int64_t i = 0; i < p->params->count; i++)
        if (p->list[i].used)
            count = nd_larger(count, p->list[i].shape.sketch * nd_galore_small(&p->list[i].shape));
    return count;
}

/* The random stream of a parameter and step; step -1 is for the first subspace. */
static uint64_t stream(const nd_projectors *p, int64_t index, int64_t step, const char *purpose)
{
    char name[ND_PARAM_NAME_MAX + 32];
    snprintf(name, sizeof name, "%s.%s", purpose, p->params->list[index].name);
    return nd_rng_key(
        (uint64_t)p->config->training.seed + 0x9e3779b97f4a7c15u * (uint64_t)(step + 1), name);
}

nd_status nd_projectors_load(nd_projectors *p, int64_t index, nd_view *view)
{
    const nd_state *state = &p->list[index].state;
    return state->codec->load(p->backend, state, NULL,
                              nd_view_shaped(p->loaded, state->rows, state->cols), view);
}

static nd_status store(nd_projectors *p, int64_t index, nd_view values)
{
    const nd_state *state = &p->list[index].state;
    nd_backend *b = p->backend;
    if (state->codec == &nd_state_fp32)
        return b->ops.copy(b, state->parts[0].data, values.data,
                           nd_view_bytes(nd_as_const(values)));
    return state->codec->store(b, state, NULL, values);
}

nd_status nd_projectors_initialize(nd_projectors *p, int64_t index)
{
    const nd_galore *g = &p->list[index].shape;
    const nd_view next = nd_view_shaped(p->next, g->rank, nd_galore_small(g));
    ND_TRY(
        nd_galore_random_subspace(p->backend, next, stream(p, index, -1, "galore"), &p->scratch));
    return store(p, index, next);
}

nd_status nd_projectors_project(nd_projectors *p, int64_t index, nd_view reduced, nd_cview gradient,
                                float beta)
{
    nd_view projection;
    ND_TRY(nd_projectors_load(p, index, &projection));
    return nd_galore_project(p->backend, &p->list[index].shape, reduced, nd_as_const(projection),
                             gradient, beta);
}

nd_status nd_projectors_sketch(nd_projectors *p, int64_t index, int64_t step, nd_view y,
                               nd_cview gradient, float beta)
{
    const nd_galore *g = &p->list[index].shape;
    int64_t place;
    ND_FAIL_IF(!nd_projectors_due(p, index, step, &place), ND_EINTERNAL,
               "%s keeps its subspace in step %lld", p->params->list[index].name, (long long)step);
    const nd_view row = nd_view_rows(p->omega, place, 1);
    const nd_view omega = nd_view_shaped(row, g->sketch, nd_galore_large(g));
    if (p->omega_step[place] != step) { /* the first micro-batch */
        ND_TRY(nd_galore_random(p->backend, stream(p, index, step, "galore_sketch"), omega,
                                p->scratch.drawn));
        p->omega_step[place] = step;
    }
    return nd_galore_sketch(p->backend, g, y, nd_as_const(omega), gradient, beta);
}

nd_status nd_projectors_replace(nd_projectors *p, int64_t index, int64_t step, nd_cview y,
                                nd_view *rotation)
{
    const nd_galore *g = &p->list[index].shape;
    nd_backend *b = p->backend;
    const nd_view next = nd_view_shaped(p->next, g->rank, nd_galore_small(g));
    const nd_view before = nd_view_shaped(p->scratch.basis, g->rank, nd_galore_small(g));
    nd_view now, old;
    ND_TRY(nd_galore_subspace(b, g, next, y, stream(p, index, step, "galore"), &p->scratch));
    ND_TRY(nd_projectors_load(p, index, &old));
    ND_TRY(b->ops.copy(b, before.data, old.data, nd_view_bytes(nd_as_const(old))));
    ND_TRY(store(p, index, next));
    ND_TRY(nd_projectors_load(p, index, &now));
    *rotation = nd_view_shaped(p->rotation, g->rank, g->rank);
    return nd_galore_rotation(b, *rotation, nd_as_const(now), nd_as_const(before));
}
