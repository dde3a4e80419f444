#include "support/model_fixture.h"

#include "core/backend/cpu/reference.h"
#include "core/base/rng.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>

nd_model_config nd_model_fixture_config(nd_arch arch, nd_dtype compute)
{
    return (nd_model_config){
        .arch = arch,
        .hidden_dim = 16,
        .num_layers = 2,
        .num_heads = 4,
        .num_kv_heads = 2,
        .head_dim = 4,
        .ffn_dim = 24,
        .vocab_size = 11,
        .tied = arch == ND_ARCH_BITNET,
        .rope_base = 100.0,
        .compute = compute,
        .ternary = true,
        .activation_quant = true,
        .micro_batch = 2,
        .seq_length = 5,
    };
}

static void reserve(nd_model_fixture *f, int which)
{
    const nd_params *params = &f->model->params;
    const nd_dtype wide = nd_dtype_wide(f->model->config.compute);
    if (which == 0)
        ND_ASSERT_OK(nd_model_reserve_weights(f->model, &f->weights));
    if (which == 1)
        ND_ASSERT_OK(nd_model_reserve_activations(f->model, &f->activations, true));
    for (int64_t i = 0; which >= 2 && i < params->count; i++)
        ND_ASSERT_OK(nd_arena_reserve(which == 2 ? &f->gradient_arena : &f->master_arena, wide,
                                      params->list[i].rows, params->list[i].cols,
                                      which == 2 ? &f->gradients[i] : &f->masters[i]));
}

static void randomize(nd_model_fixture *f, uint64_t seed)
{
    for (int64_t i = 0; i < f->model->params.count; i++) {
        const nd_param *p = &f->model->params.list[i];
        const bool norm = p->role == ND_ROLE_NORM;
        for (int64_t j = 0; j < p->rows * p->cols; j++) {
            float value;
            nd_rng_normal_fill(nd_rng_key(seed, p->name), (uint64_t)j, 0.3f, &value, 1);
            nd_store(f->masters[i], j, norm ? 1.0 + (double)value : (double)value);
        }
    }
    const int64_t count = f->model->config.micro_batch * (f->model->config.seq_length + 1);
    for (int64_t i = 0; i < count; i++)
        f->tokens[i] = (int32_t)(nd_rng_uniform(nd_rng_key(seed, "tokens"), (uint64_t)i) *
                                 (double)f->model->config.vocab_size);
}

nd_model_fixture nd_model_fixture_create(const nd_model_config *config, bool reference_only,
                                         uint64_t seed)
{
    nd_model_fixture f = {0};
    const nd_cpu_backend_options options = {.threads = 1, .reference_only = reference_only};
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &f.backend));
    ND_ASSERT_OK(nd_model_create(config, f.backend, &f.model));
    const size_t count = (size_t)f.model->params.count;
    f.gradients = calloc(count, sizeof *f.gradients);
    f.masters = calloc(count, sizeof *f.masters);
    f.tokens = calloc((size_t)(config->micro_batch * (config->seq_length + 1)), sizeof *f.tokens);
    nd_arena *const arenas[] = {&f.weights, &f.activations, &f.gradient_arena, &f.master_arena};
    for (int i = 0; i < 4; i++) {
        nd_arena_start_sizing(arenas[i], "test", f.backend);
        reserve(&f, i);
        ND_ASSERT_OK(nd_arena_commit(arenas[i]));
        reserve(&f, i);
    }
    randomize(&f, seed);
    nd_model_fixture_load(&f);
    return f;
}

void nd_model_fixture_destroy(nd_model_fixture *f)
{
    nd_model_destroy(f->model);
    nd_arena_release(&f->weights);
    nd_arena_release(&f->activations);
    nd_arena_release(&f->gradient_arena);
    nd_arena_release(&f->master_arena);
    nd_backend_destroy(f->backend);
    free(f->gradients);
    free(f->masters);
    free(f->tokens);
}

void nd_model_fixture_load(nd_model_fixture *f)
{
    for (int64_t i = 0; i < f->model->params.count; i++)
        ND_ASSERT_OK(nd_model_load_weight(f->model, i, nd_as_const(f->masters[i])));
}

double nd_model_fixture_train(nd_model_fixture *f, bool accumulate)
{
    nd_loss loss;
    ND_ASSERT_OK(
        nd_model_train(f->model, f->tokens, 1.0f,
                       nd_model_gradients_into(&f->model->params, f->gradients, accumulate),
                       (nd_gradients_ready){NULL, NULL}, &loss));
    return loss.total;
}

double nd_normalized_error(nd_cview a, nd_cview b)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < nd_view_count(b); i++) {
        const double d = nd_load(a, i) - nd_load(b, i);
        difference += d * d;
        size += nd_load(b, i) * nd_load(b, i);
    }
    return sqrt(difference / (size > 0.0 ? size : 1.0));
}
