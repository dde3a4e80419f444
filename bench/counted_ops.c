#include "counted_ops.h"

#include "core/backend/no_recording.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { VIEWS_MOST = 12, VALUES_MOST = 6 };

typedef struct seen_view {
    nd_dtype dtype;
    double rows, cols, bytes;
    bool out;
    const void *data;
} seen_view;

/* The arguments of one call. */
typedef struct call {
    int op;
    seen_view view[VIEWS_MOST];
    double value[VALUES_MOST];
    const void *parameters;
    int views, values;
} call;

static void see(call *c, nd_dtype dtype, int64_t rows, int64_t cols, const void *data, bool out)
{
    if (!data || c->views == VIEWS_MOST)
        return;
    const double count = (double)rows * (double)cols;
    c->view[c->views++] = (seen_view){
        dtype, (double)rows, (double)cols, count * (double)nd_dtype_size(dtype), out, data};
}

static double product(double a, double b, double c)
{
    return 2.0 * a * b * c;
}

/* What an int8 backward product does before it multiplies: reads dy, writes its codes, and
 * transposes `transposed` bytes of codes. */
static void int8_backward(counted_op *o, const call *c, double tokens, double inputs,
                          double outputs, double transposed)
{
    const seen_view *result = &c->view[0], *dy = &c->view[1];
    o->int8 = product(tokens, inputs, outputs);
    o->around = dy->bytes + tokens * outputs + 2.0 * transposed;
    o->bytes = tokens * outputs + transposed + result->bytes * (c->value[0] != 0.0 ? 2.0 : 1.0);
    o->kernels = 3.0;
}

static void dense_product(counted_op *o, const call *c)
{
    const seen_view *y = &c->view[0], *a = &c->view[1], *b = &c->view[2];
    const double inner = c->value[0] != 0.0 ? a->rows : a->cols;
    const bool mixed = a->dtype != b->dtype;
    o->dense = product(y->rows, y->cols, inner);
    o->bytes = y->bytes * (c->value[3] != 0.0 ? 2.0 : 1.0);
    o->kernels = mixed ? 2.0 : 1.0;
    for (int i = 1; i < 3; i++) {
        const bool narrowed = mixed && c->view[i].dtype == ND_F32;
        o->bytes += narrowed ? c->view[i].bytes / 2.0 : c->view[i].bytes;
        o->around += narrowed ? c->view[i].bytes * 1.5 : 0.0;
    }
}

/* Causal: half of the pairs. Backward, a library that writes dq once stores ds of all pairs. */
static void attention(counted_op *o, const call *c, bool backward)
{
    const nd_attention_shape *s = c->parameters;
    const double queries = (double)(s->sequences * s->query_len * s->heads);
    const double pairs = queries * (double)s->key_len;
    o->attention = (backward ? 5.0 : 2.0) * pairs * (double)s->head_dim;
    if (backward)
        o->around = 2.0 * pairs * 2.0;
}

/* Ops whose results are read as well. */
static bool reads_results(const call *c)
{
    switch (c->op) {
    case COUNTED_rope:
    case COUNTED_apply_update:
    case COUNTED_adamw:
    case COUNTED_adamw_blocks:
        return true;
    case COUNTED_axpby:
        return c->value[1] != 0.0;
    case COUNTED_rmsnorm_backward:
        return c->value[0] != 0.0;
    default:
        return false;
    }
}

/* The gradients of logits that overwrite them. */
static double overwritten_logits(const call *c)
{
    const nd_cross_entropy_params *p = c->parameters;
    return p->gradient_scale != 0.0f && !p->gradient.data ? c->view[2].bytes : 0.0;
}

/* Every argument once. */
static void by_bytes(counted_op *o, const call *c)
{
    for (int i = 0; i < c->views; i++)
        o->bytes += c->view[i].bytes * (c->view[i].out && reads_results(c) ? 2.0 : 1.0);
    o->kernels = 1.0;
}

