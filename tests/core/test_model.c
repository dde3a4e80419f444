/* The whole model: gradients against finite differences in double, and the ways of computing it
 * against each other. */
#include "core/backend/cpu/reference.h"
#include "core/base/rng.h"
#include "core/model/generate.h"
#include "support/model_fixture.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t seed = 20;

/* Summed total loss at the fixture's masters. */
static double loss_at(nd_model_fixture *f)
{
    nd_loss loss;
    nd_model_fixture_load(f);
    ND_ASSERT_OK(nd_model_evaluate(f->model, f->tokens, f->model->config.micro_batch, &loss));
    return loss.total;
}

/* Central difference with Richardson's extrapolation: error of order h^4. */
static double numeric_derivative(nd_model_fixture *f, nd_view master, int64_t at,
                                 double (*loss)(nd_model_fixture *f))
{
    const double original = nd_load(nd_as_const(master), at), h = 1e-3;
    double slope[2];
    for (int i = 0; i < 2; i++) {
        const double step = h / (1 << i);
        nd_store(master, at, original + step);
        const double above = loss(f);
        nd_store(master, at, original - step);
        slope[i] = (above - loss(f)) / (2.0 * step);
    }
    nd_store(master, at, original);
    return (4.0 * slope[1] - slope[0]) / 3.0;
}

/* The numeric derivative of total loss where extra heads take part: they run in training alone. */
static double training_loss_at(nd_model_fixture *f)
{
    nd_model_fixture_load(f);
    return nd_model_fixture_train(f, false);
}

/* The largest error of any parameter's gradient, relative to that gradient's size: some `samples`
 * elements of each are differentiated numerically. Training overwrites gradients, so those at the
 * masters are kept aside. */
static void check_derivatives(nd_model_fixture *f, int64_t samples,
                              double (*loss)(nd_model_fixture *f))
{
    nd_model_fixture_train(f, false);
    for (int64_t i = 0; i < f->model->params.count; i++) {
        const nd_param *p = &f->model->params.list[i];
        const int64_t count = p->rows * p->cols;
        double exact[count], difference = 0.0, size = 0.0;
        for (int64_t j = 0; j < count; j++)
            exact[j] = nd_load(nd_as_const(f->gradients[i]), j);
        for (int64_t j = 0; j < count; j += count / samples + 1) {
            const double numeric = numeric_derivative(f, f->masters[i], j, loss);
            difference += (exact[j] - numeric) * (exact[j] - numeric);
            size += exact[j] * exact[j];
        }
        loss(f);
        cr_assert(size > 0.0, "%s: the gradient is zero", p->name);
        cr_assert(sqrt(difference / size) <= 1e-6, "%s: relative error %g", p->name,
                  sqrt(difference / size));
    }
}

static void check_gradients(nd_arch arch, bool tied, int offsets)
{
    nd_model_config config = nd_model_fixture_config(arch, ND_F64);
    config.ternary = config.activation_quant = false;
    config.tied = tied;
    config.loss = (nd_cross_entropy_params){
        .label_smoothing = 0.1f, .z_loss_weight = 0.01f, .entropy_weight = 0.02f};
    if (offsets > 1) {
        config.loss.offsets = offsets;
        config.loss.offset_weight[1] = 0.5f;
        config.loss.offset_weight[2] = 0.25f;
    }
    nd_model_fixture f = nd_model_fixture_create(&config, true, seed);
    check_derivatives(&f, 12, loss_at);
    nd_model_fixture_destroy(&f);
}

Test(model, gradients_of_bitnet_match_finite_differences)
{
    check_gradients(ND_ARCH_BITNET, true, 1);
}

Test(model, gradients_of_llama_match_finite_differences)
{
    check_gradients(ND_ARCH_LLAMA, false, 1);
}

Test(model, gradients_of_tied_llama_match_finite_differences)
{
    check_gradients(ND_ARCH_LLAMA, true, 1);
}

Test(model, gradients_with_several_tokens_ahead_match_finite_differences)
{
    check_gradients(ND_ARCH_BITNET, true, 3);
}

