/* The operations that are counted from sizes are those of the products that run. */
#include "core/model/mtp.h"
#include "support/model_fixture.h"
#include "support/support.h"
#include "train/plan/operations.h"
#include "train/plan/plan.h"

static nd_backend_ops inner;
static double counted;

static void count(int64_t rows, int64_t cols, int64_t depth)
{
    counted += 2.0 * (double)rows * (double)cols * (double)depth;
}

static nd_status gemm(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                      bool transpose_b, float alpha, float beta)
{
    count(c.rows, c.cols, transpose_a ? a.rows : a.cols);
    return inner.gemm(b, c, a, transpose_a, bb, transpose_b, alpha, beta);
}

static nd_status ternary_gemm(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                              nd_cview s)
{
    count(y.rows, y.cols, q.cols);
    return inner.ternary_gemm(b, y, q, a, c, s);
}

static nd_status ternary_gemm_dx(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c, nd_cview s,
                                 float beta)
{
    count(dx.rows, dx.cols, dy.cols);
    return inner.ternary_gemm_dx(b, dx, dy, c, s, beta);
}

static nd_status ternary_gemm_dw(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q, nd_cview a,
                                 float beta)
{
    count(dw.rows, dw.cols, dy.rows);
    return inner.ternary_gemm_dw(b, dw, dy, q, a, beta);
}

static nd_status ternary_gemm_dx_int8(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                      nd_cview s, float beta)
{
    count(dx.rows, dx.cols, dy.cols);
    return inner.ternary_gemm_dx_int8(b, dx, dy, c, s, beta);
}

static nd_status ternary_gemm_dw_int8(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                      nd_cview a, float beta)
{
    count(dw.rows, dw.cols, dy.rows);
    return inner.ternary_gemm_dw_int8(b, dw, dy, q, a, beta);
}

/* Of the scores and of the values, half of the keys each. */
static nd_status attention(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                           nd_cview v, const nd_attention_shape *shape)
{
    count(q.rows, q.cols, shape->key_len);
    return inner.attention(b, o, lse, q, k, v, shape);
}

static nd_status attention_backward(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                    nd_cview dout, nd_cview o, nd_cview lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *shape)
{
    count(q.rows, q.cols, 2 * shape->key_len);
    return inner.attention_backward(b, dq, dk, dv, dout, o, lse, q, k, v, shape);
}

static void count_products(nd_backend_ops *ops)
{
    inner = *ops;
    ops->gemm = gemm;
    ops->ternary_gemm = ternary_gemm;
    ops->ternary_gemm_dx = ternary_gemm_dx;
    ops->ternary_gemm_dw = ternary_gemm_dw;
    ops->ternary_gemm_dx_int8 = ternary_gemm_dx_int8;
    ops->ternary_gemm_dw_int8 = ternary_gemm_dw_int8;
    ops->attention = attention;
    ops->attention_backward = attention_backward;
    counted = 0.0;
}

/* What a pass over one micro-batch computes. */
static double measured(const nd_model_config *config)
{
    nd_model_fixture f = nd_model_fixture_create(config, false, 3);
    count_products(&f.backend->ops);
    nd_model_set_filtering(f.model, config->collider);
    nd_model_fixture_train(&f, false);
    nd_model_fixture_destroy(&f);
    return counted;
}

static nd_model_config sizes(nd_arch arch)
{
    nd_model_config c = nd_model_fixture_config(arch, ND_F32);
    c.num_layers = 3;
    c.hidden_dim = 32;
    c.head_dim = 8;
    c.ffn_dim = 80;
    c.vocab_size = 50;
    c.seq_length = 64;
    return c;
}

static double expected(const nd_model_config *c, double kept)
{
    const double tokens = (double)(c->micro_batch * c->seq_length);
    return tokens * nd_pass_operations_of(c, nd_mtp_active_heads(c), kept).all;
}

Test(operations, of_a_pass_are_those_of_its_products)
{
    for (int recompute = 0; recompute < 4; recompute++) {
        nd_model_config c = sizes(recompute ? ND_ARCH_LLAMA : ND_ARCH_BITNET);
        c.recompute = (nd_recompute)recompute;
        c.int8_gradients = recompute != 0;
        cr_assert_eq(measured(&c), expected(&c, 1.0), "%.0f, expected %.0f", counted,
                     expected(&c, 1.0));
    }
}

typedef struct announced {
    const nd_params *params;
    double counted; /* when the first gradients of the first layer were complete */
    int64_t first, count;
} announced;

static nd_status announce(void *context, int64_t first, int64_t count)
{
    announced *a = context;
    if (a->count == 0 && a->params->list[first].layer == 0)
        *a = (announced){a->params, counted, first, count};
    return ND_OK;
}