static void measure(counted_op *o, const call *c)
{
    const seen_view *v = c->view;
    by_bytes(o, c);
    switch (c->op) {
    case COUNTED_ternary_gemm:
        o->int8 = product(v[1].rows, v[1].cols, v[0].cols);
        break;
    case COUNTED_ternary_gemm_dx_int8:
        int8_backward(o, c, v[0].rows, v[0].cols, v[1].cols, v[0].cols * v[1].cols);
        break;
    case COUNTED_ternary_gemm_dw_int8:
        int8_backward(o, c, v[1].rows, v[0].cols, v[1].cols, v[1].rows * v[0].cols);
        break;
    case COUNTED_ternary_gemm_dx:
    case COUNTED_ternary_gemm_dw:
        o->dense = product(v[1].rows, v[0].cols, v[1].cols);
        o->around = 3.0 * v[2].rows * v[2].cols; /* codes to bf16 */
        o->kernels = 2.0;
        break;
    case COUNTED_gemm:
        dense_product(o, c);
        break;
    case COUNTED_gemm_symmetric:
        o->dense = product(v[0].rows, v[0].cols, c->value[0] != 0.0 ? v[1].rows : v[1].cols) / 2.0;
        o->bytes -= v[1].data == v[2].data ? v[2].bytes : 0.0;
        break;
    case COUNTED_attention:
    case COUNTED_attention_backward:
        attention(o, c, c->op == COUNTED_attention_backward);
        break;
    case COUNTED_cross_entropy:
        o->bytes += overwritten_logits(c);
        break;
    case COUNTED_embedding: /* the rows that are looked up */
        o->bytes = 2.0 * v[0].bytes;
        break;
    case COUNTED_embedding_backward:
        o->bytes = v[1].bytes + 2.0 * v[1].rows * v[1].cols * 4.0;
        break;
    default:
        break;
    }
}

static const char *const names[COUNTED_OPS] = {
#define OP(name, ...) #name,
#include "core/backend/backend_ops.def"
#undef OP
};

/* Rows and columns of the argument that says most about an op's size. */
static void name_call(const call *c, char *name, size_t size)
{
    const seen_view *v = c->view;
    const seen_view *shown = c->op == COUNTED_attention_backward ? &v[6] : &v[0];
    for (int i = 0; c->op != COUNTED_attention_backward && i < c->views; i++)
        if (v[i].rows * v[i].cols > shown->rows * shown->cols)
            shown = &v[i];
    switch (c->op) {
    case COUNTED_ternary_gemm:
        snprintf(name, size, "%s %.0f x %.0f, %.0f", names[c->op], v[1].rows, v[1].cols, v[0].cols);
        return;
    case COUNTED_ternary_gemm_dx_int8:
    case COUNTED_ternary_gemm_dx:
        snprintf(name, size, "%s %.0f x %.0f, %.0f", names[c->op], v[0].rows, v[1].cols, v[0].cols);
        return;
    case COUNTED_ternary_gemm_dw_int8:
    case COUNTED_ternary_gemm_dw:
        snprintf(name, size, "%s %.0f x %.0f, %.0f", names[c->op], v[1].cols, v[1].rows, v[0].cols);
        return;
    case COUNTED_gemm:
        snprintf(name, size, "%s %.0f x %.0f, %.0f", names[c->op], v[0].rows,
                 c->value[0] != 0.0 ? v[1].rows : v[1].cols, v[0].cols);
        return;
    default:
        snprintf(name, size, "%s %.0f x %.0f", names[c->op], shown->rows, shown->cols);
    }
}

void counted_add(counted_op *sum, double factor, const counted_op *more)
{
    sum->calls += factor * more->calls;
    sum->bytes += factor * more->bytes;
    sum->around += factor * more->around;
    sum->int8 += factor * more->int8;
    sum->dense += factor * more->dense;
    sum->attention += factor * more->attention;
    sum->kernels += factor * more->kernels;
}

static nd_status count(nd_backend *b, const call *c)
{
    counted_list *list = b->context;
    counted_op one = {.op = c->op, .calls = 1.0};
    if (!list->counting || c->views == 0)
        return ND_OK;
    measure(&one, c);
    name_call(c, one.name, sizeof one.name);
    int i = 0;
    while (i < list->count && strcmp(list->op[i].name, one.name) != 0)
        i++;
    ND_FAIL_IF(i == COUNTED_MOST, ND_EINTERNAL, "more than %d kinds of calls", COUNTED_MOST);
    if (i == list->count)
        list->op[list->count++] = one;
    else
        counted_add(&list->op[i], 1.0, &one);
    return ND_OK;
}