static void check_extra_heads(nd_mtp_form form, nd_arch arch, int ahead)
{
    nd_model_config config = nd_model_fixture_config(arch, ND_F64);
    config.ternary = config.activation_quant = false;
    config.mtp_form = form;
    config.mtp_tokens = ahead;
    config.loss = (nd_cross_entropy_params){
        .label_smoothing = 0.1f, .z_loss_weight = 0.01f, .offset_weight = {0, 0.5f, 0.25f}};
    nd_model_fixture f = nd_model_fixture_create(&config, true, seed);
    check_derivatives(&f, 5, training_loss_at);
    nd_model_fixture_destroy(&f);
}

Test(model, gradients_of_separate_heads_match_finite_differences)
{
    check_extra_heads(ND_MTP_SEPARATE, ND_ARCH_BITNET, 3);
    check_extra_heads(ND_MTP_SEPARATE, ND_ARCH_LLAMA, 2);
}

Test(model, gradients_of_sequential_blocks_match_finite_differences)
{
    check_extra_heads(ND_MTP_SEQUENTIAL, ND_ARCH_BITNET, 3);
    check_extra_heads(ND_MTP_SEQUENTIAL, ND_ARCH_LLAMA, 2);
}

Test(model, extra_heads_add_up_over_micro_batches)
{
    for (int form = ND_MTP_SEQUENTIAL; form <= ND_MTP_SEPARATE; form++) {
        nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F64);
        config.mtp_form = (nd_mtp_form)form;
        config.mtp_tokens = 3;
        config.loss.offset_weight[1] = 0.5f; /* the second extra head is off */
        nd_model_fixture once = nd_model_fixture_create(&config, true, seed);
        nd_model_fixture twice = nd_model_fixture_create(&config, true, seed);
        nd_model_fixture_train(&once, false);
        nd_model_fixture_train(&twice, false);
        nd_model_fixture_train(&twice, true);
        for (int64_t i = 0; i < once.model->params.count; i++)
            for (int64_t j = 0; j < nd_view_count(nd_as_const(once.gradients[i])); j++) {
                const double one = nd_load(nd_as_const(once.gradients[i]), j);
                cr_assert_float_eq(nd_load(nd_as_const(twice.gradients[i]), j), 2.0 * one,
                                   1e-9 * (fabs(one) + 1e-3));
                if (i >= nd_params_mtp_first(&once.model->params, 1))
                    cr_assert_eq(one, 0.0, "a head without weight has a gradient");
            }
        nd_model_fixture_destroy(&once);
        nd_model_fixture_destroy(&twice);
    }
}

static void assert_same_bits(nd_model_fixture *a, nd_model_fixture *b)
{
    for (int64_t i = 0; i < a->model->params.count; i++)
        cr_assert_eq(memcmp(a->gradients[i].data, b->gradients[i].data,
                            nd_view_bytes(nd_as_const(a->gradients[i]))),
                     0, "%s differs", a->model->params.list[i].name);
}

Test(model, packed_ternary_weights_give_the_same_gradients_to_the_bit_in_less_memory)
{
    for (int arch = 0; arch < 2; arch++) {
        nd_model_config config = nd_model_fixture_config((nd_arch)arch, ND_BF16);
        config.num_layers = 4;
        nd_model_fixture bytes = nd_model_fixture_create(&config, false, seed);
        config.pack_ternary_weights = true;
        nd_model_fixture packed = nd_model_fixture_create(&config, false, seed);
        cr_assert_eq(nd_model_fixture_train(&bytes, false), nd_model_fixture_train(&packed, false));
        assert_same_bits(&bytes, &packed);
        cr_assert_lt(packed.weights.size, bytes.weights.size);
        nd_model_fixture_destroy(&bytes);
        nd_model_fixture_destroy(&packed);
    }
}

/* Rounding to 8 bits moves a gradient by about a hundredth; the head's and what does not pass a
 * ternary product stay what they were. */
