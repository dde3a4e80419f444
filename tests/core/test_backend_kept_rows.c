/* Ops on a part of the tokens: the fast layer against the reference, and both against the whole. */
#include "core/conformance.h"

static const double KEPT_F32 = 2e-6, KEPT_BF16 = 8e-3;

/* Which tokens a shape keeps: every token with probability `part`, then -1 up to `padding` more. */
typedef struct kept_case {
    int64_t sequences, length, heads, kv_heads, head_dim;
    double part;
    int64_t padding;
} kept_case;

static const kept_case cases[] = {
    {1, 1, 1, 1, 4, 1.0, 0},    {2, 17, 4, 2, 16, 0.5, 3}, {1, 130, 3, 1, 64, 0.65, 31},
    {3, 40, 4, 4, 8, 0.1, 0},   {1, 270, 2, 1, 8, 0.6, 5}, {1, 140, 3, 1, 7, 0.0, 4},
    {2, 129, 6, 2, 8, 0.99, 1}, {4, 33, 4, 1, 64, 0.0, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

static nd_cview choose(harness *h, const kept_case *c)
{
    const int64_t tokens = c->sequences * c->length;
    const uint64_t key = nd_rng_key(h->seed + h->drawn++, "kept");
    int64_t count = 0;
    int32_t chosen[tokens + c->padding];
    for (int64_t t = 0; t < tokens; t++)
        if (nd_rng_uniform(key, (uint64_t)t) < c->part)
            chosen[count++] = (int32_t)t;
    for (int64_t i = 0; i < c->padding; i++)
        chosen[count++] = -1;
    const nd_view rows = poisoned(h, ND_I32, 1, count);
    memcpy(rows.data, chosen, (size_t)count * sizeof *chosen);
    return nd_as_const(rows);
}

static nd_view gathered(harness *h, nd_cview x, nd_cview rows)
{
    const nd_view y = poisoned(h, x.dtype, rows.cols, x.cols);
    ND_ASSERT_OK(h->backend[0]->ops.gather_rows(h->backend[0], y, x, rows));
    return y;
}

Test(kept_rows, are_gathered_as_they_are_and_padded_with_zeros)
{
    static const nd_dtype dtypes[] = {ND_F64, ND_F32, ND_BF16, ND_I32, ND_I8, ND_U8};
    harness h;
    harness_open(&h);
    for (int c = 0; c < CASES; c++)
        for (int d = 0; d < 6; d++) {
            const nd_cview rows = choose(&h, &cases[c]);
            const int64_t tokens = cases[c].sequences * cases[c].length, width = 1 + 37 * d;
            const nd_cview x = nd_as_const(random_integers(&h, dtypes[d], tokens, width, 0, 100));
            const outputs y = poisoned_outputs(&h, dtypes[d], dtypes[d], rows.cols, width);
            RUN(&h, gather_rows, y.view[i], x, rows);
            for (int64_t r = 0; r < rows.cols; r++)
                for (int64_t j = 0; j < width; j++) {
                    const int32_t from = ((const int32_t *)rows.data)[r];
                    const double expected = from < 0 ? 0.0 : nd_load(x, from * width + j);
                    cr_assert_eq(nd_load(nd_as_const(y.view[0]), r * width + j), expected);
                }
            check_equal(&h, "gather_rows", &y);
            harness_reset(&h);
        }
    harness_close(&h);
}

Test(kept_rows, are_gathered_in_place)
{
    harness h;
    harness_open(&h);
    for (int c = 0; c < CASES; c++) {
        const nd_cview rows = choose(&h, &cases[c]);
        const int64_t tokens = cases[c].sequences * cases[c].length, width = 600;
        if (rows.cols > tokens) {
            harness_reset(&h);
            continue;
        }
        const nd_cview x = nd_as_const(random_floats(&h, ND_F32, tokens, width, 1.0f));
        const outputs all = copied_outputs(&h, ND_F32, x);
        const nd_view expected = gathered(&h, x, rows);
        RUN(&h, gather_rows, nd_view_rows(all.view[i], 0, rows.cols), nd_as_const(all.view[i]),
            rows);
        for (int i = 0; i < BACKENDS; i++)
            cr_assert_eq(
                memcmp(all.view[i].data, expected.data, nd_view_bytes(nd_as_const(expected))), 0);
        harness_reset(&h);
    }
    harness_close(&h);
}

Test(kept_rows, rotate_by_the_position_they_come_from)
{
    harness h;
    harness_open(&h);
    for (int c = 0; c < CASES; c++)
        for (int style = 0; style < 2; style++) {
            const kept_case *k = &cases[c];
            const int64_t head_dim = 8, tokens = k->sequences * k->length;
            const nd_cview rows = choose(&h, k);
            const nd_view x = random_floats(&h, ND_F32, tokens, 3 * head_dim, 1.0f);
            nd_rope_params params = {.style = (nd_rope_style)style,
                                     .head_dim = head_dim,
                                     .seq_len = k->length,
                                     .base = 100.0,
                                     .inverse = true};
            const outputs part =
                copied_outputs(&h, ND_F64, nd_as_const(gathered(&h, nd_as_const(x), rows)));
            const outputs whole = copied_outputs(&h, ND_F64, nd_as_const(x));
            RUN(&h, rope, whole.view[i], &params);
            params.rows = rows;
            RUN(&h, rope, part.view[i], &params);
            for (int i = 0; i < BACKENDS; i++) {
                const nd_view expected = gathered(&h, nd_as_const(whole.view[i]), rows);
                cr_assert_eq(
                    memcmp(part.view[i].data, expected.data, nd_view_bytes(nd_as_const(expected))),
                    0);
            }
            harness_reset(&h);
        }
    harness_close(&h);
}

typedef struct attention_case {
    nd_attention_shape shape;
    nd_cview q, k, v, dout, o, lse; /* of all tokens */
} attention_case;

/* Tensors in `type` with o and lse as the forward pass gives them. */
static attention_case attend(harness *h, const kept_case *c, nd_dtype type)
{
    const int64_t tokens = c->sequences * c->length;
    const int64_t width = c->heads * c->head_dim, kv_width = c->kv_heads * c->head_dim;
    attention_case a = {.shape = {.sequences = c->sequences,
                                  .query_len = c->length,
                                  .key_len = c->length,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim}};
    a.q = nd_as_const(random_floats(h, type, tokens, width, 1.0f));
    a.k = nd_as_const(random_floats(h, type, tokens, kv_width, 1.0f));
    a.v = nd_as_const(random_floats(h, type, tokens, kv_width, 1.0f));
    a.dout = nd_as_const(random_floats(h, type, tokens, width, 1.0f));
    const nd_view o = poisoned(h, type, tokens, width), lse = poisoned(h, ND_F32, tokens, c->heads);
    ND_ASSERT_OK(h->backend[0]->ops.attention(h->backend[0], o, lse, a.q, a.k, a.v, &a.shape));
    a.o = nd_as_const(o);
    a.lse = nd_as_const(lse);
    return a;
}

static void check_kept_attention(harness *h, const kept_case *c, nd_dtype type)
{
    const attention_case a = attend(h, c, type);
    const double tolerance = type == ND_BF16 ? KEPT_BF16 : KEPT_F32;
    nd_attention_shape part = a.shape;
    part.rows = choose(h, c);
    const outputs dq = poisoned_outputs(h, ND_F64, type, part.rows.cols, a.q.cols);
    const outputs dk = poisoned_outputs(h, ND_F64, type, part.rows.cols, a.k.cols);
    const outputs dv = poisoned_outputs(h, ND_F64, type, part.rows.cols, a.k.cols);
    const nd_cview q = nd_as_const(gathered(h, a.q, part.rows));
    const nd_cview dout = nd_as_const(gathered(h, a.dout, part.rows));
    const nd_cview o = nd_as_const(gathered(h, a.o, part.rows));
    const nd_cview lse = nd_as_const(gathered(h, a.lse, part.rows));
    RUN(h, attention_backward, dq.view[i], dk.view[i], dv.view[i], dout, o, lse, q, a.k, a.v,
        &part);
    if (c->length == 1) /* one key: its score has no gradient but rounding */
        check_same_bits(h, "kept dq", &dq);
    else
        check_close(h, "kept dq", &dq, tolerance);
    if (c->length > 1)
        check_close(h, "kept dk", &dk, tolerance);
    check_close(h, "kept dv", &dv, tolerance);

    /* The same with all rows and masks: zero dout where filtered, dk and dv of filtered keys
     * dropped. */
    const nd_view masked = poisoned(h, ND_F64, a.dout.rows, a.dout.cols);
    memset(masked.data, 0, nd_view_bytes(nd_as_const(masked)));
    for (int64_t r = 0; r < part.rows.cols; r++) {
        const int32_t token = ((const int32_t *)part.rows.data)[r];
        for (int64_t j = 0; token >= 0 && j < masked.cols; j++)
            set_element(masked, token * masked.cols + j, nd_load(a.dout, token * masked.cols + j));
    }
    const nd_view all_dq = poisoned(h, ND_F64, a.q.rows, a.q.cols);
    const nd_view all_dk = poisoned(h, ND_F64, a.k.rows, a.k.cols);
    const nd_view all_dv = poisoned(h, ND_F64, a.k.rows, a.k.cols);
    ND_ASSERT_OK(h->backend[0]->ops.attention_backward(h->backend[0], all_dq, all_dk, all_dv,
                                                       nd_as_const(masked), a.o, a.lse, a.q, a.k,
                                                       a.v, &a.shape));
    const nd_cview expected[] = {nd_as_const(gathered(h, nd_as_const(all_dq), part.rows)),
                                 nd_as_const(gathered(h, nd_as_const(all_dk), part.rows)),
                                 nd_as_const(gathered(h, nd_as_const(all_dv), part.rows))};
    const nd_view got[] = {dq.view[0], dk.view[0], dv.view[0]};
    for (int i = 0; i < 3; i++)
        for (int64_t j = 0; j < nd_view_count(expected[i]); j++)
            cr_assert_float_eq(nd_load(nd_as_const(got[i]), j), nd_load(expected[i], j), 1e-12);
}

/* Attention over `rows` against the rows of `whole`, to the bit. */
static void check_rows_of_attention(harness *h, const attention_case *a, nd_cview rows,
                                    const outputs *whole_o, const outputs *whole_lse)
{
    nd_attention_shape part = a->shape;
    part.rows = rows;
    const nd_cview q = nd_as_const(gathered(h, a->q, rows));
    const outputs o = poisoned_outputs(h, a->o.dtype, a->o.dtype, rows.cols, q.cols);
    const outputs lse = poisoned_outputs(h, ND_F32, ND_F32, rows.cols, a->lse.cols);
    RUN(h, attention, o.view[i], lse.view[i], q, a->k, a->v, &part);
    for (int i = 0; i < BACKENDS; i++) {
        const nd_view got[] = {o.view[i], lse.view[i]};
        const nd_view expected[] = {gathered(h, nd_as_const(whole_o->view[i]), rows),
                                    gathered(h, nd_as_const(whole_lse->view[i]), rows)};
        for (int j = 0; j < 2; j++)
            cr_assert_eq(
                memcmp(got[j].data, expected[j].data, nd_view_bytes(nd_as_const(expected[j]))), 0,
                "%s of %lld rows of %lld differ", j == 0 ? "o" : "lse", (long long)rows.cols,
                (long long)a->q.rows);
    }
}

Test(kept_rows, attention_over_a_part_gives_the_rows_of_the_whole_to_the_bit)
{
    harness h;
    harness_open(&h);
    for (int c = 0; c < CASES; c++)
        for (int type = 0; type < 2; type++) {
            const nd_dtype t = float_dtypes[type];
            const attention_case a = attend(&h, &cases[c], t);
            const outputs o = poisoned_outputs(&h, t, t, a.q.rows, a.q.cols);
            const outputs lse = poisoned_outputs(&h, ND_F32, ND_F32, a.q.rows, a.lse.cols);
            RUN(&h, attention, o.view[i], lse.view[i], a.q, a.k, a.v, &a.shape);
            check_rows_of_attention(&h, &a, choose(&h, &cases[c]), &o, &lse);
            harness_reset(&h);
        }
    harness_close(&h);
}

Test(kept_rows, attention_backward_agrees_with_the_reference_and_with_masks)
{
    harness h;
    harness_open(&h);
    for (int c = 0; c < CASES; c++)
        for (int type = 0; type < 2; type++) {
            check_kept_attention(&h, &cases[c], float_dtypes[type]);
            harness_reset(&h);
        }
    harness_close(&h);
}

Test(kept_rows, attention_backward_of_all_rows_is_that_without_rows_to_the_bit)
{
    harness h;
    harness_open(&h);
    for (int c = 0; c < CASES; c++)
        for (int type = 0; type < 2; type++) {
            kept_case all = cases[c];
            all.part = 1.0;
            all.padding = 0;
            const attention_case a = attend(&h, &all, float_dtypes[type]);
            nd_attention_shape part = a.shape;
            part.rows = choose(&h, &all);
            const nd_dtype t = float_dtypes[type];
            const nd_cview like[] = {a.q, a.k, a.k};
            outputs whole[3], rows[3];
            for (int g = 0; g < 3; g++) {
                whole[g] = poisoned_outputs(&h, ND_F64, t, like[g].rows, like[g].cols);
                rows[g] = poisoned_outputs(&h, ND_F64, t, like[g].rows, like[g].cols);
            }
            RUN(&h, attention_backward, whole[0].view[i], whole[1].view[i], whole[2].view[i],
                a.dout, a.o, a.lse, a.q, a.k, a.v, &a.shape);
            RUN(&h, attention_backward, rows[0].view[i], rows[1].view[i], rows[2].view[i], a.dout,
                a.o, a.lse, a.q, a.k, a.v, &part);
            for (int g = 0; g < 3; g++)
                for (int i = 0; i < BACKENDS; i++)
                    cr_assert_eq(memcmp(whole[g].view[i].data, rows[g].view[i].data,
                                        nd_view_bytes(nd_as_const(whole[g].view[i]))),
                                 0);
            harness_reset(&h);
        }
    harness_close(&h);
}