#define SEE(...) ND_EACH(SEE_, __VA_ARGS__)
#define SEE_OUT(v) see(&the_call, v.dtype, v.rows, v.cols, v.data, true);
#define SEE_IN(v) see(&the_call, v.dtype, v.rows, v.cols, v.data, false);
#define SEE_BLOCKS_OUT(q) SEE_OUT(q->codes)
#define SEE_BLOCKS_IN(q) SEE_IN(q->codes)
#define SEE_TILES_OUT(q) SEE_OUT(q->codes)
#define SEE_TILES_IN(q) SEE_IN(q->codes)
#define SEE_ROWS(type, p) the_call.parameters = p;
#define SEE_LOSS(p)                                                                                \
    the_call.parameters = p;                                                                       \
    if (p->gradient.data) {                                                                        \
        SEE_OUT(p->gradient)                                                                       \
    }
#define SEE_MEMORY_OUT(p) see(&the_call, ND_U8, 1, (int64_t)bytes, p, true);
#define SEE_MEMORY_IN(p) see(&the_call, ND_U8, 1, (int64_t)bytes, p, false);
#define SEE_VALUE(type, x)                                                                         \
    the_call.value[the_call.values++] = (double)_Generic((x), float                                \
                                                         : (x), double                             \
                                                         : (x), bool                               \
                                                         : (x), default : 0);

#define OP(name, ...)                                                                              \
    static nd_status count_##name(nd_backend *b ND_OP_PARAMETERS(__VA_ARGS__))                     \
    {                                                                                              \
        call the_call = {.op = COUNTED_##name};                                                    \
        SEE(__VA_ARGS__)                                                                           \
        return count(b, &the_call);                                                                \
    }
#include "core/backend/backend_ops.def"
#undef OP

static nd_status reserve(nd_backend *b, size_t bytes, void **memory)
{
    (void)b;
    *memory = NULL;
    if (bytes == 0)
        return ND_OK;
    *memory = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*memory != MAP_FAILED)
        return ND_OK;
    *memory = NULL;
    return ND_FAIL(ND_ENOMEM, "no addresses for %zu bytes", bytes);
}

static void release(nd_backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (memory)
        munmap(memory, bytes);
}

static nd_status upload(nd_backend *b, void *device, const void *host, size_t bytes)
{
    (void)b, (void)device, (void)host, (void)bytes;
    return ND_OK;
}

static nd_status download(nd_backend *b, void *host, const void *device, size_t bytes)
{
    (void)b, (void)device;
    memset(host, 0, bytes);
    return ND_OK;
}

static nd_status synchronize(nd_backend *b)
{
    (void)b;
    return ND_OK;
}

static size_t workspace_bytes(const nd_backend *b)
{
    (void)b;
    return 0;
}

static void destroy(nd_backend *b)
{
    free(b);
}

nd_status counted_backend_create(counted_list *list, nd_backend **backend)
{
    nd_backend *b = calloc(1, sizeof *b);
    ND_FAIL_IF(!b, ND_ENOMEM, "no memory for a backend that counts");
    *b = (nd_backend){.context = list, .traits = {"a GPU, by count", true, true, true}};
#define OP(name, ...) b->ops.name = count_##name;
#include "core/backend/backend_ops.def"
#undef OP
    nd_no_recording_fill(&b->ops);
    b->ops.name = "counted";
    b->ops.host_memory = false;
    b->ops.destroy = destroy;
    b->ops.workspace_bytes = workspace_bytes;
    b->ops.allocate = reserve;
    b->ops.release = release;
    b->ops.upload = upload;
    b->ops.download = download;
    b->ops.synchronize = synchronize;
    *backend = b;
    return ND_OK;
}

void counted_start(nd_backend *b)
{
    ((counted_list *)b->context)->counting = true;
}