Test(model, gradients_in_8_bits_are_near_whole_ones)
{
    for (int arch = 0; arch < 2; arch++) {
        nd_model_config config = nd_model_fixture_config((nd_arch)arch, ND_F32);
        config.mtp_form = ND_MTP_SEQUENTIAL;
        config.mtp_tokens = 2;
        config.loss.offset_weight[1] = 1.0f;
        nd_model_fixture whole = nd_model_fixture_create(&config, false, seed);
        config.int8_gradients = true;
        nd_model_fixture rounded = nd_model_fixture_create(&config, false, seed);
        cr_assert_eq(nd_model_fixture_train(&whole, false),
                     nd_model_fixture_train(&rounded, false));
        for (int64_t i = 0; i < whole.model->params.count; i++) {
            const double error = nd_normalized_error(nd_as_const(rounded.gradients[i]),
                                                     nd_as_const(whole.gradients[i]));
            cr_assert(error > 1e-4 || whole.model->params.list[i].role != ND_ROLE_TERNARY,
                      "%s has not moved", whole.model->params.list[i].name);
            cr_assert_lt(error, 0.03, "%s is off by %.3g", whole.model->params.list[i].name, error);
        }
        nd_model_fixture_destroy(&whole);
        nd_model_fixture_destroy(&rounded);
    }
}

Test(model, checkpointing_gives_the_same_gradients_to_the_bit)
{
    for (int arch = 0; arch < 2; arch++) {
        nd_model_config config = nd_model_fixture_config((nd_arch)arch, ND_BF16);
        nd_model_fixture plain = nd_model_fixture_create(&config, false, seed);
        config.recompute = ND_RECOMPUTE_FFN;
        nd_model_fixture narrow = nd_model_fixture_create(&config, false, seed);
        config.recompute = ND_RECOMPUTE_LAYER;
        nd_model_fixture lean = nd_model_fixture_create(&config, false, seed);
        config.recompute = ND_RECOMPUTE_ATTENTION;
        nd_model_fixture leanest = nd_model_fixture_create(&config, false, seed);
        const double loss = nd_model_fixture_train(&plain, false);
        cr_assert_eq(nd_model_fixture_train(&narrow, false), loss);
        cr_assert_eq(nd_model_fixture_train(&lean, false), loss);
        cr_assert_eq(nd_model_fixture_train(&leanest, false), loss);
        assert_same_bits(&plain, &narrow);
        assert_same_bits(&plain, &lean);
        assert_same_bits(&plain, &leanest);
        cr_assert_lt(narrow.activations.size, plain.activations.size);
        cr_assert_lt(lean.activations.size, narrow.activations.size);
        cr_assert_lt(leanest.activations.size, lean.activations.size);
        nd_model_fixture_destroy(&plain);
        nd_model_fixture_destroy(&narrow);
        nd_model_fixture_destroy(&lean);
        nd_model_fixture_destroy(&leanest);
    }
}

/* 96 rows of 160 at once, or all of them; and the arena counts them. */
Test(model, a_device_computes_more_rows_of_logits_at_once_and_their_memory_is_counted)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    config.vocab_size = 34000;
    config.micro_batch = 32;
    nd_model_fixture host = nd_model_fixture_create(&config, false, seed);
    config.on_device = true;
    nd_model_fixture device = nd_model_fixture_create(&config, false, seed);
    cr_assert_eq(nd_model_logit_rows(&host.model->config), 96);
    cr_assert_eq(nd_model_logit_rows(&device.model->config), 160);
    cr_assert_geq(device.activations.size - host.activations.size,
                  (size_t)(160 - 96) * 34000 * sizeof(float));
    const double loss = nd_model_fixture_train(&host, false);
    cr_assert_float_eq(nd_model_fixture_train(&device, false), loss, 1e-6 * loss);
    for (int64_t i = 0; i < host.model->params.count; i++)
        cr_assert_lt(
            nd_normalized_error(nd_as_const(device.gradients[i]), nd_as_const(host.gradients[i])),
            1e-5, "%s", host.model->params.list[i].name);
    nd_model_fixture_destroy(&host);
    nd_model_fixture_destroy(&device);
    config.vocab_size = 32000;
    config.micro_batch = 4096;
    cr_assert_eq(nd_model_logit_rows(&config), 1024);
}

