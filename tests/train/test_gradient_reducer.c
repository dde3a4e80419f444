/* The gradient reducer by itself: it is given gradients of micro-batches and returns sums, their
 * norm and a verdict. */
#include "support/support.h"
#include "train/gradients/gradient_reducer.h"

#include <math.h>
#include <stdlib.h>

static struct {
    nd_config config;
    nd_comm *comm;
    nd_backend *backend;
    nd_model *model;
    nd_ownership own;
    nd_optimizer *optimizer;
    nd_gradient_reducer *reducer;
    nd_arena arena;
    double *owner_cost;
    bool *owned;
} f;

static void setup(void)
{
    nd_config *c = &f.config;
    nd_config_defaults(c);
    c->model.hidden_dim = 32;
    c->model.num_layers = 2;
    c->model.num_heads = c->model.num_kv_heads = 2;
    c->model.vocab_size = 64;
    c->training.seq_length = 8;
    c->training.batch_size = 6;
    c->training.micro_batch_size = 1;
    c->hardware.precision = ND_PRECISION_FP32;
    c->hardware.backward_precision = ND_BACKWARD_SAME;
    const nd_model_config model = nd_model_config_from(c);
    ND_ASSERT_OK(nd_comm_create_solo(&f.comm));
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &f.backend));
    ND_ASSERT_OK(nd_model_create(&model, f.backend, &f.model));
    const int64_t count = f.model->params.count;
    f.owner_cost = calloc((size_t)count, sizeof *f.owner_cost);
    f.owned = calloc((size_t)count, sizeof *f.owned);
    for (int64_t i = 0; i < count; i++)
        f.owned[i] = true;
    ND_ASSERT_OK(nd_ownership_create(f.owner_cost, count, 1, &f.own));
    ND_ASSERT_OK(nd_optimizer_create(c, &f.model->params, f.owned, f.backend, &f.optimizer));
    ND_ASSERT_OK(nd_gradient_reducer_create(c, f.comm, f.model, &f.own, f.optimizer, &f.reducer));
    nd_arena_start_sizing(&f.arena, "gradients", f.backend);
    ND_ASSERT_OK(nd_gradient_reducer_reserve(f.reducer, &f.arena));
    ND_ASSERT_OK(nd_arena_commit(&f.arena));
    ND_ASSERT_OK(nd_gradient_reducer_reserve(f.reducer, &f.arena));
}

static void teardown(void)
{
    nd_gradient_reducer_destroy(f.reducer);
    nd_optimizer_destroy(f.optimizer);
    nd_ownership_destroy(&f.own);
    nd_model_destroy(f.model);
    nd_arena_release(&f.arena);
    nd_backend_destroy(f.backend);
    nd_comm_destroy(f.comm);
    free(f.owner_cost);
    free(f.owned);
}

TestSuite(gradient_reducer, .init = setup, .fini = teardown);

/* A step of 6 micro-batches: every value of parameter i in micro-batch j is (i + 1) (j + 1), but
 * `bad` in the first of parameter `at` in the last one. */
static int64_t reduce_step(int64_t step, int64_t at, float bad)
{
    const nd_params *params = &f.model->params;
    int64_t nonfinite = -2;
    nd_gradient_reducer_begin_step(f.reducer, step, 0, 6 * step);
    for (int64_t j = 0; j < 6; j++) {
        const nd_gradient_leaf leaf = nd_gradient_reducer_begin(f.reducer, j);
        cr_assert_not(leaf.into.accumulate_layers || leaf.into.accumulate_others);
        for (int64_t i = 0; i < params->count; i++) {
            float *values = leaf.into.views[i].data;
            for (int64_t k = 0; k < nd_view_count(nd_as_const(leaf.into.views[i])); k++)
                values[k] = (float)((i + 1) * (j + 1));
            if (i == at && j == 5)
                values[0] = bad;
        }
        for (int64_t i = params->count - 1; i >= 0; i--)
            ND_ASSERT_OK(nd_gradient_reducer_add(f.reducer, i, 1));
    }
    ND_ASSERT_OK(nd_gradient_reducer_reduce(f.reducer, 0, params->count, &nonfinite));
    return nonfinite;
}

static void check_sums(void)
{
    const nd_params *params = &f.model->params;
    double squares = 0.0;
    for (int64_t i = 0; i < params->count; i++) {
        const nd_cview sum = nd_gradient_reducer_sum(f.reducer, i);
        const double expected = 21.0 * (double)(i + 1);
        cr_assert_eq(sum.rows, params->list[i].rows);
        cr_assert_eq(sum.cols, params->list[i].cols);
        for (int64_t k = 0; k < nd_view_count(sum); k++)
            cr_assert_eq(((const float *)sum.data)[k], (float)expected, "parameter %lld",
                         (long long)i);
        squares += expected * expected * (double)nd_view_count(sum);
    }
    cr_assert_float_eq(nd_gradient_reducer_norm(f.reducer), sqrt(squares), 1e-9 * sqrt(squares));
}

Test(gradient_reducer, sums_micro_batches_and_returns_their_norm)
{
    cr_assert_eq(reduce_step(0, -1, 0.0f), -1);
    check_sums();
}

Test(gradient_reducer, names_the_first_gradient_that_is_not_finite_and_forgets_it_in_the_next_step)
{
    cr_assert_eq(reduce_step(0, 5, (float)NAN), 5);
    ND_ASSERT_OK(nd_gradient_reducer_discard(f.reducer));
    cr_assert_eq(reduce_step(1, 3, (float)INFINITY), 3);
    ND_ASSERT_OK(nd_gradient_reducer_discard(f.reducer));
    cr_assert_eq(reduce_step(2, -1, 0.0f), -1);
    check_sums();
}
