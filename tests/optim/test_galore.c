/* Subspaces: what is projected, what a sketch finds, what moves along. */
#include "core/base/rng.h"
#include "core/model/model_config.h"
#include "optim/optimizer.h"
#include "support/support.h"

#include <lapacke.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t seed = 20261123;

/* Views taken from the backend one by one, with room to find subspaces in. */
typedef struct fixture {
    nd_backend *backend;
    void *memory[32];
    size_t bytes[32];
    int taken;
    nd_galore shape;
    nd_galore_scratch scratch;
} fixture;

static nd_view take(fixture *f, int64_t rows, int64_t cols)
{
    const size_t bytes = (size_t)(rows * cols) * sizeof(float);
    cr_assert_lt(f->taken, 32);
    ND_ASSERT_OK(f->backend->ops.allocate(f->backend, bytes, &f->memory[f->taken]));
    f->bytes[f->taken] = bytes;
    return nd_view_of(f->memory[f->taken++], ND_F32, rows, cols);
}

static fixture create(int64_t rows, int64_t cols, int64_t rank)
{
    fixture f = {.shape = nd_galore_create(rows, cols, rank)};
    const nd_cpu_backend_options options = {.threads = 2};
    const nd_galore *g = &f.shape;
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &f.backend));
    f.scratch.basis = take(&f, rank, nd_galore_small(g));
    f.scratch.gram = take(&f, g->sketch, g->sketch);
    f.scratch.coefficients = take(&f, rank, g->sketch);
    f.scratch.host = calloc((size_t)nd_galore_host_doubles(g->sketch), sizeof *f.scratch.host);
    f.scratch.host_integers =
        calloc((size_t)nd_galore_host_integers(g->sketch), sizeof *f.scratch.host_integers);
    f.scratch.drawn = calloc(ND_GALORE_DRAWN, sizeof *f.scratch.drawn);
    return f;
}

static void destroy(fixture *f)
{
    for (int i = 0; i < f->taken; i++)
        f->backend->ops.release(f->backend, f->memory[i], f->bytes[i]);
    free(f->scratch.host);
    free(f->scratch.host_integers);
    free(f->scratch.drawn);
    nd_backend_destroy(f->backend);
}

static float at(nd_view v, int64_t row, int64_t col)
{
    return ((const float *)v.data)[row * v.cols + col];
}

static nd_view random_matrix(fixture *f, int64_t rows, int64_t cols, uint64_t key)
{
    const nd_view v = take(f, rows, cols);
    nd_rng_normal_fill(key, 0, 1.0f, v.data, rows * cols);
    return v;
}

/* Singular values that fall by half from one to the next, `rank` of them, on noise. */
static nd_view low_rank_with_noise(fixture *f, int64_t rank, float noise)
{
    const int64_t m = f->shape.rows, n = f->shape.cols;
    const nd_view g = random_matrix(f, m, n, seed + 1);
    const nd_view left = random_matrix(f, m, rank, seed + 2);
    const nd_view right = random_matrix(f, rank, n, seed + 3);
    float *values = g.data;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = noise * values[i * n + j];
            for (int64_t k = 0; k < rank; k++)
                sum += pow(0.5, (double)k) * (double)at(left, i, k) * (double)at(right, k, j);
            values[i * n + j] = (float)sum;
        }
    return g;
}

static void assert_orthonormal(nd_view p, double tolerance)
{
    for (int64_t i = 0; i < p.rows; i++)
        for (int64_t j = 0; j <= i; j++) {
            double dot = 0.0;
            for (int64_t k = 0; k < p.cols; k++)
                dot += (double)at(p, i, k) * (double)at(p, j, k);
            cr_assert_float_eq(dot, i == j ? 1.0 : 0.0, tolerance, "rows %d and %d: %g", (int)i,
                               (int)j, dot);
        }
}