/* The straight-through gradient is that of the dense model at the dequantized weights. */
Test(model, ternary_gradients_are_those_of_the_dequantized_model)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F64);
    config.activation_quant = false;
    nd_model_fixture ternary = nd_model_fixture_create(&config, true, seed);
    config.ternary = false;
    nd_model_fixture dense = nd_model_fixture_create(&config, true, seed);
    for (int64_t i = 0; i < ternary.model->params.count; i++) {
        const nd_weight *w = &ternary.model->weights[i];
        if (w->ternary)
            ND_ASSERT_OK(ternary.backend->ops.dequantize_codes(
                ternary.backend, dense.masters[i], nd_as_const(w->codes), nd_as_const(w->scales)));
    }
    nd_model_fixture_load(&dense);
    cr_assert_float_eq(nd_model_fixture_train(&ternary, false),
                       nd_model_fixture_train(&dense, false), 1e-10);
    for (int64_t i = 0; i < ternary.model->params.count; i++)
        cr_assert_lt(
            nd_normalized_error(nd_as_const(ternary.gradients[i]), nd_as_const(dense.gradients[i])),
            1e-10, "%s", ternary.model->params.list[i].name);
    nd_model_fixture_destroy(&ternary);
    nd_model_fixture_destroy(&dense);
}

/* A group of inputs has its own scale; with one group the two forms are the same model. */
Test(model, one_group_as_wide_as_the_matrix_has_the_scale_of_each_row)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    config.group_size = 8;
    nd_model_fixture f = nd_model_fixture_create(&config, true, seed);
    const int64_t q = nd_params_layer_index(&f.model->params, 0, ND_ATTN_Q);
    cr_assert_eq(f.model->weights[q].scales.rows, 16);
    cr_assert_eq(f.model->weights[q].scales.cols, 2);
    nd_model_fixture fast = nd_model_fixture_create(&config, false, seed);
    const double reference_loss = nd_model_fixture_train(&f, false);
    cr_assert_float_eq(nd_model_fixture_train(&fast, false), reference_loss, 1e-3 * reference_loss);
    nd_model_fixture_destroy(&f);
    nd_model_fixture_destroy(&fast);
}

/* Fast against reference at a size where every fast path is taken. */
static void check_fast(nd_arch arch, nd_dtype compute, double loss_tolerance, double tolerance)
{
    nd_model_config config = nd_model_fixture_config(arch, compute);
    config.hidden_dim = 64;
    config.head_dim = 16;
    config.ffn_dim = 96;
    config.vocab_size = 50;
    config.seq_length = 33;
    nd_model_fixture reference = nd_model_fixture_create(&config, true, seed);
    nd_model_fixture fast = nd_model_fixture_create(&config, false, seed);
    const double expected = nd_model_fixture_train(&reference, false);
    const double found = nd_model_fixture_train(&fast, false);
    cr_assert_float_eq(found, expected, loss_tolerance * expected, "loss %g, expected %g", found,
                       expected);
    for (int64_t i = 0; i < fast.model->params.count; i++) {
        const double error = nd_normalized_error(nd_as_const(fast.gradients[i]),
                                                 nd_as_const(reference.gradients[i]));
        cr_assert_lt(error, tolerance, "%s: %g", fast.model->params.list[i].name, error);
    }
    nd_model_fixture_destroy(&reference);
    nd_model_fixture_destroy(&fast);
}

/* An activation that lies on a rounding tie may fall the other way in f32: hence not 1e-6. */
Test(model, fast_layer_matches_the_reference_in_fp32)
{
    check_fast(ND_ARCH_BITNET, ND_F32, 1e-3, 3e-2);
    check_fast(ND_ARCH_LLAMA, ND_F32, 1e-3, 3e-2);
}

Test(model, fast_layer_matches_the_reference_in_bf16)
{
    check_fast(ND_ARCH_BITNET, ND_BF16, 5e-3, 1e-1);
    check_fast(ND_ARCH_LLAMA, ND_BF16, 5e-3, 1e-1);
}

