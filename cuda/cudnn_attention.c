/* The graphs have the form of cuDNN's fused attention (NVIDIA, cuDNN documentation, "Attention";
 * Dao, arXiv:2307.08691), by which the library recognizes them; operations that look redundant are
 * not.
 *
 * cuDNN has two backward forms. One adds parts of dq to f32 memory in order of arrival (and none of
 * its engines claims to be reproducible). The other, used here, stores ds in the workspace and
 * computes dq as one product of it. That workspace is quadratic in the length, so a batch is
 * processed in parts: as many sequences, or heads of one, as a fixed workspace holds. */
#include "cudnn_attention.h"

#include "cudnn_engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ids of a plan's arguments. */
enum { Q = 1, K, V, O, LSE, DOUT, DQ, DK, DV, DELTA, SCALE, MASKED, ONE, ARGUMENTS };

/* The oldest supported version; the newest that needs whole tiles of keys backward. */
enum { OLDEST = 91100, WHOLE_TILES = 91500, TILE = 128 };

/* The most workspace, in bytes, that an engine may need for a part. */
static const int64_t WORKSPACE_LIMIT = (int64_t)512 << 20;

struct nd_cudnn_plan {
    nd_cudnn_shape shape, part; /* the graph is of a part */
    nd_cudnn_graph graph;
    nd_cudnn_choice choice;
    float numbers[3]; /* the scale, the masked score, one */
    char reason[ND_CUDNN_REASON];
    nd_cudnn_plan *next;
};

struct nd_cudnn {
    nd_cudnn_library library;
    nd_cudnn_target target;
    nd_cudnn_graph described; /* holds target.properties */
    int64_t version;
    int capability;
    nd_cudnn_plan *plans;
};

static nd_status open_library(int capability, nd_cudnn **cudnn)
{
    nd_cudnn *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for cuDNN's plans");
    nd_status status = nd_cudnn_library_open(&made->library);
    const int64_t version = status == ND_OK ? (int64_t)made->library.version() : 0;
    ND_IF_OK(ND_CHECK(version >= OLDEST, ND_EINTERNAL,
                      "cuDNN %lld.%lld.%lld is too old for attention, which takes %d.%d",
                      (long long)(version / 10000), (long long)(version / 100 % 100),
                      (long long)(version % 100), OLDEST / 10000, OLDEST / 100 % 100));
    made->version = version;
    made->capability = capability;
    nd_cudnn_graph_open(&made->described, &made->library);
    ND_RETURN_MADE(status, made, free, cudnn);
}

static nd_status failed(nd_cudnn *cudnn, cudnnStatus_t code, const char *what)
{
    char reason[ND_CUDNN_REASON];
    nd_cudnn_describe(&cudnn->library, code, reason, sizeof reason);
    return ND_FAIL(ND_EINTERNAL, "cuDNN: %s: %s", what, reason);
}

nd_status nd_cudnn_create(void *stream, int capability, nd_cudnn **cudnn)
{
    nd_cudnn *made;
    ND_TRY(open_library(capability, &made));
    const char *what = "cudnnCreate";
    cudnnStatus_t code = made->library.create(&made->target.handle);
    if (code == CUDNN_STATUS_SUCCESS) {
        what = "cudnnSetStream";
        code = made->library.set_stream(made->target.handle, stream);
    }
    ND_RETURN_MADE(code == CUDNN_STATUS_SUCCESS ? ND_OK : failed(made, code, what), made,
                   nd_cudnn_destroy, cudnn);
}