/* A new subspace from a sketch of `gradient`. */
static nd_view find(fixture *f, nd_view gradient)
{
    const nd_galore *g = &f->shape;
    const nd_view omega = take(f, g->sketch, nd_galore_large(g));
    const nd_view y = take(f, g->sketch, nd_galore_small(g));
    const nd_view p = take(f, g->rank, nd_galore_small(g));
    ND_ASSERT_OK(nd_galore_random(f->backend, seed + 9, omega, f->scratch.drawn));
    ND_ASSERT_OK(
        nd_galore_sketch(f->backend, g, y, nd_as_const(omega), nd_as_const(gradient), 0.0f));
    ND_ASSERT_OK(nd_galore_subspace(f->backend, g, p, nd_as_const(y), seed, &f->scratch));
    return p;
}

/* sum of squares of the projection of `gradient`. */
static double captured(fixture *f, nd_view p, nd_view gradient)
{
    const nd_galore *g = &f->shape;
    const nd_view r = take(f, nd_galore_reduced_rows(g), nd_galore_reduced_cols(g));
    double sum = 0.0;
    ND_ASSERT_OK(nd_galore_project(f->backend, g, r, nd_as_const(p), nd_as_const(gradient), 0.0f));
    for (int64_t i = 0; i < r.rows * r.cols; i++)
        sum += pow((double)((const float *)r.data)[i], 2.0);
    return sum;
}

/* sum of the squares of the largest `rank` singular values. */
static double best(nd_view gradient, int64_t rank)
{
    const int64_t m = gradient.rows, n = gradient.cols, small = m < n ? m : n;
    double *a = malloc((size_t)(m * n) * sizeof *a), *s = malloc((size_t)small * sizeof *s);
    double none, sum = 0.0;
    for (int64_t i = 0; i < m * n; i++)
        a[i] = (double)((const float *)gradient.data)[i];
    cr_assert_eq(LAPACKE_dgesdd(LAPACK_ROW_MAJOR, 'N', (lapack_int)m, (lapack_int)n, a,
                                (lapack_int)n, s, &none, (lapack_int)m, &none, (lapack_int)n),
                 0);
    for (int64_t i = 0; i < rank; i++)
        sum += s[i] * s[i];
    free(a);
    free(s);
    return sum;
}

static const int64_t sides[2][2] = {{96, 200}, {200, 96}};

Test(galore, projection_and_its_way_back_are_products_with_the_projector)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 24);
        const nd_galore *g = &f.shape;
        const nd_view gradient = random_matrix(&f, g->rows, g->cols, seed);
        const nd_view p = random_matrix(&f, 24, 96, seed + 1);
        const nd_view r = take(&f, nd_galore_reduced_rows(g), nd_galore_reduced_cols(g));
        const nd_view u = take(&f, g->rows, g->cols);
        ND_ASSERT_OK(
            nd_galore_project(f.backend, g, r, nd_as_const(p), nd_as_const(gradient), 0.0f));
        ND_ASSERT_OK(
            nd_galore_project(f.backend, g, r, nd_as_const(p), nd_as_const(gradient), 1.0f));
        for (int64_t i = 0; i < r.rows; i++)
            for (int64_t j = 0; j < r.cols; j++) {
                double sum = 0.0;
                for (int64_t k = 0; k < 96; k++)
                    sum += side == 0 ? (double)at(p, i, k) * (double)at(gradient, k, j)
                                     : (double)at(gradient, i, k) * (double)at(p, j, k);
                cr_assert_float_eq(at(r, i, j), 2.0 * sum, 1e-3);
            }
        ND_ASSERT_OK(nd_galore_lift(f.backend, g, u, nd_as_const(p), nd_as_const(r), -0.5f));
        for (int64_t i = 0; i < u.rows; i++)
            for (int64_t j = 0; j < u.cols; j++) {
                double sum = 0.0;
                for (int64_t k = 0; k < 24; k++)
                    sum += side == 0 ? (double)at(p, k, i) * (double)at(r, k, j)
                                     : (double)at(r, i, k) * (double)at(p, k, j);
                cr_assert_float_eq(at(u, i, j), -0.5 * sum, 1e-2);
            }
        destroy(&f);
    }
}

