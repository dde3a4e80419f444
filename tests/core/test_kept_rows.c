/* What the backward pass computes with: after the choice of tokens every op that works on tokens
 * sees the kept ones only, and heads of multi-token prediction follow one another through one
 * buffer of logits. */
#include "core/model/collider.h"
#include "support/model_fixture.h"
#include "support/support.h"

#include <string.h>

static const uint64_t seed = 11;

enum { CALLS_MAX = 4096 };

typedef struct call {
    const char *op;
    int64_t rows;      /* tokens it works on */
    const void *of[3]; /* of a product: what is written, and both factors */
} call;

/* The backend's own ops, and what was called. Before the choice, `chosen` is false and nothing is
 * noted. */
static struct {
    nd_backend_ops ops;
    bool chosen;
    int count;
    call list[CALLS_MAX];
} seen;

static void note(const char *op, int64_t rows)
{
    if (!seen.chosen)
        return;
    cr_assert_lt(seen.count, CALLS_MAX);
    seen.list[seen.count++] = (call){.op = op, .rows = rows};
}

static nd_status gather_rows(nd_backend *b, nd_view y, nd_cview x, nd_cview rows)
{
    seen.chosen = true;
    return seen.ops.gather_rows(b, y, x, rows);
}

static nd_status ternary_gemm(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                              nd_cview s)
{
    note("ternary_gemm", q.rows);
    return seen.ops.ternary_gemm(b, y, q, a, c, s);
}

static nd_status ternary_gemm_dx(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c, nd_cview s,
                                 float beta)
{
    note("ternary_gemm_dx", dy.rows);
    return seen.ops.ternary_gemm_dx(b, dx, dy, c, s, beta);
}

static nd_status ternary_gemm_dw(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q, nd_cview a,
                                 float beta)
{
    note("ternary_gemm_dw", dy.rows);
    return seen.ops.ternary_gemm_dw(b, dw, dy, q, a, beta);
}

/* In these tests products of floats are the head's: tokens are rows of the logits. */
static nd_status gemm(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                      bool transpose_b, float alpha, float beta)
{
    note("gemm", transpose_a ? a.rows : c.rows);
    if (seen.chosen) {
        const void *const of[3] = {c.data, a.data, bb.data};
        memcpy(seen.list[seen.count - 1].of, of, sizeof of);
    }
    return seen.ops.gemm(b, c, a, transpose_a, bb, transpose_b, alpha, beta);
}

static nd_status cross_entropy(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                               nd_cview targets, const nd_cross_entropy_params *params)
{
    note("cross_entropy", logits.rows);
    return seen.ops.cross_entropy(b, nll, total, logits, targets, params);
}

static nd_status quantize_rows(nd_backend *b, nd_view q, nd_view a, nd_cview x)
{
    note("quantize_rows", x.rows);
    return seen.ops.quantize_rows(b, q, a, x);
}

static nd_status rmsnorm(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview w)
{
    note("rmsnorm", x.rows);
    return seen.ops.rmsnorm(b, y, r, x, w);
}

static nd_status rmsnorm_quantize(nd_backend *b, nd_view q, nd_view a, nd_view r, nd_cview x,
                                  nd_cview w)
{
    note("rmsnorm_quantize", x.rows);
    return seen.ops.rmsnorm_quantize(b, q, a, r, x, w);
}

static nd_status rmsnorm_backward(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy, nd_cview x,
                                  nd_cview w, nd_cview r, float beta)
{
    note("rmsnorm_backward", dy.rows);
    return seen.ops.rmsnorm_backward(b, dx, dw, dy, x, w, r, beta);
}

static nd_status swiglu(nd_backend *b, nd_view h, nd_cview gate, nd_cview up)
{
    note("swiglu", gate.rows);
    return seen.ops.swiglu(b, h, gate, up);
}

static nd_status swiglu_rmsnorm_quantize(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                         nd_cview gate, nd_cview up, nd_cview w)
{
    note("swiglu_rmsnorm_quantize", gate.rows);
    return seen.ops.swiglu_rmsnorm_quantize(b, q, a, r, gate, up, w);
}

static nd_status swiglu_backward(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                 nd_cview gate, nd_cview up)
{
    note("swiglu_backward", dh.rows);
    return seen.ops.swiglu_backward(b, dgate, dup, dh, gate, up);
}

static nd_status swiglu_rmsnorm_backward(nd_backend *b, nd_view dgate, nd_view dup, nd_view dw,
                                         nd_view q, nd_view a, nd_view r, nd_cview dy,
                                         nd_cview gate, nd_cview up, nd_cview w)
{
    note("swiglu_rmsnorm_backward", dy.rows);
    return seen.ops.swiglu_rmsnorm_backward(b, dgate, dup, dw, q, a, r, dy, gate, up, w);
}