/* The next-token loss is the same whatever else is predicted; the total adds the weighted rest. */
Test(model, tokens_further_ahead_add_to_the_total_alone)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    nd_model_fixture one = nd_model_fixture_create(&config, false, seed);
    config.loss.offsets = 4;
    nd_model_fixture four = nd_model_fixture_create(&config, false, seed);
    nd_loss single, unweighted, weighted;
    ND_ASSERT_OK(nd_model_evaluate(one.model, one.tokens, 2, &single));
    ND_ASSERT_OK(nd_model_evaluate(four.model, four.tokens, 2, &unweighted));
    nd_model_set_offset_weights(four.model, (const float[]){1.0f, 0.5f, 0.25f, 0.125f});
    ND_ASSERT_OK(nd_model_evaluate(four.model, four.tokens, 2, &weighted));
    cr_assert_eq(unweighted.nll, single.nll);
    cr_assert_eq(weighted.nll, single.nll);
    cr_assert_float_eq(unweighted.total, single.total, 1e-6 * single.total);
    cr_assert_gt(weighted.total, single.total * 1.4);
    nd_model_fixture_destroy(&one);
    nd_model_fixture_destroy(&four);
}

Test(model, accumulating_twice_doubles_the_gradient)
{
    const nd_model_config config = nd_model_fixture_config(ND_ARCH_LLAMA, ND_F32);
    nd_model_fixture once = nd_model_fixture_create(&config, false, seed);
    nd_model_fixture twice = nd_model_fixture_create(&config, false, seed);
    nd_model_fixture_train(&once, false);
    nd_model_fixture_train(&twice, false);
    nd_model_fixture_train(&twice, true);
    for (int64_t i = 0; i < once.model->params.count; i++)
        for (int64_t j = 0; j < nd_view_count(nd_as_const(once.gradients[i])); j++) {
            const double g = nd_load(nd_as_const(once.gradients[i]), j);
            cr_assert_float_eq(nd_load(nd_as_const(twice.gradients[i]), j), 2.0 * g,
                               1e-5 * (1.0 + fabs(g)));
        }
    nd_model_fixture_destroy(&once);
    nd_model_fixture_destroy(&twice);
}

/* Compares what stands in the one layer's memory with a pass that has memory for all. */
typedef struct shared_layers {
    const nd_model_fixture *apart;
    const nd_view *views;
    int64_t seen;
} shared_layers;

static nd_status compare_ready(void *context, int64_t first, int64_t count)
{
    shared_layers *s = context;
    const int64_t per_layer = s->apart->model->params.per_layer;
    for (int64_t i = first; i < first + count; i++) {
        const bool layers = s->apart->model->params.list[i].layer >= 0;
        for (int64_t j = 0; j < nd_view_count(nd_as_const(s->views[i])); j++) {
            const double g = nd_load(nd_as_const(s->apart->gradients[i]), j);
            cr_assert_float_eq(nd_load(nd_as_const(s->views[i]), j), layers ? g : 2.0 * g,
                               1e-5 * (1.0 + fabs(g)));
        }
        s->seen += layers;
    }
    cr_assert_leq(count, per_layer);
    return ND_OK;
}

Test(model, layers_may_share_memory_while_the_rest_accumulates)
{
    const nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    nd_model_fixture apart = nd_model_fixture_create(&config, false, seed);
    nd_model_fixture f = nd_model_fixture_create(&config, false, seed);
    const nd_params *params = &f.model->params;
    nd_view views[params->count];
    nd_loss loss;
    nd_model_fixture_train(&apart, false);
    nd_model_fixture_train(&f, false);
    for (int64_t i = 0; i < params->count; i++)
        views[i] =
            f.gradients[params->list[i].layer > 0 ? i - params->list[i].layer * params->per_layer
                                                  : i];
    shared_layers shared = {&apart, views, 0};
    ND_ASSERT_OK(nd_model_train(f.model, f.tokens, 1.0f,
                                (nd_model_gradients){.views = views, .accumulate_others = true},
                                (nd_gradients_ready){compare_ready, &shared}, &loss));
    cr_assert_eq(shared.seen, params->layers * params->per_layer);
    nd_model_fixture_destroy(&apart);
    nd_model_fixture_destroy(&f);
}