Test(galore, a_sketch_finds_what_the_exact_decomposition_finds_in_a_low_rank_gradient)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 12);
        const nd_view gradient = low_rank_with_noise(&f, 12, 0.0001f);
        const nd_view p = find(&f, gradient);
        assert_orthonormal(p, 1e-5);
        cr_assert_gt(captured(&f, p, gradient), (1.0 - 1e-5) * best(gradient, 12));
        destroy(&f);
    }
}

Test(galore, in_noise_it_finds_nearly_as_much)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 12);
        const nd_view gradient = low_rank_with_noise(&f, 6, 0.05f);
        const nd_view p = find(&f, gradient);
        const double found = captured(&f, p, gradient), most = best(gradient, 12);
        cr_assert_gt(found, 0.995 * most, "%g of %g", found, most);
        cr_assert_lt(found, 1.000001 * most);
        destroy(&f);
    }
}

Test(galore, sketches_of_parts_add_up_to_the_sketch_of_the_sum)
{
    fixture f = create(200, 96, 12);
    const nd_galore *g = &f.shape;
    const nd_view a = random_matrix(&f, 200, 96, seed), b = random_matrix(&f, 200, 96, seed + 1);
    const nd_view omega = random_matrix(&f, g->sketch, 200, seed + 2);
    const nd_view parts = take(&f, g->sketch, 96), whole = take(&f, g->sketch, 96);
    ND_ASSERT_OK(nd_galore_sketch(f.backend, g, parts, nd_as_const(omega), nd_as_const(a), 0.0f));
    ND_ASSERT_OK(nd_galore_sketch(f.backend, g, parts, nd_as_const(omega), nd_as_const(b), 1.0f));
    ND_ASSERT_OK(f.backend->ops.axpby(f.backend, a, 1.0f, nd_as_const(b), 1.0f));
    ND_ASSERT_OK(nd_galore_sketch(f.backend, g, whole, nd_as_const(omega), nd_as_const(a), 0.0f));
    for (int64_t i = 0; i < g->sketch; i++)
        for (int64_t j = 0; j < 96; j++)
            cr_assert_float_eq(at(parts, i, j), at(whole, i, j), 1e-3);
    destroy(&f);
}

Test(galore, directions_that_a_gradient_lacks_are_random_and_orthonormal)
{
    fixture f = create(96, 200, 24);
    const nd_view five = low_rank_with_noise(&f, 5, 0.0f);
    const nd_view p = find(&f, five);
    assert_orthonormal(p, 1e-5);
    cr_assert_gt(captured(&f, p, five), 0.99999 * best(five, 24));
    const nd_view zero = take(&f, 96, 200);
    assert_orthonormal(find(&f, zero), 1e-5);
    destroy(&f);
}

Test(galore, coordinates_turned_into_the_next_subspace_are_the_projection_onto_it)
{
    for (int side = 0; side < 2; side++) {
        fixture f = create(sides[side][0], sides[side][1], 24);
        const nd_galore *g = &f.shape;
        const int64_t rows = nd_galore_reduced_rows(g), cols = nd_galore_reduced_cols(g);
        const nd_view old = take(&f, 24, 96), next = take(&f, 24, 96), c = take(&f, 24, 24);
        const nd_view m = random_matrix(&f, rows, cols, seed + 3);
        const nd_view moved = take(&f, rows, cols), expected = take(&f, rows, cols);
        const nd_view full = take(&f, g->rows, g->cols);
        ND_ASSERT_OK(nd_galore_random_subspace(f.backend, g, old, seed, &f.scratch));
        ND_ASSERT_OK(nd_galore_random_subspace(f.backend, g, next, seed + 1, &f.scratch));
        assert_orthonormal(old, 1e-5);
        ND_ASSERT_OK(nd_galore_rotation(f.backend, c, nd_as_const(next), nd_as_const(old)));
        ND_ASSERT_OK(nd_galore_rotate(f.backend, g, moved, nd_as_const(c), nd_as_const(m)));
        ND_ASSERT_OK(nd_galore_lift(f.backend, g, full, nd_as_const(old), nd_as_const(m), 1.0f));
        ND_ASSERT_OK(
            nd_galore_project(f.backend, g, expected, nd_as_const(next), nd_as_const(full), 0.0f));
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++)
                cr_assert_float_eq(at(moved, i, j), at(expected, i, j), 1e-4);
        destroy(&f);
    }
}

