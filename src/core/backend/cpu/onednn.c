#include "core/backend/cpu/onednn.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory objects hold the pointers of a call, so each thread has its own. */
typedef struct thread_memories {
    dnnl_memory_t of[ND_ONEDNN_OPERANDS];
} thread_memories;

struct nd_onednn {
    dnnl_engine_t engine;
    int threads;
    dnnl_stream_t streams[]; /* [threads] */
};

struct nd_onednn_call {
    nd_onednn *onednn;
    const int *names; /* oneDNN's names of the operands */
    int count;
    dnnl_primitive_t primitive;
    thread_memories memories[]; /* [threads] */
};

static const int product_names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST,
                                    DNNL_ARG_SCRATCHPAD};
static const int packing_names[] = {DNNL_ARG_FROM, DNNL_ARG_TO};

/* A description is a struct before version 3 and then a handle that its creator destroys. A
 * layout is a borrowed description. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t layout;

static layout layout_of(const dnnl_memory_desc_t *desc)
{
    return *desc;
}

static void destroy_desc(dnnl_memory_desc_t *desc)
{
    dnnl_memory_desc_destroy(*desc);
}

static dnnl_status_t set_pointer(dnnl_memory_t memory, void *data, dnnl_stream_t stream)
{
    (void)stream;
    return dnnl_memory_set_data_handle(memory, data);
}
#else
typedef const dnnl_memory_desc_t *layout;

#define dnnl_memory_desc_create_with_tag dnnl_memory_desc_init_by_tag
#define dnnl_memory_desc_create_with_strides dnnl_memory_desc_init_by_strides
#define dnnl_post_ops_append_sum(ops, scale, zero, type) dnnl_post_ops_append_sum(ops, scale)
#define set_pointer dnnl_memory_set_data_handle_v2

static layout layout_of(const dnnl_memory_desc_t *desc)
{
    return desc;
}

static void destroy_desc(dnnl_memory_desc_t *desc)
{
    (void)desc;
}

static dnnl_status_t dnnl_matmul_primitive_desc_create(dnnl_primitive_desc_t *created,
                                                       dnnl_engine_t engine, layout a, layout b,
                                                       layout bias, layout c,
                                                       const_dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t desc;
    const dnnl_status_t status = dnnl_matmul_desc_init(&desc, a, b, bias, c);
    return status ? status : dnnl_primitive_desc_create(created, &desc, attr, engine, NULL);
}
#endif

#define TRY_DNNL(call)                                                                             \
    do {                                                                                           \
        const dnnl_status_t dnnl_status_ = (call);                                                 \
        if (dnnl_status_ != dnnl_success)                                                          \
            return dnnl_status_;                                                                   \
    } while (0)

static nd_status checked(dnnl_status_t status, const char *what)
{
    return ND_CHECK(status == dnnl_success, status == dnnl_out_of_memory ? ND_ENOMEM : ND_EINTERNAL,
                    "oneDNN: %s failed with status %d", what, (int)status);
}

static dnnl_data_type_t type_of(nd_dtype dtype)
{
    switch (dtype) {
    case ND_F32:
        return dnnl_f32;
    case ND_BF16:
        return dnnl_bf16;
    case ND_I32:
        return dnnl_s32;
    case ND_I8:
        return dnnl_s8;
    case ND_U8:
        return dnnl_u8;
    case ND_F64:
        break;
    }
    return dnnl_data_type_undef;
}

static dnnl_status_t describe(dnnl_memory_desc_t *desc, const nd_onednn_matrix *m)
{
    const dnnl_dims_t dims = {m->rows, m->cols}, strides = {m->row_stride, m->col_stride};
    if (m->row_stride == 0 && m->col_stride == 0)
        return dnnl_memory_desc_create_with_tag(desc, 2, dims, type_of(m->dtype),
                                                dnnl_format_tag_any);
    return dnnl_memory_desc_create_with_strides(desc, 2, dims, type_of(m->dtype), strides);
}

static dnnl_status_t fill_attributes(dnnl_primitive_attr_t attr, dnnl_post_ops_t post_ops,
                                     bool accumulate)
{
    TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (accumulate)
        TRY_DNNL(dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef));
    return dnnl_primitive_attr_set_post_ops(attr, post_ops);
}

static dnnl_status_t describe_product(nd_onednn *onednn, const nd_onednn_matrix *const operands[3],
                                      bool accumulate, dnnl_primitive_desc_t *created)
{
    dnnl_memory_desc_t descs[3];
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post_ops = NULL;
    int described = 0;
    dnnl_status_t status = dnnl_success;
    while (described < 3 && status == dnnl_success) {
        status = describe(&descs[described], operands[described]);
        described += status == dnnl_success;
    }
    if (status == dnnl_success)
        status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&post_ops);
    if (status == dnnl_success)
        status = fill_attributes(attr, post_ops, accumulate);
    if (status == dnnl_success)
        status = dnnl_matmul_primitive_desc_create(created, onednn->engine, layout_of(&descs[0]),
                                                   layout_of(&descs[1]), NULL, layout_of(&descs[2]),
                                                   attr);
    while (described > 0)
        destroy_desc(&descs[--described]);
    dnnl_post_ops_destroy(post_ops);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static nd_status make_call(nd_onednn *onednn, dnnl_primitive_desc_t desc,
                           const dnnl_query_t *queries, const int *names, int count,
                           nd_onednn_call **call)
{
    nd_onednn_call *created =
        calloc(1, sizeof *created + (size_t)onednn->threads * sizeof *created->memories);
    ND_FAIL_IF(!created, ND_ENOMEM, "no memory for a product");
    created->onednn = onednn;
    created->names = names;
    created->count = count;
    dnnl_status_t status = dnnl_primitive_create(&created->primitive, desc);
    for (int thread = 0; thread < onednn->threads; thread++)
        for (int i = 0; i < count && status == dnnl_success; i++)
            status = dnnl_memory_create(&created->memories[thread].of[i],
                                        dnnl_primitive_desc_query_md(desc, queries[i], 0),
                                        onednn->engine, DNNL_MEMORY_NONE);
    ND_RETURN_MADE(checked(status, "making a primitive"), created, nd_onednn_call_destroy, call);
}

nd_status nd_onednn_product(nd_onednn *onednn, const nd_onednn_matrix *a, const nd_onednn_matrix *b,
                            const nd_onednn_matrix *c, bool accumulate, nd_onednn_call **call)
{
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                           dnnl_query_dst_md, dnnl_query_scratchpad_md};
    const nd_onednn_matrix *const operands[] = {a, b, c};
    dnnl_primitive_desc_t desc = NULL;
    const dnnl_status_t described = describe_product(onednn, operands, accumulate, &desc);
    ND_FAIL_IF(described != dnnl_success, ND_EINTERNAL,
               "oneDNN has no product [%lld, %lld, %lld] %s x %s -> %s (%d)", (long long)c->rows,
               (long long)c->cols, (long long)a->cols, nd_dtype_name(a->dtype),
               nd_dtype_name(b->dtype), nd_dtype_name(c->dtype), (int)described);
    const nd_status status = make_call(onednn, desc, queries, product_names, 4, call);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static layout operand_layout(const nd_onednn_call *call, int operand)
{
    layout found = NULL;
    dnnl_memory_get_memory_desc(call->memories[0].of[operand], &found);
    return found;
}

nd_status nd_onednn_packing(nd_onednn *onednn, const nd_onednn_matrix *b,
                            const nd_onednn_call *product, nd_onednn_call **call)
{
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_dst_md};
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t described = describe(&plain, b);
    if (described == dnnl_success) {
        described = dnnl_reorder_primitive_desc_create(&desc, layout_of(&plain), onednn->engine,
                                                       operand_layout(product, ND_ONEDNN_B),
                                                       onednn->engine, NULL);
        destroy_desc(&plain);
    }
    ND_TRY(checked(described, "describing a packed matrix"));
    const nd_status status = make_call(onednn, desc, queries, packing_names, 2, call);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

void nd_onednn_call_destroy(nd_onednn_call *call)
{
    if (!call)
        return;
    for (int thread = 0; thread < call->onednn->threads; thread++)
        for (int i = 0; i < call->count; i++)
            dnnl_memory_destroy(call->memories[thread].of[i]);
    dnnl_primitive_destroy(call->primitive);
    free(call);
}

size_t nd_onednn_bytes(const nd_onednn_call *call, int operand)
{
    return dnnl_memory_desc_get_size(operand_layout(call, operand));
}

bool nd_onednn_same_layout(const nd_onednn_call *x, const nd_onednn_call *y, int operand)
{
    return dnnl_memory_desc_equal(operand_layout(x, operand), operand_layout(y, operand)) != 0;
}

bool nd_onednn_run(const nd_onednn_call *call, int thread,
                   const void *const operands[ND_ONEDNN_OPERANDS])
{
    const thread_memories *memories = &call->memories[thread];
    dnnl_stream_t stream = call->onednn->streams[thread];
    dnnl_exec_arg_t arguments[ND_ONEDNN_OPERANDS];
    for (int i = 0; i < call->count; i++) {
        void *data;
        memcpy(&data, &operands[i], sizeof data); /* oneDNN's API lacks const */
        if (set_pointer(memories->of[i], data, stream) != dnnl_success)
            return false;
        arguments[i] = (dnnl_exec_arg_t){call->names[i], memories->of[i]};
    }
    return dnnl_primitive_execute(call->primitive, stream, call->count, arguments) == dnnl_success;
}