nd_status nd_cudnn_create_described(const char *json, int capability, nd_cudnn **cudnn)
{
    nd_cudnn *made;
    ND_TRY(open_library(capability, &made));
    nd_cudnn_graph *g = &made->described;
    made->target.properties = nd_cudnn_make(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    nd_cudnn_set(g, made->target.properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                 CUDNN_TYPE_CHAR, (int64_t)strlen(json), json);
    nd_cudnn_finish(g, made->target.properties, "description of a device");
    ND_RETURN_MADE(ND_CHECK(!g->failed[0], ND_EINTERNAL, "cuDNN: %s", g->failed), made,
                   nd_cudnn_destroy, cudnn);
}

void nd_cudnn_destroy(nd_cudnn *cudnn)
{
    if (!cudnn)
        return;
    while (cudnn->plans) {
        nd_cudnn_plan *next = cudnn->plans->next;
        nd_cudnn_graph_close(&cudnn->plans->graph);
        free(cudnn->plans);
        cudnn->plans = next;
    }
    nd_cudnn_graph_close(&cudnn->described);
    if (cudnn->target.handle)
        cudnn->library.destroy(cudnn->target.handle);
    free(cudnn);
}

/* From the support tables of cuDNN's release notes for fused attention. */
const char *nd_cudnn_refuses(int64_t version, int capability, const nd_cudnn_shape *s)
{
    if (capability < 80)
        return "the device has no tensor cores for bf16";
    if (s->head_dim % 8 != 0)
        return "head_dim is not a multiple of 8";
    if (s->head_dim > (capability / 10 == 9 ? 256 : 128))
        return "head_dim is too large for this device";
    if (s->length < 2)
        return "sequences of one token";
    if (s->backward && capability >= 100)
        return "its backward pass for this device gives the same bits only with settings that are "
               "not used here";
    if (s->backward && version <= WHOLE_TILES && s->length % TILE != 0)
        return "this version's backward pass needs lengths in multiples of 128";
    return NULL;
}

static nd_cudnn_tensor pointwise_with(nd_cudnn_graph *g, cudnnPointwiseMode_t mode,
                                      nd_cudnn_tensor x, nd_cudnn_tensor b)
{
    return nd_cudnn_pointwise(g, mode, x, &b);
}

static nd_cudnn_tensor with_type(nd_cudnn_graph *g, cudnnPointwiseMode_t mode,
                                 cudnnDataType_t compute, cudnnDataType_t type, int64_t axis,
                                 nd_cudnn_tensor x, const nd_cudnn_tensor *b)
{
    const nd_cudnn_tensor y = nd_cudnn_between(g, type, x.dim, NULL);
    nd_cudnn_pointwise_into(g, mode, compute, axis, &x, b, NULL, &y);
    return y;
}

/* Scores of keys after their query become -inf. */
static nd_cudnn_tensor mask(nd_cudnn_graph *g, nd_cudnn_tensor s, nd_cudnn_tensor masked)
{
    const nd_cudnn_tensor row =
        with_type(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, CUDNN_DATA_INT32, 2, s, NULL);
    const nd_cudnn_tensor col =
        with_type(g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, CUDNN_DATA_INT32, 3, s, NULL);
    const nd_cudnn_tensor seen =
        with_type(g, CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, CUDNN_DATA_BOOLEAN, 0, row, &col);
    const nd_cudnn_tensor y = nd_cudnn_between(g, CUDNN_DATA_FLOAT, s.dim, NULL);
    nd_cudnn_pointwise_into(g, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, 0, &s, &masked,
                            &seen, &y);
    return y;
}

/* Dimensions b, h, s, d of memory [tokens, heads*head_dim]: `heads` of a part, `all` in memory.
 * `turned` exchanges the last two: kᵀ, vᵀ. */
static nd_cudnn_tensor rows(nd_cudnn_graph *g, int64_t id, const nd_cudnn_shape *s, int64_t heads,
                            int64_t all, bool turned)
{
    const int64_t width = all * s->head_dim;
    const int64_t dim[4] = {s->sequences, heads, turned ? s->head_dim : s->length,
                            turned ? s->length : s->head_dim};
    const int64_t stride[4] = {s->length * width, s->head_dim, turned ? 1 : width,
                               turned ? width : 1};
    return nd_cudnn_argument(g, id, CUDNN_DATA_BFLOAT16, ND_CUDNN_ALIGNMENT, dim, stride);
}

static nd_cudnn_tensor tokens(nd_cudnn_graph *g, int64_t id, const nd_cudnn_shape *s, int64_t heads,
                              int64_t all)
{
    return rows(g, id, s, heads, all, false);
}

static nd_cudnn_tensor transposed_tokens(nd_cudnn_graph *g, int64_t id, const nd_cudnn_shape *s,
                                         int64_t all)
{
    return rows(g, id, s, s->kv_heads, all, true);
}

/* One f32 per token and head, in the layout of lse. */
static nd_cudnn_tensor statistics(nd_cudnn_graph *g, const nd_cudnn_shape *s, int64_t all)
{
    const int64_t dim[4] = {s->sequences, s->heads, s->length, 1};
    const int64_t stride[4] = {s->length * all, 1, all, 1};
    return nd_cudnn_argument(g, LSE, CUDNN_DATA_FLOAT, sizeof(float), dim, stride);
}

/* s = scale q kᵀ. */
static nd_cudnn_tensor scores(nd_cudnn_graph *g, nd_cudnn_tensor q, nd_cudnn_tensor kt,
                              nd_cudnn_tensor scale)
{
    const int64_t dim[4] = {q.dim[0], q.dim[1], q.dim[2], kt.dim[3]};
    const nd_cudnn_tensor s = nd_cudnn_between(g, CUDNN_DATA_FLOAT, dim, NULL);
    nd_cudnn_product(g, q, kt, s);
    return pointwise_with(g, CUDNN_POINTWISE_MUL, s, scale);
}

/* p = softmax(mask(s)); o = p v; lse = log of the softmax's sum. */
static void forward_graph(nd_cudnn_graph *g, const nd_cudnn_shape *s, const nd_cudnn_shape *whole)
{
    const int64_t heads = whole->heads, kv_heads = whole->kv_heads;
    const int64_t row[4] = {s->sequences, s->heads, s->length, 1};
    const nd_cudnn_tensor q = tokens(g, Q, s, s->heads, heads);
    const nd_cudnn_tensor o = tokens(g, O, s, s->heads, heads);
    const nd_cudnn_tensor kt = transposed_tokens(g, K, s, kv_heads);
    const nd_cudnn_tensor v = tokens(g, V, s, s->kv_heads, kv_heads);
    const nd_cudnn_tensor lse = statistics(g, s, heads);
    const nd_cudnn_tensor scale = nd_cudnn_number(g, SCALE), masked = nd_cudnn_number(g, MASKED);
    const nd_cudnn_tensor x = mask(g, scores(g, q, kt, scale), masked);
    const nd_cudnn_tensor top = nd_cudnn_between(g, CUDNN_DATA_FLOAT, row, NULL);
    nd_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_MAX, x, top);
    const nd_cudnn_tensor below = pointwise_with(g, CUDNN_POINTWISE_SUB, x, top);
    const nd_cudnn_tensor e = nd_cudnn_pointwise(g, CUDNN_POINTWISE_EXP, below, NULL);
    const nd_cudnn_tensor sum = nd_cudnn_between(g, CUDNN_DATA_FLOAT, row, NULL);
    nd_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    const nd_cudnn_tensor log_sum = nd_cudnn_pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL);
    nd_cudnn_pointwise_into(g, CUDNN_POINTWISE_ADD, CUDNN_DATA_FLOAT, 0, &top, &log_sum, NULL,
                            &lse);
    const nd_cudnn_tensor p =
        with_type(g, CUDNN_POINTWISE_DIV, CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16, 0, e, &sum);
    nd_cudnn_product(g, p, v, o);
}

