/* Collider: which tokens stay, and the gradients of a backward pass on them. */
#include "core/backend/cpu/reference.h"
#include "core/model/collider.h"
#include "support/model_fixture.h"
#include "support/support.h"

#include <math.h>
#include <string.h>

static const uint64_t seed = 7;

static int64_t select_from(const double *losses, int64_t tokens, double threshold, double sparsity,
                           int32_t *kept, int64_t *rows)
{
    int32_t order[tokens];
    return nd_collider_select((nd_collider_params){.rule = ND_COLLIDER_LOSS,
                                                   .threshold = threshold,
                                                   .sparsity = sparsity},
                              losses, tokens, order, kept, rows);
}

Test(collider, filters_the_lowest_losses_and_never_more_than_its_part)
{
    const double losses[10] = {5, 1, 9, 2, 8, 3, 7, 4, 6, 10};
    int32_t kept[10];
    int64_t rows;
    /* importance (l - 1)/9: below 0.5 are the losses 1 to 5, 0.35 of ten tokens are three. */
    cr_assert_eq(select_from(losses, 10, 0.5, 0.35, kept, &rows), 7);
    const int32_t expected[] = {0, 2, 4, 6, 7, 8, 9, -1, -1, -1};
    cr_assert_eq(rows, 10);
    cr_assert_arr_eq(kept, expected, sizeof expected);
}

Test(collider, filters_nothing_at_or_above_the_threshold)
{
    const double losses[10] = {5, 1, 9, 2, 8, 3, 7, 4, 6, 10};
    int32_t kept[10];
    int64_t rows;
    /* importance below 2/9: the losses 1 and 2. */
    cr_assert_eq(select_from(losses, 10, 2.0 / 9.0, 0.9, kept, &rows), 8);
    cr_assert_eq(kept[1], 2);
    cr_assert_eq(kept[2], 4);
    cr_assert_eq(select_from(losses, 10, 0.0, 0.9, kept, &rows), 10);
    cr_assert_eq(select_from(losses, 10, 1.0, 0.9, kept, &rows), 1);
    cr_assert_eq(kept[0], 9);
}

Test(collider, filters_equal_losses_in_the_order_of_the_tokens)
{
    const double losses[8] = {2, 1, 1, 1, 2, 1, 3, 1};
    int32_t kept[8];
    int64_t rows;
    cr_assert_eq(select_from(losses, 8, 1.0, 0.5, kept, &rows), 4);
    const int32_t expected[] = {0, 4, 6, 7};
    cr_assert_arr_eq(kept, expected, sizeof expected);
}

Test(collider, keeps_all_when_losses_have_no_order)
{
    const double equal[4] = {2, 2, 2, 2}, broken[4] = {1, 2, NAN, 3}, endless[3] = {1, INFINITY, 2};
    int32_t kept[4];
    int64_t rows;
    cr_assert_eq(select_from(equal, 4, 1.0, 0.9, kept, &rows), 4);
    cr_assert_eq(select_from(broken, 4, 1.0, 0.9, kept, &rows), 4);
    cr_assert_eq(select_from(endless, 3, 1.0, 0.9, kept, &rows), 3);
}

Test(collider, rounds_the_rows_up_with_padding)
{
    double losses[200];
    int32_t kept[200];
    int64_t rows;
    for (int i = 0; i < 200; i++)
        losses[i] = (double)((i * 7919) % 200);
    cr_assert_eq(select_from(losses, 200, 1.0, 0.5, kept, &rows), 100);
    cr_assert_eq(rows, 128);
    for (int i = 1; i < 100; i++)
        cr_assert_lt(kept[i - 1], kept[i]);
    for (int i = 0; i < 100; i++)
        cr_assert_geq(losses[kept[i]], 100.0);
    for (int i = 100; i < 128; i++)
        cr_assert_eq(kept[i], -1);
}

static nd_model_config collider_config(nd_arch arch, nd_dtype compute, double threshold,
                                       double sparsity)
{
    nd_model_config config = nd_model_fixture_config(arch, compute);
    config.micro_batch = 3;
    config.seq_length = 37;
    config.loss = (nd_cross_entropy_params){
        .label_smoothing = 0.1f, .z_loss_weight = 0.01f, .entropy_weight = 0.02f};
    config.collider = sparsity > 0.0;
    config.collider_params = (nd_collider_params){
        .rule = ND_COLLIDER_LOSS, .threshold = threshold, .sparsity = sparsity};
    return config;
}