nd_status nd_onednn_create(int threads, nd_onednn **onednn)
{
    nd_onednn *created = calloc(1, sizeof *created + (size_t)threads * sizeof *created->streams);
    ND_FAIL_IF(!created, ND_ENOMEM, "no memory for oneDNN's streams");
    created->threads = threads;
    dnnl_status_t status = dnnl_engine_create(&created->engine, dnnl_cpu, 0);
    for (int i = 0; i < threads && status == dnnl_success; i++)
        status =
            dnnl_stream_create(&created->streams[i], created->engine, dnnl_stream_default_flags);
    ND_RETURN_MADE(checked(status, "creating the CPU engine"), created, nd_onednn_destroy, onednn);
}

void nd_onednn_destroy(nd_onednn *onednn)
{
    if (!onednn)
        return;
    for (int i = 0; i < onednn->threads; i++)
        dnnl_stream_destroy(onednn->streams[i]);
    dnnl_engine_destroy(onednn->engine);
    free(onednn);
}

static const dnnl_cpu_isa_t isas[] = {
    [ND_CPU_ISA_GENERIC] = dnnl_cpu_isa_sse41,
    [ND_CPU_ISA_DOTPROD] = dnnl_cpu_isa_sse41,
    [ND_CPU_ISA_AVX2] = dnnl_cpu_isa_avx2,
    [ND_CPU_ISA_AVX2_VNNI] = dnnl_cpu_isa_avx2_vnni,
    [ND_CPU_ISA_AVX512] = dnnl_cpu_isa_avx512_core,
    [ND_CPU_ISA_AVX512_VNNI] = dnnl_cpu_isa_avx512_core_vnni,
    [ND_CPU_ISA_AVX512_BF16] = dnnl_cpu_isa_avx512_core_bf16,
    [ND_CPU_ISA_AMX] = dnnl_cpu_isa_avx512_core_amx,
};

void nd_onednn_limit(nd_cpu_isa isa)
{
    dnnl_set_max_cpu_isa(isas[isa]);
}

bool nd_onednn_may_use(nd_cpu_isa isa)
{
    return (dnnl_get_effective_cpu_isa() & isas[isa]) == isas[isa];
}

void nd_onednn_version(char *text, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}