static nd_cudnn_tensor exchanged(nd_cudnn_graph *g, nd_cudnn_tensor x)
{
    const int64_t rows = x.dim[2], cols = x.dim[3];
    const int64_t dim[4] = {x.dim[0], x.dim[1], cols, rows};
    const int64_t stride[4] = {x.dim[1] * rows * cols, rows * cols, 1, cols};
    const nd_cudnn_tensor y = nd_cudnn_between(g, CUDNN_DATA_BFLOAT16, dim, stride);
    nd_cudnn_reshape(g, x, y);
    return y;
}

/* y = xᵀ z, summed over the query heads that share a head of y. */
static void gather_heads(nd_cudnn_graph *g, nd_cudnn_tensor xt, nd_cudnn_tensor z,
                         nd_cudnn_tensor y)
{
    if (y.dim[1] == z.dim[1]) {
        nd_cudnn_product(g, xt, z, y);
        return;
    }
    const int64_t dim[4] = {y.dim[0], z.dim[1], y.dim[2], y.dim[3]};
    const nd_cudnn_tensor each = nd_cudnn_between(g, CUDNN_DATA_BFLOAT16, dim, NULL);
    nd_cudnn_product(g, xt, z, each);
    nd_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, each, y);
}

/* p = exp(mask(s) - lse); delta = dout . o; dv = pᵀ dout; ds = scale p (dout vᵀ - delta);
 * dk = dsᵀ q; dq = ds k. */