/* -- the optimizer with projected matrices --------------------------------------------------- */

typedef struct owner {
    nd_config config;
    nd_params params;
    nd_backend *backend;
    nd_optimizer *optimizer;
    nd_arena arena;
    nd_view master, reduced, y;
    int64_t index; /* of the matrix that is updated */
} owner;

static nd_status lay_out(owner *o)
{
    const nd_param *p = &o->params.list[o->index];
    const nd_galore *g = nd_projectors_shape(nd_optimizer_projectors(o->optimizer), o->index);
    ND_TRY(nd_arena_reserve(&o->arena, ND_F32, p->rows, p->cols, &o->master));
    ND_TRY(nd_arena_reserve(&o->arena, ND_F32, nd_galore_reduced_rows(g), nd_galore_reduced_cols(g),
                            &o->reduced));
    ND_TRY(nd_arena_reserve(&o->arena, ND_F32, g->sketch, nd_galore_small(g), &o->y));
    return nd_optimizer_reserve(o->optimizer, &o->arena);
}

/* 2 layers of 128 with feed-forward width 384, rank 32, in fp32. */
static void create_owner(owner *o, const char *name, const char *const *sets)
{
    static const char *const common[] = {"model.hidden_dim=128",
                                         "model.num_layers=2",
                                         "model.ffn_mult=3",
                                         "model.vocab_size=64",
                                         "training.use_galore=true",
                                         "training.galore_rank=32",
                                         "training.galore_update_freq=4",
                                         "training.warmup_steps=0",
                                         "hardware.precision=fp32",
                                         NULL};
    const nd_cpu_backend_options options = {.threads = 2};
    memset(o, 0, sizeof *o);
    nd_config_defaults(&o->config);
    for (int i = 0; common[i]; i++)
        ND_ASSERT_OK(nd_config_set(&o->config, common[i], "test"));
    for (int i = 0; sets && sets[i]; i++)
        ND_ASSERT_OK(nd_config_set(&o->config, sets[i], "test"));
    const nd_model_config model = nd_model_config_from(&o->config);
    ND_ASSERT_OK(nd_params_create(&model, &o->params));
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &o->backend));
    o->index = nd_params_find(&o->params, name);
    bool owned[o->params.count];
    for (int64_t i = 0; i < o->params.count; i++)
        owned[i] = i == o->index;
    ND_ASSERT_OK(nd_optimizer_create(&o->config, &o->params, owned, o->backend, &o->optimizer));
    nd_arena_start_sizing(&o->arena, "test", o->backend);
    ND_ASSERT_OK(lay_out(o));
    ND_ASSERT_OK(nd_arena_commit(&o->arena));
    ND_ASSERT_OK(lay_out(o));
    ND_ASSERT_OK(nd_projectors_initialize(nd_optimizer_projectors(o->optimizer), o->index));
    nd_rng_normal_fill(seed, 0, 1.0f, o->master.data, o->master.rows * o->master.cols);
    nd_rng_normal_fill(seed + 1, 0, 0.01f, o->reduced.data, o->reduced.rows * o->reduced.cols);
    nd_rng_normal_fill(seed + 2, 0, 1.0f, o->y.data, o->y.rows * o->y.cols);
}

static void destroy_owner(owner *o)
{
    nd_optimizer_destroy(o->optimizer);
    nd_arena_release(&o->arena);
    nd_params_destroy(&o->params);
    nd_backend_destroy(o->backend);
}

static nd_view state_of(owner *o, const char *name)
{
    nd_optimizer_state states[ND_OPTIMIZER_STATES_MAX];
    const int count = nd_optimizer_states(o->optimizer, o->index, states);
    for (int i = 0; i < count; i++)
        if (strcmp(states[i].name, name) == 0)
            return states[i].view;
    cr_assert(false, "no state %s", name);
    return (nd_view){0};
}

static const char *const no_decay[] = {"training.weight_decay=0", NULL};

