/* The optimizer with projected matrices: updates in the subspace, and state that moves into the
 * next one. */
#include "core/model/model_config.h"
#include "optim/galore_fixture.h"

#include <stdio.h>

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

/* The master after 20 steps from zero with the same gradient. Whatever the betas, its moments are
 * its mean and its square. */
static void move(owner *o, const char *beta1, const char *beta2)
{
    const char *const sets[] = {"training.optimizer_type=adamw", "training.weight_decay=0", beta1,
                                beta2, NULL};
    create_owner(o, "blk.1.ffn_gate.weight", sets);
    memset(o->master.data, 0, nd_view_bytes(nd_as_const(o->master)));
    for (int step = 0; step < 20; step++)
        ND_ASSERT_OK(nd_optimizer_update(o->optimizer, o->index, o->master, nd_as_const(o->reduced),
                                         1.0f, step));
}

Test(galore_updates, adamws_moments_have_no_bias_with_betas_near_1)
{
    owner exact, near;
    double squares = 0.0, errors = 0.0;
    move(&exact, "optimizer.adam_beta1=0.5", "optimizer.adam_beta2=0.5");
    move(&near, "optimizer.adam_beta1=0.999", "optimizer.adam_beta2=0.99999");
    for (int64_t i = 0; i < exact.master.rows * exact.master.cols; i++) {
        const double w = ((const float *)exact.master.data)[i];
        const double error = w - (double)((const float *)near.master.data)[i];
        squares += w * w;
        errors += error * error;
    }
    cr_assert_lt(sqrt(errors / squares), 2e-6, "%g", sqrt(errors / squares));
    destroy_owner(&exact);
    destroy_owner(&near);
}

/* A quarter of the singular values of a full-rank update, as large as those. */
Test(galore_updates, updates_of_muon_lie_in_the_subspace)
{
    check_update("blk.1.ffn_gate.weight", no_decay, 0.02 * 0.2 * 0.9 / 2);
    check_update("blk.1.ffn_down.weight", no_decay, 0.02 * 0.2 * 0.9 / 2);
}

Test(galore_updates, so_do_those_of_adamw)
{
    static const char *const adamw[] = {"training.weight_decay=0", "training.optimizer_type=adamw",
                                        "optimizer.galore_scale=2", NULL};
    check_update("blk.1.ffn_gate.weight", adamw, 0.02);
    check_update("blk.1.ffn_down.weight", adamw, 0.02);
}

/* The two parts have orthogonal columns (rows) and as many singular values near 1 as a
 * full update. */
Test(galore_updates, with_the_residual_an_update_is_as_large_as_a_full_one)
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

Test(galore_updates, the_momentum_moves_into_the_new_subspace)
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

Test(galore_updates, momentum_in_8_bits_moves_into_a_subspace_in_8_bits)
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

Test(galore_updates, adamws_second_moment_stays_positive_when_it_moves)
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

Test(galore_updates, projectors_in_8_bits_are_nearly_orthonormal)
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

Test(galore_updates, every_matrix_gets_its_new_subspace_once_in_so_many_steps)
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

Test(galore_updates, matrices_with_a_side_up_to_the_rank_stay_full_rank)
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