static void backward_graph(nd_cudnn_graph *g, const nd_cudnn_shape *s, const nd_cudnn_shape *whole)
{
    const int64_t heads = whole->heads, kv_heads = whole->kv_heads;
    const int64_t row[4] = {s->sequences, s->heads, s->length, 1};
    const int64_t packed[4] = {s->heads * s->length, s->length, 1, 1};
    const nd_cudnn_tensor q = tokens(g, Q, s, s->heads, heads);
    const nd_cudnn_tensor o = tokens(g, O, s, s->heads, heads);
    const nd_cudnn_tensor kt = transposed_tokens(g, K, s, kv_heads);
    const nd_cudnn_tensor vt = transposed_tokens(g, V, s, kv_heads);
    const nd_cudnn_tensor dout = tokens(g, DOUT, s, s->heads, heads);
    const nd_cudnn_tensor dq = tokens(g, DQ, s, s->heads, heads);
    const nd_cudnn_tensor dk = tokens(g, DK, s, s->kv_heads, kv_heads);
    const nd_cudnn_tensor dv = tokens(g, DV, s, s->kv_heads, kv_heads);
    const nd_cudnn_tensor lse = statistics(g, s, heads);
    const nd_cudnn_tensor scale = nd_cudnn_number(g, SCALE), masked = nd_cudnn_number(g, MASKED);
    const nd_cudnn_tensor one = nd_cudnn_number(g, ONE);
    const nd_cudnn_tensor delta =
        nd_cudnn_argument(g, DELTA, CUDNN_DATA_FLOAT, ND_CUDNN_ALIGNMENT, row, packed);

    const nd_cudnn_tensor both = pointwise_with(g, CUDNN_POINTWISE_MUL, dout, o);
    const nd_cudnn_tensor inner = nd_cudnn_between(g, CUDNN_DATA_FLOAT, row, NULL);
    nd_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, both, inner);
    nd_cudnn_pointwise_into(g, CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, 0, &inner, &one, NULL,
                            &delta);

    const nd_cudnn_tensor below =
        pointwise_with(g, CUDNN_POINTWISE_SUB, scores(g, q, kt, scale), lse);
    const nd_cudnn_tensor p =
        nd_cudnn_pointwise(g, CUDNN_POINTWISE_EXP, mask(g, below, masked), NULL);
    gather_heads(g, exchanged(g, p), dout, dv);

    const nd_cudnn_tensor dp = nd_cudnn_between(g, CUDNN_DATA_FLOAT, p.dim, NULL);
    nd_cudnn_product(g, dout, vt, dp);
    const nd_cudnn_tensor around = pointwise_with(g, CUDNN_POINTWISE_SUB, dp, delta);
    const nd_cudnn_tensor change = pointwise_with(g, CUDNN_POINTWISE_MUL, around, p);
    const nd_cudnn_tensor ds = pointwise_with(g, CUDNN_POINTWISE_MUL, change, scale);
    gather_heads(g, exchanged(g, ds), q, dk);

    const int64_t width = kv_heads * s->head_dim;
    const int64_t dim[4] = {s->sequences, s->kv_heads, s->length, s->head_dim};
    const int64_t stride[4] = {s->length * width, s->head_dim, width, 1};
    const nd_cudnn_tensor k = nd_cudnn_between(g, CUDNN_DATA_BFLOAT16, dim, stride);
    nd_cudnn_reshape(g, kt, k);
    nd_cudnn_product(g, ds, k, dq);
}