static void predict_further(nd_model_config *config)
{
    config->loss.offsets = 3;
    config->loss.offset_weight[1] = 0.5f;
    config->loss.offset_weight[2] = 0.25f;
}

static void assert_same_gradients(const nd_model_fixture *a, const nd_model_fixture *b)
{
    for (int64_t i = 0; i < a->model->params.count; i++)
        cr_assert_eq(memcmp(a->gradients[i].data, b->gradients[i].data,
                            nd_view_bytes(nd_as_const(a->gradients[i]))),
                     0, "%s differs", a->model->params.list[i].name);
}

static void check_that_nothing_changes(double threshold, double sparsity)
{
    for (int arch = 0; arch < 2; arch++) {
        nd_model_config config = collider_config((nd_arch)arch, ND_BF16, 0.0, 0.0);
        nd_model_fixture plain = nd_model_fixture_create(&config, false, seed);
        config = collider_config((nd_arch)arch, ND_BF16, threshold, sparsity);
        config.collider = true;
        nd_model_fixture filtered = nd_model_fixture_create(&config, false, seed);
        for (int pass = 0; pass < 2; pass++)
            cr_assert_eq(nd_model_fixture_train(&plain, pass > 0),
                         nd_model_fixture_train(&filtered, pass > 0));
        assert_same_gradients(&plain, &filtered);
        nd_model_fixture_destroy(&plain);
        nd_model_fixture_destroy(&filtered);
    }
}

Test(collider, without_a_token_below_the_threshold_gives_the_same_gradients_to_the_bit)
{
    check_that_nothing_changes(0.0, 0.5);
}

Test(collider, at_sparsity_0_gives_the_same_gradients_to_the_bit)
{
    check_that_nothing_changes(1.0, 0.0);
}

/* The same definition with masks: a model without Collider on a reference backend whose
 * cross-entropy ignores filtered tokens, and whose attention takes their keys and values for
 * constants. */
static struct {
    nd_backend_ops ops;
    const nd_model *model;
    const bool *filtered;
    const double
        *weights; /* [tokens] with sample, where every target of a kept token is predicted */
    int calls;    /* of cross_entropy: the next token's, then the extra heads' */
} masked;

/* The offset of the first target in a call. */
static int offset_of_call(int call)
{
    const int heads = (int)masked.model->params.extra_heads;
    if (masked.model->config.mtp_form == ND_MTP_SHARED)
        return 0;
    return call == 0 || masked.model->config.mtp_form == ND_MTP_SEPARATE ? call : heads + 1 - call;
}

static nd_status masked_cross_entropy(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                                      nd_cview targets, const nd_cross_entropy_params *params)
{
    const int64_t length = masked.model->config.seq_length, offsets = targets.cols;
    const int64_t first =
        ((const int32_t *)targets.data - (const int32_t *)masked.model->targets.data) / offsets;
    const int ahead = offset_of_call(masked.calls++);
    nd_cross_entropy_params p = *params;
    int32_t seen[targets.rows * offsets];
    if (masked.weights)
        p.weight = nd_cview_of(masked.weights + first, ND_F64, targets.rows, 1);
    for (int64_t t = 0; t < targets.rows; t++)
        for (int64_t j = 0; j < offsets; j++) {
            const int64_t token = first + t, at = t * offsets + j, far = j + ahead;
            const bool inside = token % length + far < length;
            seen[at] = ((const int32_t *)targets.data)[at];
            if (masked.filtered[token] ||
                (inside && masked.filtered[token + far] && !masked.weights))
                seen[at] = -1;
        }
    return masked.ops.cross_entropy(b, nll, total, logits,
                                    nd_cview_of(seen, ND_I32, targets.rows, offsets), &p);
}

