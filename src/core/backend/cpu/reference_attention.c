/* Reference: causal attention with grouped queries, one query row at a time. */
#include "core/backend/cpu/op_families.h"
#include "core/backend/cpu/reference.h"

#include <math.h>
#include <stdlib.h>

/* The position of one (sequence, head, query) in the tensors. */
typedef struct query_position {
    int64_t q;       /* first element of the query, of o and of dq */
    int64_t lse;     /* element of lse */
    int64_t k;       /* first element of key 0, of v, dk and dv; keys are key_stride apart */
    int64_t visible; /* number of visible keys; 0 for a padding row */
} query_position;

/* The position of row `row` of q. */
static query_position position_of(const nd_attention_shape *s, int64_t row, int64_t head)
{
    const int64_t token = s->rows.data ? ((const int32_t *)s->rows.data)[row] : row;
    const int64_t kv_head = head / (s->heads / s->kv_heads);
    query_position at = {.q = (row * s->heads + head) * s->head_dim, .lse = row * s->heads + head};
    if (token < 0)
        return at;
    at.k = (token / s->query_len * s->key_len * s->kv_heads + kv_head) * s->head_dim;
    at.visible = s->key_len - s->query_len + token % s->query_len + 1;
    return at;
}

static double dot(nd_cview a, int64_t at, nd_cview b, int64_t bt, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += nd_load(a, at + i) * nd_load(b, bt + i);
    return sum;
}

nd_status nd_attention_check(nd_cview q, nd_cview k, nd_cview v, const nd_attention_shape *s)
{
    const int64_t rows = s->rows.data ? s->rows.cols : s->sequences * s->query_len;
    ND_REQUIRE_FLOATS(q.dtype, k.dtype, v.dtype);
    ND_REQUIRE(s->kv_heads > 0 && s->heads % s->kv_heads == 0 && s->query_len <= s->key_len);
    ND_REQUIRE(q.rows == rows && q.cols == s->heads * s->head_dim);
    ND_REQUIRE(k.rows == s->sequences * s->key_len && k.cols == s->kv_heads * s->head_dim);
    ND_REQUIRE(nd_same_shape(k, v) && (!s->rows.data || s->query_len == s->key_len));
    return ND_OK;
}

static void attend(nd_view o, nd_view lse, nd_cview q, nd_cview k, nd_cview v,
                   const nd_attention_shape *s, query_position at, double *scores)
{
    const int64_t d = s->head_dim, stride = s->kv_heads * d;
    double largest = -INFINITY;
    for (int64_t j = 0; j < at.visible; j++) {
        scores[j] = dot(q, at.q, k, at.k + j * stride, d) / sqrt((double)d);
        largest = fmax(largest, scores[j]);
    }
    double sum = 0.0;
    for (int64_t j = 0; j < at.visible; j++) {
        scores[j] = exp(scores[j] - largest);
        sum += scores[j];
    }
    /* cppcheck-suppress invalidFunctionArg ; a query sees itself at least, so sum > 0 */
    nd_store(lse, at.lse, largest + log(sum));
    for (int64_t i = 0; i < d; i++) {
        double value = 0.0;
        for (int64_t j = 0; j < at.visible; j++)
            value += scores[j] * nd_load(v, at.k + j * stride + i);
        nd_store(o, at.q + i, value / sum);
    }
}

static nd_status attention_reference(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                     nd_cview v, const nd_attention_shape *s)
{
    (void)b;
    ND_TRY(nd_attention_check(q, k, v, s));
    ND_REQUIRE_FLOATS(o.dtype, lse.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(o), q) && lse.rows == q.rows && lse.cols == s->heads);
    ND_AUTOFREE double *scores = malloc((size_t)s->key_len * sizeof *scores);
    ND_FAIL_IF(!scores, ND_ENOMEM, "no memory for %lld scores", (long long)s->key_len);
    for (int64_t row = 0; row < q.rows; row++)
        for (int64_t head = 0; head < s->heads; head++) {
            const query_position at = position_of(s, row, head);
            if (at.visible > 0) {
                attend(o, lse, q, k, v, s, at, scores);
                continue;
            }
            nd_store(lse, at.lse, 0.0);
            for (int64_t i = 0; i < s->head_dim; i++)
                nd_store(o, at.q + i, 0.0);
        }
    return ND_OK;
}