bool nd_cudnn_part(const nd_cudnn_shape *shape, int64_t bytes, nd_cudnn_shape *part)
{
    const int64_t group = shape->heads / shape->kv_heads;
    const int64_t head = 2 * shape->length * shape->length;
    *part = *shape;
    if (!shape->backward)
        return true;
    while (part->sequences > 1 && part->sequences * part->heads * head > bytes)
        do
            part->sequences--;
        while (shape->sequences % part->sequences != 0);
    while (part->kv_heads > 1 && part->sequences * part->heads * head > bytes) {
        do
            part->kv_heads--;
        while (shape->kv_heads % part->kv_heads != 0);
        part->heads = part->kv_heads * group;
    }
    return part->sequences * part->heads * head <= bytes;
}

nd_cudnn_plan *nd_cudnn_plan_known(const nd_cudnn *cudnn, const nd_cudnn_shape *s)
{
    for (nd_cudnn_plan *p = cudnn->plans; p; p = p->next)
        if (p->shape.sequences == s->sequences && p->shape.length == s->length &&
            p->shape.heads == s->heads && p->shape.kv_heads == s->kv_heads &&
            p->shape.head_dim == s->head_dim && p->shape.backward == s->backward)
            return p;
    return NULL;
}

nd_status nd_cudnn_plan_for(nd_cudnn *cudnn, const nd_cudnn_shape *s, nd_cudnn_plan **plan)
{
    *plan = nd_cudnn_plan_known(cudnn, s);
    if (*plan)
        return ND_OK;
    nd_cudnn_plan *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for a plan of cuDNN's");
    made->shape = *s;
    made->numbers[0] = (float)(1.0 / sqrt((double)s->head_dim));
    made->numbers[1] = -INFINITY;
    made->numbers[2] = 1.0f;
    made->next = cudnn->plans;
    cudnn->plans = *plan = made;
    nd_cudnn_graph_open(&made->graph, &cudnn->library);
    const char *refused = nd_cudnn_refuses(cudnn->version, cudnn->capability, s);
    if (refused) {
        snprintf(made->reason, sizeof made->reason, "%s", refused);
        return ND_OK;
    }
    if (!nd_cudnn_part(s, cudnn->library.part_bytes, &made->part)) {
        snprintf(made->reason, sizeof made->reason,
                 "so long a sequence takes more workspace than the %lld MiB allowed",
                 (long long)(cudnn->library.part_bytes >> 20));
        return ND_OK;
    }
    if (s->backward)
        backward_graph(&made->graph, &made->part, s);
    else
        forward_graph(&made->graph, &made->part, s);
    if (!nd_cudnn_choose_engine(&made->graph, cudnn->target, WORKSPACE_LIMIT, &made->choice)) {
        snprintf(made->reason, sizeof made->reason, "%s", made->graph.failed);
        nd_cudnn_graph_close(&made->graph);
    }
    return ND_OK;
}

const char *nd_cudnn_plan_reason(const nd_cudnn_plan *plan)
{
    return plan->reason[0] ? plan->reason : NULL;
}

void nd_cudnn_plan_reject(nd_cudnn_plan *plan, const char *reason)
{
    snprintf(plan->reason, sizeof plan->reason, "%s", reason);
    nd_cudnn_graph_close(&plan->graph);
}

static size_t own_workspace(const nd_cudnn_plan *plan)
{
    return ((size_t)plan->choice.workspace + 255) / 256 * 256;
}

size_t nd_cudnn_plan_workspace(const nd_cudnn_plan *plan)
{
    const nd_cudnn_shape *s = &plan->part;
    const size_t delta = (size_t)(s->sequences * s->heads * s->length) * sizeof(float);
    return own_workspace(plan) + (s->backward ? delta : 0);
}

int64_t nd_cudnn_plan_engine(const nd_cudnn_plan *plan)
{
    return plan->choice.engine;
}