/* What is subtracted lies in the subspace, and has the root mean square `size`. */
static void check_update(const char *name, const char *const *sets, double size)
{
    owner o;
    create_owner(&o, name, sets);
    const nd_galore *g = nd_projectors_shape(nd_optimizer_projectors(o.optimizer), o.index);
    const int64_t m = o.master.rows, n = o.master.cols;
    float *before = malloc((size_t)(m * n) * sizeof *before);
    memcpy(before, o.master.data, (size_t)(m * n) * sizeof *before);
    ND_ASSERT_OK(
        nd_optimizer_update(o.optimizer, o.index, o.master, nd_as_const(o.reduced), 1.0f, 0));
    double squares = 0.0, inside = 0.0, along = 0.0;
    for (int64_t i = 0; i < m * n; i++) {
        before[i] -= ((const float *)o.master.data)[i];
        squares += (double)before[i] * (double)before[i];
    }
    const nd_view p = state_of(&o, "projector");
    const bool left = nd_galore_left(g);
    const int64_t rows = left ? p.rows : m, cols = left ? n : p.rows;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < p.cols; k++)
                sum += left ? (double)at(p, i, k) * (double)before[k * n + j]
                            : (double)before[i * n + k] * (double)at(p, j, k);
            inside += sum * sum;
            along += sum * (double)at(o.reduced, i, j);
        }
    cr_assert_float_eq(inside, squares, 1e-4 * squares, "%g of %g lies in the subspace", inside,
                       squares);
    cr_assert_gt(along, 0.0, "the step goes up");
    const double rms = sqrt(squares / (double)(m * n));
    cr_assert_float_eq(rms, size, 0.15 * size, "%g, expected %g", rms, size);
    free(before);
    destroy_owner(&o);
}

/* A quarter of the singular values of a full-rank update, as large as those. */
Test(galore, updates_of_muon_lie_in_the_subspace)
{
    check_update("blk.1.ffn_gate.weight", no_decay, 0.02 * 0.2 * 0.9 / 2);
    check_update("blk.1.ffn_down.weight", no_decay, 0.02 * 0.2 * 0.9 / 2);
}

Test(galore, so_do_those_of_adamw)
{
    static const char *const adamw[] = {"training.weight_decay=0", "training.optimizer_type=adamw",
                                        "optimizer.galore_scale=2", NULL};
    check_update("blk.1.ffn_gate.weight", adamw, 0.02);
    check_update("blk.1.ffn_down.weight", adamw, 0.02);
}

/* The two parts have orthogonal columns (rows) and as many singular values near 1 as a full update. */
Test(galore, with_the_residual_an_update_is_as_large_as_a_full_one)
{
    static const char *const residual[] = {"training.weight_decay=0", "optimizer.galore_residual=1",
                                           NULL};
    static const char *const names[] = {"blk.1.ffn_gate.weight", "blk.1.ffn_down.weight"};
    for (int side = 0; side < 2; side++) {
        owner o;
        create_owner(&o, names[side], residual);
        const int64_t m = o.master.rows, n = o.master.cols, small = m < n ? m : n;
        const size_t bytes = (size_t)(m * n) * sizeof(float);
        float *gradient = malloc(bytes), *before = malloc(bytes);
        cr_assert_eq(nd_optimizer_takes_projected(o.optimizer, o.index), false);
        nd_rng_normal_fill(seed + 5, 0, 0.01f, gradient, m * n);
        memcpy(before, o.master.data, bytes);
        ND_ASSERT_OK(nd_optimizer_update(o.optimizer, o.index, o.master,
                                         nd_cview_of(gradient, ND_F32, m, n), 1.0f, 0));
        for (int64_t i = 0; i < m * n; i++)
            before[i] -= ((const float *)o.master.data)[i];
        const nd_view update = nd_view_of(before, ND_F32, m, n);
        const double step = 0.02 * 0.2 * sqrt((double)(m > n ? m : n));
        const double all = best(update, small);
        cr_assert_float_eq(sqrt(all / (double)small), step, 0.2 * step);
        const nd_view p = state_of(&o, "projector");
        fixture f = create(m, n, 32);
        const double inside = captured(&f, p, update);
        cr_assert_float_eq(inside / all, 32.0 / (double)small, 0.03, "%g of %g", inside, all);
        destroy(&f);
        free(gradient);
        free(before);
        destroy_owner(&o);
    }
}