/* dk and dv of all tokens in double, so that sums over queries are not rounded early. */
typedef struct backward_sums {
    double *dk, *dv;
} backward_sums;

static void attend_backward(nd_view dq, backward_sums sums, nd_cview dout, nd_cview o, nd_cview lse,
                            nd_cview q, nd_cview k, nd_cview v, const nd_attention_shape *s,
                            query_position at)
{
    const int64_t d = s->head_dim, stride = s->kv_heads * d;
    const double scale = 1.0 / sqrt((double)d);
    const double delta = dot(dout, at.q, o, at.q, d);
    for (int64_t i = 0; i < d; i++)
        nd_store(dq, at.q + i, 0.0);
    double row[d];
    for (int64_t i = 0; i < d; i++)
        row[i] = 0.0;
    for (int64_t j = 0; j < at.visible; j++) {
        const int64_t key = at.k + j * stride;
        const double p = exp(dot(q, at.q, k, key, d) * scale - nd_load(lse, at.lse));
        const double ds = p * (dot(dout, at.q, v, key, d) - delta) * scale;
        for (int64_t i = 0; i < d; i++) {
            row[i] += ds * nd_load(k, key + i);
            sums.dk[key + i] += ds * nd_load(q, at.q + i);
            sums.dv[key + i] += p * nd_load(dout, at.q + i);
        }
    }
    for (int64_t i = 0; i < d; i++)
        nd_store(dq, at.q + i, row[i]);
}

static nd_status attention_backward_reference(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                              nd_cview dout, nd_cview o, nd_cview lse, nd_cview q,
                                              nd_cview k, nd_cview v, const nd_attention_shape *s)
{
    (void)b;
    ND_TRY(nd_attention_check(q, k, v, s));
    ND_REQUIRE_FLOATS(dq.dtype, dk.dtype, dv.dtype, dout.dtype, o.dtype, lse.dtype);
    ND_REQUIRE(nd_same_shape(nd_as_const(dq), q) && nd_same_shape(dout, q) && nd_same_shape(o, q));
    const int32_t *rows = s->rows.data;
    const int64_t count = nd_view_count(k), width = k.cols;
    const int64_t key_rows = rows ? q.rows : k.rows;
    ND_REQUIRE(dk.rows == key_rows && dv.rows == key_rows && dk.cols == width && dv.cols == width);
    ND_AUTOFREE double *memory = calloc((size_t)(2 * count) + 1, sizeof *memory);
    ND_FAIL_IF(!memory, ND_ENOMEM, "no memory for 2 x %lld sums", (long long)count);
    const backward_sums sums = {memory, memory + count};
    for (int64_t row = 0; row < q.rows; row++)
        for (int64_t head = 0; head < s->heads; head++) {
            const query_position at = position_of(s, row, head);
            if (at.visible > 0)
                attend_backward(dq, sums, dout, o, lse, q, k, v, s, at);
            else
                for (int64_t i = 0; i < s->head_dim; i++)
                    nd_store(dq, at.q + i, 0.0);
        }
    for (int64_t row = 0; row < key_rows; row++)
        for (int64_t i = 0; i < width; i++) {
            const int64_t token = rows ? rows[row] : row;
            nd_store(dk, row * width + i, token < 0 ? 0.0 : sums.dk[token * width + i]);
            nd_store(dv, row * width + i, token < 0 ? 0.0 : sums.dv[token * width + i]);
        }
    return ND_OK;
}

void nd_reference_fill_attention(nd_backend_ops *ops)
{
    ops->attention = attention_reference;
    ops->attention_backward = attention_backward_reference;
}