Test(model, evaluation_of_some_sequences_counts_only_those)
{
    const nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    nd_model_fixture f = nd_model_fixture_create(&config, false, seed);
    nd_loss one, both, trained;
    ND_ASSERT_OK(nd_model_evaluate(f.model, f.tokens, 1, &one));
    ND_ASSERT_OK(nd_model_evaluate(f.model, f.tokens, 2, &both));
    ND_ASSERT_OK(nd_model_train(f.model, f.tokens, 1.0f, (nd_model_gradients){.views = f.gradients},
                                (nd_gradients_ready){NULL, NULL}, &trained));
    cr_assert_eq(one.tokens, 5);
    cr_assert_eq(both.tokens, 10);
    cr_assert_lt(one.nll, both.nll);
    cr_assert_eq(both.nll, trained.nll);
    nd_model_fixture_destroy(&f);
}

/* Feeding tokens one by one or at once gives the loss of the whole sequence. */
Test(model, generation_with_a_cache_predicts_what_the_whole_sequence_does)
{
    for (int arch = 0; arch < 2; arch++) {
        nd_model_config config = nd_model_fixture_config((nd_arch)arch, ND_F32);
        config.micro_batch = 1;
        nd_model_fixture f = nd_model_fixture_create(&config, false, seed);
        nd_loss loss;
        ND_ASSERT_OK(nd_model_evaluate(f.model, f.tokens, 1, &loss));
        nd_arena arena;
        nd_generator g = {0};
        nd_arena_start_sizing(&arena, "test", f.backend);
        ND_ASSERT_OK(nd_generator_reserve(&g, f.model, 8, &arena));
        ND_ASSERT_OK(nd_arena_commit(&arena));
        ND_ASSERT_OK(nd_generator_reserve(&g, f.model, 8, &arena));
        double nll = 0.0;
        for (int64_t i = 0; i < config.seq_length; i++) {
            float logits[11];
            double sum = 0.0;
            ND_ASSERT_OK(nd_generator_feed(&g, f.tokens + i, 1, logits));
            for (int v = 0; v < 11; v++)
                sum += exp((double)logits[v]);
            nll += log(sum) - (double)logits[f.tokens[i + 1]];
        }
        cr_assert_float_eq(nll, loss.nll, 1e-3 * loss.nll, "%g, expected %g", nll, loss.nll);
        float logits[11];
        ND_ASSERT_FAILS(nd_generator_feed(&g, f.tokens, 5, logits), ND_EDATA, "do not fit");
        nd_generator_destroy(&g);
        nd_arena_release(&arena);
        nd_model_fixture_destroy(&f);
    }
}

Test(model, sampling_at_temperature_zero_takes_the_likeliest_and_top_k_bounds_the_rest)
{
    const nd_sampling greedy = {0.0, 0, 1}, two = {1.0, 2, 1};
    float logits[] = {0.0f, 3.0f, 1.0f, 2.0f};
    cr_assert_eq(nd_sample_token(&greedy, 0, logits, 4), 1);
    int seen[4] = {0};
    for (int64_t i = 0; i < 200; i++) {
        float copy[4];
        memcpy(copy, logits, sizeof copy);
        seen[nd_sample_token(&two, i, copy, 4)]++;
    }
    cr_assert_eq(seen[0] + seen[2], 0);
    cr_assert_gt(seen[1], seen[3]);
    cr_assert_gt(seen[3], 20);
    int kept = 0; /* all that equal the second */
    for (int64_t i = 0; i < 200; i++) {
        float ties[] = {-3.0f, -0.5f, -INFINITY, -0.5f, -1e-40f, -2.0f};
        kept |= 1 << nd_sample_token(&two, i, ties, 6);
    }
    cr_assert_eq(kept, 1 << 1 | 1 << 3 | 1 << 4);
}