/* The momentum in full before and after: its part in the new subspace stays, the rest goes. */
static void check_move(const char *name)
{
    owner o;
    create_owner(&o, name, no_decay);
    nd_projectors *projectors = nd_optimizer_projectors(o.optimizer);
    fixture f = create(o.master.rows, o.master.cols, 32);
    const nd_galore *g = nd_projectors_shape(projectors, o.index);
    const nd_view full = take(&f, g->rows, g->cols);
    const nd_view expected = take(&f, o.reduced.rows, o.reduced.cols);
    ND_ASSERT_OK(
        nd_optimizer_update(o.optimizer, o.index, o.master, nd_as_const(o.reduced), 1.0f, 0));
    ND_ASSERT_OK(nd_galore_lift(o.backend, g, full, nd_as_const(state_of(&o, "projector")),
                                nd_as_const(state_of(&o, "momentum")), 1.0f));
    ND_ASSERT_OK(nd_optimizer_replace_subspace(o.optimizer, o.index, 0, nd_as_const(o.y)));
    assert_orthonormal(state_of(&o, "projector"), 1e-5);
    ND_ASSERT_OK(nd_galore_project(o.backend, g, expected, nd_as_const(state_of(&o, "projector")),
                                   nd_as_const(full), 0.0f));
    const nd_view moved = state_of(&o, "momentum");
    for (int64_t i = 0; i < moved.rows; i++)
        for (int64_t j = 0; j < moved.cols; j++)
            cr_assert_float_eq(at(moved, i, j), at(expected, i, j), 1e-6);
    destroy(&f);
    destroy_owner(&o);
}

Test(galore, the_momentum_moves_into_the_new_subspace)
{
    check_move("blk.0.ffn_up.weight");
    check_move("blk.0.ffn_down.weight");
}

/* A state in 8 bits as it stands for: blocks of `ND_STATE_LINEAR_BLOCK`. */
static nd_view decoded(owner *o, fixture *f, const char *name, int64_t rows, int64_t cols)
{
    char codes_name[64], scales_name[64];
    snprintf(codes_name, sizeof codes_name, "%s_codes", name);
    snprintf(scales_name, sizeof scales_name, "%s_scales", name);
    const int8_t *codes = state_of(o, codes_name).data;
    const float *scales = state_of(o, scales_name).data;
    const nd_view out = take(f, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)out.data)[i] = scales[i / ND_STATE_LINEAR_BLOCK] * (float)codes[i] / 127.0f;
    return out;
}

Test(galore, momentum_in_8_bits_moves_into_a_subspace_in_8_bits)
{
    static const char *const eight[] = {"training.weight_decay=0", "training.use_8bit_optim=true",
                                        NULL};
    static const char *const names[] = {"blk.0.ffn_up.weight", "blk.0.ffn_down.weight"};
    for (int side = 0; side < 2; side++) {
        owner o;
        create_owner(&o, names[side], eight);
        fixture f = create(o.master.rows, o.master.cols, 32);
        const nd_galore *g = nd_projectors_shape(nd_optimizer_projectors(o.optimizer), o.index);
        const int64_t rows = o.reduced.rows, cols = o.reduced.cols;
        const nd_view full = take(&f, g->rows, g->cols), expected = take(&f, rows, cols);
        ND_ASSERT_OK(
            nd_optimizer_update(o.optimizer, o.index, o.master, nd_as_const(o.reduced), 1.0f, 0));
        const nd_view before = decoded(&o, &f, "momentum", rows, cols);
        const nd_view old = decoded(&o, &f, "projector", 32, nd_galore_small(g));
        ND_ASSERT_OK(
            nd_galore_lift(o.backend, g, full, nd_as_const(old), nd_as_const(before), 1.0f));
        ND_ASSERT_OK(nd_optimizer_replace_subspace(o.optimizer, o.index, 0, nd_as_const(o.y)));
        const nd_view p = decoded(&o, &f, "projector", 32, nd_galore_small(g));
        ND_ASSERT_OK(
            nd_galore_project(o.backend, g, expected, nd_as_const(p), nd_as_const(full), 0.0f));
        const nd_view moved = decoded(&o, &f, "momentum", rows, cols);
        double difference = 0.0, size = 0.0, change = 0.0;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++) {
                difference += pow((double)(at(moved, i, j) - at(expected, i, j)), 2.0);
                change += pow((double)(at(moved, i, j) - at(before, i, j)), 2.0);
                size += pow((double)at(expected, i, j), 2.0);
            }
        cr_assert_gt(change, 0.5 * size, "the momentum stayed where it was");
        cr_assert_lt(sqrt(difference / size), 0.02, "%g", sqrt(difference / size));
        destroy(&f);
        destroy_owner(&o);
    }
}