/* The rest of the pass hides how they are reduced. */
Test(operations, of_the_first_layer_give_the_gradients_of_its_feed_forward_half_first)
{
    for (int checkpointing = 0; checkpointing < 2; checkpointing++) {
        nd_model_config c = sizes(ND_ARCH_BITNET);
        c.recompute = checkpointing ? ND_RECOMPUTE_LAYER : ND_RECOMPUTE_NOTHING;
        nd_model_fixture f = nd_model_fixture_create(&c, false, 3);
        const nd_pass_operations o = nd_pass_operations_of(&c, 0, 1.0);
        announced a = {.params = &f.model->params};
        nd_loss loss;
        count_products(&f.backend->ops);
        ND_ASSERT_OK(nd_model_train(f.model, f.tokens, 1.0f,
                                    (nd_model_gradients){.views = f.gradients},
                                    (nd_gradients_ready){announce, &a}, &loss));
        cr_assert_eq(a.first, nd_params_layer_index(a.params, 0, ND_FFN_NORM));
        cr_assert_eq(a.count, ND_FFN_DOWN - ND_FFN_NORM + 1);
        cr_assert_eq(a.counted, (double)loss.tokens * (o.start + 2.0 * o.layer + o.ffn));
        nd_model_fixture_destroy(&f);
    }
}

Test(operations, count_the_heads_of_further_tokens_that_run)
{
    static const nd_mtp_form forms[] = {ND_MTP_SHARED, ND_MTP_SEPARATE, ND_MTP_SEQUENTIAL};
    for (int i = 0; i < 3; i++) {
        nd_model_config c = sizes(ND_ARCH_BITNET);
        c.mtp_form = forms[i];
        c.mtp_tokens = 4;
        c.loss.offset_weight[0] = 1.0f;
        c.loss.offset_weight[1] = c.loss.offset_weight[2] = 0.5f;
        cr_assert_eq(nd_mtp_active_heads(&c), i == 0 ? 0 : 2);
        cr_assert_eq(measured(&c), expected(&c, 1.0), "form %d: %.0f, expected %.0f", i, counted,
                     expected(&c, 1.0));
    }
}

/* Half of 128 tokens: whole multiples of the rows that come at once. Logits for which there was no
 * room between the passes are computed again. */
Test(operations, of_filtered_tokens_are_left_out_of_the_backward_pass)
{
    for (int i = 0; i < 8; i++) {
        nd_model_config c = sizes(ND_ARCH_BITNET);
        c.recompute = (nd_recompute)(i % 4);
        c.mtp_form = i / 4 != 0 ? ND_MTP_SEQUENTIAL : ND_MTP_SHARED;
        c.mtp_tokens = 2;
        c.loss.offset_weight[0] = c.loss.offset_weight[1] = 1.0f;
        c.collider = true;
        c.collider_params =
            (nd_collider_params){.rule = ND_COLLIDER_LOSS, .threshold = 1.0, .sparsity = 0.5};
        const double all = measured(&c), most = (double)(c.hidden_dim * c.vocab_size) * 128.0;
        cr_assert(all >= expected(&c, 0.5) && all <= expected(&c, 0.5) + most,
                  "%d: %.0f, expected %.0f and at most %.0f more", i, all, expected(&c, 0.5), most);
        cr_assert_lt(all, 0.8 * expected(&c, 1.0));
    }
}

Test(operations, of_a_plan_end_with_the_schedule_of_further_tokens)
{
    static nd_config config;
    nd_plan alone, plan;
    nd_config_defaults(&config);
    config.data.dataset = ND_DATASET_SYNTHETIC;
    config.training.total_steps = 300;
    ND_ASSERT_OK(nd_plan_create(&config, 1, &alone));
    config.training.use_mtp = true;
    config.training.mtp_n_tokens = 4;
    config.training.mtp_form = ND_MTP_SEPARATE;
    config.training.mtp_schedule = ND_MTP_THIRDS;
    ND_ASSERT_OK(nd_plan_create(&config, 1, &plan));
    /* three heads in the first third, two in the second, none in the last */
    const double head = (plan.flops_per_step - alone.flops_per_step) / 3.0;
    cr_assert_float_eq(head,
                       6.0 * (double)(config.model.hidden_dim * config.model.vocab_size) *
                           (double)plan.tokens_per_step,
                       1e-6 * head);
    cr_assert_float_eq(alone.flops_per_run, 300.0 * alone.flops_per_step, 1e-6 * head);
    cr_assert_float_eq(plan.flops_per_run, alone.flops_per_run + 500.0 * head,
                       1e-6 * plan.flops_per_run);
    nd_plan_destroy(&alone);
    nd_plan_destroy(&plan);
}