static nd_status rope(nd_backend *b, nd_view x, const nd_rope_params *params)
{
    note("rope", x.rows);
    return seen.ops.rope(b, x, params);
}

static nd_status add(nd_backend *b, nd_view y, nd_cview x, nd_cview z)
{
    note("add", x.rows);
    return seen.ops.add(b, y, x, z);
}

static nd_status axpby(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta)
{
    note("axpby", x.rows);
    return seen.ops.axpby(b, y, alpha, x, beta);
}

static nd_status attention(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                           nd_cview v, const nd_attention_shape *shape)
{
    note("attention", q.rows);
    return seen.ops.attention(b, o, lse, q, k, v, shape);
}

/* k and v alone hold all tokens: kept queries need the filtered keys. */
static nd_status attention_backward(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                    nd_cview dout, nd_cview o, nd_cview lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *shape)
{
    const int64_t rows[] = {dq.rows, dk.rows, dv.rows, dout.rows, o.rows, lse.rows, q.rows};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        note("attention_backward", rows[i]);
    return seen.ops.attention_backward(b, dq, dk, dv, dout, o, lse, q, k, v, shape);
}

static nd_status embedding(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens)
{
    note("embedding", x.rows);
    return seen.ops.embedding(b, x, table, tokens);
}

static nd_status embedding_backward(nd_backend *b, nd_view dtable, nd_cview dx, nd_cview tokens)
{
    note("embedding_backward", dx.rows);
    return seen.ops.embedding_backward(b, dtable, dx, tokens);
}

/* Every op whose arguments have a row a token. */
static void watch(nd_backend *b)
{
    nd_backend_ops *ops = &b->ops;
    memset(&seen, 0, sizeof seen);
    seen.ops = *ops;
    ops->gather_rows = gather_rows;
    ops->ternary_gemm = ternary_gemm;
    ops->ternary_gemm_dx = ternary_gemm_dx;
    ops->ternary_gemm_dw = ternary_gemm_dw;
    ops->gemm = gemm;
    ops->cross_entropy = cross_entropy;
    ops->quantize_rows = quantize_rows;
    ops->rmsnorm = rmsnorm;
    ops->rmsnorm_quantize = rmsnorm_quantize;
    ops->rmsnorm_backward = rmsnorm_backward;
    ops->swiglu = swiglu;
    ops->swiglu_rmsnorm_quantize = swiglu_rmsnorm_quantize;
    ops->swiglu_backward = swiglu_backward;
    ops->swiglu_rmsnorm_backward = swiglu_rmsnorm_backward;
    ops->rope = rope;
    ops->add = add;
    ops->axpby = axpby;
    ops->attention = attention;
    ops->attention_backward = attention_backward;
    ops->embedding = embedding;
    ops->embedding_backward = embedding_backward;
}

static bool of_the_head(const call *c)
{
    return strcmp(c->op, "gemm") == 0 || strcmp(c->op, "cross_entropy") == 0;
}

static int calls_of(const char *op, int64_t rows)
{
    int found = 0;
    for (int i = 0; i < seen.count; i++)
        found += strcmp(seen.list[i].op, op) == 0 && (rows < 0 || seen.list[i].rows == rows);
    return found;
}

static nd_model_config filtering_config(nd_arch arch)
{
    nd_model_config config = nd_model_fixture_config(arch, ND_BF16);
    config.num_layers = 3;
    config.micro_batch = 5;
    config.seq_length = 40;
    config.collider = true;
    config.collider_params =
        (nd_collider_params){.rule = ND_COLLIDER_LOSS, .threshold = 1.0, .sparsity = 0.5};
    return config;
}

/* Trains once and checks that no op after the choice has more rows than the kept tokens', rounded
 * up, but for `whole` calls, and that those of the layers have all of these. Returns
 * their number. */
static int64_t check_rows(const nd_model_config *config, int whole)
{
    nd_model_fixture f = nd_model_fixture_create(config, false, seed);
    nd_loss loss;
    watch(f.backend);
    ND_ASSERT_OK(nd_model_train(f.model, f.tokens, 1.0f,
                                nd_model_gradients_into(&f.model->params, f.gradients, false),
                                (nd_gradients_ready){NULL, NULL}, &loss));
    const int64_t rows = (loss.kept + ND_KEPT_ROUND - 1) / ND_KEPT_ROUND * ND_KEPT_ROUND;
    cr_assert_eq(loss.kept, 100);
    cr_assert_lt(rows, loss.tokens);
    int larger = 0;
    for (int i = 0; i < seen.count; i++) {
        const call *c = &seen.list[i];
        if (of_the_head(c))
            cr_assert_leq(c->rows, rows, "%s of %lld rows", c->op, (long long)c->rows);
        else if (c->rows == loss.tokens)
            larger++;
        else
            cr_assert_eq(c->rows, rows, "%s of %lld rows", c->op, (long long)c->rows);
    }
    cr_assert_eq(larger, whole, "%d calls see all tokens", larger);
    nd_model_fixture_destroy(&f);
    return rows;
}