Test(galore, adamws_second_moment_stays_positive_when_it_moves)
{
    static const char *const adamw[] = {"training.optimizer_type=adamw", NULL};
    owner o;
    create_owner(&o, "blk.0.attn_q.weight", adamw);
    ND_ASSERT_OK(
        nd_optimizer_update(o.optimizer, o.index, o.master, nd_as_const(o.reduced), 1.0f, 0));
    ND_ASSERT_OK(nd_optimizer_replace_subspace(o.optimizer, o.index, 0, nd_as_const(o.y)));
    const nd_view v = state_of(&o, "moment2");
    for (int64_t i = 0; i < v.rows * v.cols; i++)
        cr_assert_gt(((const float *)v.data)[i], 0.0f);
    destroy_owner(&o);
}

Test(galore, projectors_in_8_bits_are_nearly_orthonormal)
{
    static const char *const bits[] = {"optimizer.galore_projector_bits=8", NULL};
    owner o;
    nd_view p;
    create_owner(&o, "blk.0.attn_q.weight", bits);
    cr_assert_eq(state_of(&o, "projector_codes").dtype, ND_I8);
    ND_ASSERT_OK(nd_projectors_load(nd_optimizer_projectors(o.optimizer), o.index, &p));
    assert_orthonormal(p, 0.02);
    destroy_owner(&o);
}

Test(galore, every_matrix_gets_its_new_subspace_once_in_so_many_steps)
{
    owner o;
    create_owner(&o, "blk.0.attn_q.weight", NULL);
    const nd_projectors *p = nd_optimizer_projectors(o.optimizer);
    const int64_t per_step = nd_projectors_per_step(p);
    cr_assert_eq(per_step, 4); /* 14 matrices, 4 steps */
    int times[o.params.count];
    memset(times, 0, sizeof times);
    for (int64_t step = 8; step < 12; step++) {
        bool taken[4] = {false};
        for (int64_t i = 0; i < o.params.count; i++) {
            int64_t place = -1;
            if (!nd_projectors_due(p, i, step, &place))
                continue;
            times[i]++;
            cr_assert(place >= 0 && place < per_step && !taken[place], "two at place %d",
                      (int)place);
            taken[place] = true;
        }
    }
    for (int64_t i = 0; i < o.params.count; i++)
        cr_assert_eq(times[i], nd_projectors_shape(p, i) != NULL, "%s: %d times",
                     o.params.list[i].name, times[i]);
    destroy_owner(&o);
}

Test(galore, matrices_with_a_side_up_to_the_rank_stay_full_rank)
{
    static const char *const rank[] = {"training.galore_rank=64", NULL};
    owner o;
    create_owner(&o, "blk.0.attn_q.weight", rank); /* 8 heads over 4: keys are 64 wide */
    const nd_projectors *p = nd_optimizer_projectors(o.optimizer);
    for (int64_t i = 0; i < o.params.count; i++) {
        const nd_param *param = &o.params.list[i];
        const int64_t side = param->rows < param->cols ? param->rows : param->cols;
        cr_assert_eq(nd_projectors_shape(p, i) != NULL, side > 64, "%s", param->name);
    }
    destroy_owner(&o);
}