static nd_status masked_attention_backward(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                           nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                           nd_cview k, nd_cview v, const nd_attention_shape *s)
{
    ND_TRY(masked.ops.attention_backward(b, dq, dk, dv, dout, o, lse, q, k, v, s));
    for (int64_t t = 0; t < dk.rows; t++)
        for (int64_t i = 0; masked.filtered[t] && i < dk.cols; i++) {
            nd_store(dk, t * dk.cols + i, 0.0);
            nd_store(dv, t * dk.cols + i, 0.0);
        }
    return ND_OK;
}

static void compare_with_masks(nd_model_config config, bool reference, double tolerance)
{
    nd_model_fixture f = nd_model_fixture_create(&config, reference, seed);
    nd_loss loss;
    ND_ASSERT_OK(nd_model_train(f.model, f.tokens, 1.0f,
                                nd_model_gradients_into(&f.model->params, f.gradients, false),
                                (nd_gradients_ready){NULL, NULL}, &loss));
    cr_assert(loss.kept < loss.tokens, "the test filters nothing");
    bool filtered[loss.tokens];
    double weights[loss.tokens];
    memset(filtered, true, sizeof filtered);
    for (int64_t i = 0; i < loss.kept; i++) {
        const int32_t token = f.model->collider.kept[i];
        filtered[token] = false;
        weights[token] = 1.0 / f.model->collider.probability[token];
    }

    config.collider = false;
    nd_model_fixture whole = nd_model_fixture_create(&config, reference, seed);
    const double total = nd_model_fixture_train(&whole, false);
    if (config.mtp_form == ND_MTP_SHARED)
        cr_assert_float_eq(loss.total, total, tolerance * fabs(total),
                           "the loss is that of all tokens");
    masked.calls = 0;
    masked.ops = whole.backend->ops;
    masked.model = whole.model;
    masked.filtered = filtered;
    masked.weights = config.collider_params.rule == ND_COLLIDER_SAMPLE ? weights : NULL;
    if (config.mtp_form != ND_MTP_SHARED)
        cr_assert_geq(nd_model_logit_rows(&config), loss.tokens, "one call a head");
    whole.backend->ops.cross_entropy = masked_cross_entropy;
    whole.backend->ops.attention_backward = masked_attention_backward;
    nd_model_fixture_train(&whole, false);
    for (int64_t i = 0; i < f.model->params.count; i++) {
        const double error =
            nd_normalized_error(nd_as_const(f.gradients[i]), nd_as_const(whole.gradients[i]));
        cr_assert(error <= tolerance, "%s: error %g", f.model->params.list[i].name, error);
    }
    nd_model_fixture_destroy(&f);
    nd_model_fixture_destroy(&whole);
}

static void check_against_masks(nd_model_config config)
{
    compare_with_masks(config, true, 1e-9);
}

static nd_model_config masked_config(nd_arch arch)
{
    return collider_config(arch, ND_F64, 0.6, 0.4);
}

Test(collider, gradients_of_bitnet_match_masks_in_double)
{
    nd_model_config config = masked_config(ND_ARCH_BITNET);
    check_against_masks(config);
    config.ternary = config.activation_quant = false;
    check_against_masks(config);
}

Test(collider, gradients_of_llama_match_masks_in_double)
{
    check_against_masks(masked_config(ND_ARCH_LLAMA));
}

Test(collider, gradients_with_several_tokens_ahead_match_masks_in_double)
{
    nd_model_config config = masked_config(ND_ARCH_BITNET);
    predict_further(&config);
    check_against_masks(config);
}

Test(collider, gradients_with_extra_heads_match_masks_in_double)
{
    for (int form = ND_MTP_SEQUENTIAL; form <= ND_MTP_SEPARATE; form++) {
        nd_model_config config = masked_config(ND_ARCH_BITNET);
        config.mtp_form = (nd_mtp_form)form;
        config.mtp_tokens = 3;
        config.loss.offset_weight[1] = 0.5f;
        config.loss.offset_weight[2] = 0.25f;
        check_against_masks(config);
    }
}

Test(collider, sampled_gradients_match_weighted_masks_in_double)
{
    for (int form = ND_MTP_SHARED; form <= ND_MTP_SEPARATE; form++) {
        nd_model_config config = masked_config(ND_ARCH_BITNET);
        config.collider_params.rule = ND_COLLIDER_SAMPLE;
        config.mtp_form = (nd_mtp_form)form;
        config.mtp_tokens = 3;
        predict_further(&config);
        config.loss.offsets = form == ND_MTP_SHARED ? 3 : 1;
        check_against_masks(config);
    }
}