Test(kept_rows, every_product_and_row_op_of_the_backward_pass_has_the_kept_tokens_alone)
{
    for (int arch = 0; arch < 2; arch++) {
        const nd_model_config config = filtering_config((nd_arch)arch);
        const int64_t rows = check_rows(&config, 0);
        cr_assert_eq(calls_of("ternary_gemm_dw", rows), 7 * 3);
        cr_assert_eq(calls_of("ternary_gemm_dx", rows), 7 * 3);
        cr_assert_eq(calls_of("attention_backward", rows), 7 * 3);
        cr_assert_eq(calls_of("rope", rows), 2 * 3);
        cr_assert_eq(calls_of("embedding_backward", rows), 1);
    }
}

/* Of all tokens a recomputed layer needs keys and values: a norm, two products, a rotation. The
 * last of three layers is not recomputed. */
Test(kept_rows, with_checkpointing_only_keys_and_values_are_recomputed_for_all_tokens)
{
    for (int attention = 0; attention < 2; attention++) {
        nd_model_config config = filtering_config(ND_ARCH_BITNET);
        config.recompute = attention ? ND_RECOMPUTE_ATTENTION : ND_RECOMPUTE_LAYER;
        const int64_t rows = check_rows(&config, 4 * 2);
        const int64_t tokens = config.micro_batch * config.seq_length;
        cr_assert_eq(calls_of("rmsnorm_quantize", tokens), 2);
        cr_assert_eq(calls_of("ternary_gemm", tokens), 2 * 2);
        cr_assert_eq(calls_of("rope", tokens), 2);
        /* queries, o, gate and up */
        cr_assert_eq(calls_of("ternary_gemm", rows), 4 * 2);
        cr_assert_eq(calls_of("attention", rows), attention != 0 ? 2 : 0);
        cr_assert_eq(calls_of("ternary_gemm_dw", rows), 7 * 3);
    }
}

Test(kept_rows, gate_and_up_are_recomputed_for_the_kept_tokens_alone)
{
    nd_model_config config = filtering_config(ND_ARCH_BITNET);
    config.recompute = ND_RECOMPUTE_FFN;
    const int64_t rows = check_rows(&config, 0);
    cr_assert_eq(calls_of("ternary_gemm", rows), 2 * 2);
    cr_assert_eq(calls_of("ternary_gemm_dw", rows), 7 * 3);
}

Test(kept_rows, extra_heads_and_blocks_have_the_kept_tokens_alone)
{
    for (int form = ND_MTP_SEQUENTIAL; form <= ND_MTP_SEPARATE; form++) {
        nd_model_config config = filtering_config(ND_ARCH_BITNET);
        const int blocks = form == ND_MTP_SEQUENTIAL ? 2 : 0;
        config.mtp_form = (nd_mtp_form)form;
        config.mtp_tokens = 3;
        config.loss.offset_weight[1] = 0.5f;
        config.loss.offset_weight[2] = 0.25f;
        const int64_t rows = check_rows(&config, 0);
        cr_assert_eq(calls_of("ternary_gemm_dw", rows), 7 * 3 + 9 * blocks);
    }
}

/* The backend plans a product for each number of rows it meets and keeps it: were they any number,
 * memory would grow for as long as a run goes on. */
Test(kept_rows, products_of_the_head_have_few_different_numbers_of_rows)
{
    nd_model_config config = filtering_config(ND_ARCH_BITNET);
    config.vocab_size = 34000;
    nd_model_fixture f = nd_model_fixture_create(&config, false, seed);
    watch(f.backend);
    nd_model_fixture_train(&f, false);
    cr_assert_gt(f.model->collider.kept[0], -1);
    cr_assert_geq(calls_of("cross_entropy", -1), 2, "all logits were kept");
    for (int i = 0; i < seen.count; i++)
        if (of_the_head(&seen.list[i]))
            cr_assert_eq(seen.list[i].rows % ND_KEPT_ROUND, 0, "%s of %lld rows", seen.list[i].op,
                         (long long)seen.list[i].rows);
    nd_model_fixture_destroy(&f);
}