/* The address of element `count` of `size` bytes from `at`; NULL stays NULL. */
static void *behind(const void *at, int64_t count, size_t size)
{
    return at ? (unsigned char *)(uintptr_t)at + (size_t)count * size : NULL;
}

/* The arguments of the part that starts at a sequence and a key-value head. */
static nd_cudnn_arguments part_of(const nd_cudnn_plan *plan, const nd_cudnn_arguments *a,
                                  int64_t sequence, int64_t kv_head)
{
    const nd_cudnn_shape *s = &plan->shape;
    const int64_t row = sequence * s->length, head = kv_head * (s->heads / s->kv_heads);
    const int64_t q = (row * s->heads + head) * s->head_dim;
    const int64_t k = (row * s->kv_heads + kv_head) * s->head_dim;
    return (nd_cudnn_arguments){
        .q = behind(a->q, q, sizeof(uint16_t)),
        .k = behind(a->k, k, sizeof(uint16_t)),
        .v = behind(a->v, k, sizeof(uint16_t)),
        .o = behind(a->o, q, sizeof(uint16_t)),
        .lse = behind(a->lse, row * s->heads + head, sizeof(float)),
        .dout = behind(a->dout, q, sizeof(uint16_t)),
        .dq = behind(a->dq, q, sizeof(uint16_t)),
        .dk = behind(a->dk, k, sizeof(uint16_t)),
        .dv = behind(a->dv, k, sizeof(uint16_t)),
        .workspace = a->workspace,
    };
}

static nd_status run_part(nd_cudnn *cudnn, const nd_cudnn_plan *plan, const nd_cudnn_arguments *a)
{
    void *const delta = behind(a->workspace, (int64_t)own_workspace(plan), 1);
    const void *const all[ARGUMENTS] = {[Q] = a->q,
                                        [K] = a->k,
                                        [V] = a->v,
                                        [O] = a->o,
                                        [LSE] = a->lse,
                                        [DOUT] = a->dout,
                                        [DQ] = a->dq,
                                        [DK] = a->dk,
                                        [DV] = a->dv,
                                        [DELTA] = delta,
                                        [SCALE] = &plan->numbers[0],
                                        [MASKED] = &plan->numbers[1],
                                        [ONE] = &plan->numbers[2]};
    const void *pointers[ARGUMENTS];
    int64_t ids[ARGUMENTS], count = 0;
    for (int64_t id = Q; id < ARGUMENTS; id++)
        if (plan->shape.backward || id <= LSE || id == SCALE || id == MASKED) {
            ids[count] = id;
            pointers[count++] = all[id];
        }
    nd_cudnn_graph pack;
    nd_cudnn_graph_open(&pack, &cudnn->library);
    const cudnnBackendDescriptor_t d = nd_cudnn_make(&pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    nd_cudnn_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count,
                 pointers);
    nd_cudnn_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids);
    nd_cudnn_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                 &a->workspace);
    nd_cudnn_finish(&pack, d, "arguments before operation");
    nd_status status = ND_OK;
    if (pack.failed[0]) {
        status = ND_FAIL(ND_EINTERNAL, "cuDNN: attention: %s", pack.failed);
    } else {
        const cudnnStatus_t code =
            cudnn->library.execute(cudnn->target.handle, plan->choice.plan, d);
        if (code != CUDNN_STATUS_SUCCESS)
            status = failed(cudnn, code, plan->shape.backward ? "attention_backward" : "attention");
    }
    nd_cudnn_graph_close(&pack);
    return status;
}

nd_status nd_cudnn_run(nd_cudnn *cudnn, const nd_cudnn_plan *plan,
                       const nd_cudnn_arguments *arguments)
{
    const nd_cudnn_shape *whole = &plan->shape, *part = &plan->part;
    for (int64_t sequence = 0; sequence < whole->sequences; sequence += part->sequences)
        for (int64_t head = 0; head < whole->kv_heads; head += part->kv_heads) {
            const nd_cudnn_arguments a = part_of(plan, arguments, sequence, head);
            ND_TRY(run_part(cudnn, plan, &a));
        }
    return ND_OK;
}