static void compare_where_logits_of_some_are_kept(nd_collider_rule rule, double sparsity)
{
    nd_model_config config = collider_config(ND_ARCH_BITNET, ND_F32, 0.6, sparsity);
    config.collider_params.rule = rule;
    config.ternary = config.activation_quant = false;
    config.vocab_size = 34000;
    predict_further(&config);
    cr_assert_lt(nd_model_logit_rows(&config), config.micro_batch * config.seq_length - 10);
    compare_with_masks(config, false, 1e-5);
}

Test(collider, gradients_match_masks_when_only_the_last_logits_are_kept)
{
    compare_where_logits_of_some_are_kept(ND_COLLIDER_LOSS, 0.4);
    compare_where_logits_of_some_are_kept(ND_COLLIDER_SAMPLE, 0.4);
}

Test(collider, gradients_match_masks_when_padding_follows_last_logits_that_are_all_kept)
{
    compare_where_logits_of_some_are_kept(ND_COLLIDER_LOSS, 0.135);
}

Test(collider, fast_gradients_match_those_in_double)
{
    nd_model_config config = collider_config(ND_ARCH_BITNET, ND_F64, 0.6, 0.4);
    config.ternary = config.activation_quant = false;
    predict_further(&config);
    nd_model_fixture exact = nd_model_fixture_create(&config, true, seed);
    config.compute = ND_F32;
    nd_model_fixture fast = nd_model_fixture_create(&config, false, seed);
    nd_model_fixture_train(&exact, false);
    nd_model_fixture_train(&fast, false);
    for (int64_t i = 0; i < exact.model->params.count; i++) {
        const double error =
            nd_normalized_error(nd_as_const(fast.gradients[i]), nd_as_const(exact.gradients[i]));
        cr_assert(error <= 1e-5, "%s: error %g", exact.model->params.list[i].name, error);
    }
    nd_model_fixture_destroy(&exact);
    nd_model_fixture_destroy(&fast);
}

Test(collider, with_checkpointing_gives_the_same_gradients_to_the_bit)
{
    for (int i = 0; i < 6; i++) {
        nd_model_config config = collider_config(ND_ARCH_BITNET, ND_BF16, 0.6, 0.4);
        config.collider_params.rule = i % 2 != 0 ? ND_COLLIDER_LOSS : ND_COLLIDER_SAMPLE;
        predict_further(&config);
        nd_model_fixture plain = nd_model_fixture_create(&config, false, seed);
        config.recompute = (nd_recompute)(ND_RECOMPUTE_FFN + i / 2);
        nd_model_fixture lean = nd_model_fixture_create(&config, false, seed);
        for (int pass = 0; pass < 2; pass++)
            cr_assert_eq(nd_model_fixture_train(&plain, pass > 0),
                         nd_model_fixture_train(&lean, pass > 0));
        assert_same_gradients(&plain, &lean);
        nd_model_fixture_destroy(&plain);
        nd_model_fixture_destroy(&lean);
    }
}

Test(collider, excess_filters_what_the_reference_model_finds_as_hard)
{
    nd_model_config config = collider_config(ND_ARCH_BITNET, ND_F64, 1.0, 0.5);
    config.collider_params.rule = ND_COLLIDER_EXCESS;
    nd_model_fixture f = nd_model_fixture_create(&config, true, seed);
    double reference[3 * 37] = {0.0};
    nd_loss loss;
    /* Tokens from 60 on cost the reference 100 nats: nothing exceeds that. */
    for (int t = 60; t < 3 * 37; t++)
        reference[t] = 100.0;
    nd_model_set_draw(f.model, (nd_collider_draw){.reference = reference});
    ND_ASSERT_OK(nd_model_train(f.model, f.tokens, 1.0f,
                                nd_model_gradients_into(&f.model->params, f.gradients, false),
                                (nd_gradients_ready){NULL, NULL}, &loss));
    cr_assert_eq(loss.kept, 56);
    for (int64_t i = 0; i < loss.kept; i++)
        cr_assert_lt(f.model->collider.kept[i], 60);
    nd_model_fixture_destroy(&f);
}