/* The products of one head: logits, their gradient's way back to the state, and to the head. */
static void check_head(const call *c, const nd_model *m, const void *head, const void *dhead)
{
    const void *logits = m->logits.data, *dlogits = m->dlogits.data ? m->dlogits.data : logits;
    cr_assert_eq(c[0].of[0], logits);
    cr_assert_eq(c[0].of[2], head);
    cr_assert_eq(c[1].of[1], dlogits);
    cr_assert_eq(c[1].of[2], head);
    cr_assert_eq(c[2].of[1], dlogits);
    cr_assert_eq(c[2].of[0], dhead);
}

static nd_model_config heads_config(nd_mtp_form form, int tokens)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    config.mtp_form = form;
    config.mtp_tokens = tokens;
    for (int j = 1; j < tokens; j++)
        config.loss.offset_weight[j] = 0.5f;
    return config;
}

static void check_separate_heads(const nd_model_config *config, bool narrow)
{
    nd_model_fixture f = nd_model_fixture_create(config, false, seed);
    call products[12];
    int count = 0;
    cr_assert_eq(f.model->dlogits.data != NULL, narrow);
    watch(f.backend);
    seen.chosen = true;
    nd_model_fixture_train(&f, false);
    for (int i = 0; i < seen.count; i++)
        if (strcmp(seen.list[i].op, "gemm") == 0) {
            cr_assert_lt(count, 12);
            products[count++] = seen.list[i];
        }
    cr_assert_eq(count, 12);
    const nd_params *params = &f.model->params;
    for (int head = 0; head < 4; head++) {
        const int64_t index =
            head == 0 ? nd_params_head(params) : nd_params_mtp_first(params, head - 1);
        check_head(products + 3 * (size_t)head, f.model, f.model->weights[index].dense.data,
                   f.gradients[index].data);
    }
    nd_model_fixture_destroy(&f);
}

/* In bf16 the gradients of logits have memory of their own on every device. */
Test(kept_rows, each_separate_head_is_done_before_the_next_begins_in_the_same_logits)
{
    nd_model_config config = heads_config(ND_MTP_SEPARATE, 4);
    check_separate_heads(&config, false);
    config.compute = ND_BF16;
    config.on_device = true;
    check_separate_heads(&config, true);
}

Test(kept_rows, the_shared_form_does_the_heads_products_once_for_all_targets)
{
    nd_model_config config = heads_config(ND_MTP_SHARED, 1);
    config.loss.offsets = 4;
    for (int j = 1; j < 4; j++)
        config.loss.offset_weight[j] = 0.5f;
    nd_model_fixture f = nd_model_fixture_create(&config, false, seed);
    watch(f.backend);
    seen.chosen = true;
    nd_model_fixture_train(&f, false);
    cr_assert_eq(calls_of("gemm", -1), 3);
    cr_assert_eq(calls_of("cross_entropy", -1), 1);
    nd_model_fixture_destroy(&f);
}

Test(kept_rows, more_separate_heads_take_no_more_logits)
{
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        nd_model_config config = heads_config(ND_MTP_SEPARATE, i ? 8 : 2);
        config.vocab_size = 5000;
        nd_model_fixture f = nd_model_fixture_create(&config, false, seed);
        bytes[i] = f.activations.size;
        cr_assert_gt(bytes[i], nd_view_bytes(nd_as_const(f.model->logits)));
        nd_model_fixture_destroy(&f);
    }
    /* a loss for each */
    cr_assert_leq(bytes[1], bytes[0] + 128, "%zu and %zu bytes", bytes[0], bytes[1]);
}

static size_t aligned(size_t bytes)
{
    return (bytes + ND_ARENA_ALIGN - 1) / ND_ARENA_ALIGN * ND_ARENA_ALIGN;
}

/* The quantized inputs of projections are computed again. */
Test(kept_rows, a_layer_keeps_its_residual_streams_attention_and_gates_alone)
{
    nd_model_config c = nd_model_fixture_config(ND_ARCH_BITNET, ND_BF16);
    nd_model_fixture few = nd_model_fixture_create(&c, false, seed);
    c.num_layers++;
    nd_model_fixture more = nd_model_fixture_create(&c, false, seed);
    const size_t t = (size_t)(c.micro_batch * c.seq_length), d = (size_t)c.hidden_dim,
                 heads = (size_t)c.num_heads, kv = (size_t)(c.num_kv_heads * c.head_dim),
                 f = (size_t)c.ffn_dim;
    cr_assert_eq(more.activations.size - few.activations.size,
                 4 * aligned(2 * t * d) + 2 * aligned(2 * t * kv) + 2 * aligned(2 * t * f) +
                     aligned(4 * t * heads));
    nd_model_fixture_destroy(&few);
    nd_model_fixture_destroy(&more);
}
