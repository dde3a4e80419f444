/* Products with cuBLASLt. The algorithm is chosen once for each shape, type and alignment, so that
 * equal calls give equal bits; algorithms that accumulate from several places are excluded. */
#include "context.cuh"

#include "library.h"

#include <cublasLt.h>
#include <stdio.h>
#include <string.h>
#include <string>
#include <unordered_map>

namespace
{

const size_t WORKSPACE_BYTES = (size_t)32 << 20;

/* The library's functions. */
struct lt_functions {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtMatmul) matmul;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescDestroy) desc_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
};

/* Determines the algorithm; compared as bytes. */
struct plan_key {
    int64_t m, n, k;
    int32_t type, c_type, transpose_a, transpose_b, device_alpha;
    uint32_t a_alignment, b_alignment, c_alignment;
};

struct plan {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t left, right, result; /* in the library's column-major terms */
    cublasLtMatmulAlgo_t algorithm;
    bool found;
};

} // namespace

struct nd_cuda_matmuls {
    lt_functions lt;
    cublasLtHandle_t handle;
    void *workspace;
    std::unordered_map<std::string, plan> plans;
};

static nd_status check(cublasStatus_t code, const char *what, const nd_matmul *call)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return ND_OK;
    ND_FAIL_IF(!call, ND_EINTERNAL, "cuBLASLt: %s failed with status %d", what, (int)code);
    return ND_FAIL(
        ND_EINTERNAL,
        "cuBLASLt: %s failed with status %d for a product of [%lld, %lld] x [%lld, %lld] in %s",
        what, (int)code, (long long)call->m, (long long)call->k, (long long)call->k,
        (long long)call->n, nd_dtype_name(call->type));
}

#define LT_TRY(expression, call) ND_TRY(check((expression), #expression, (call)))

static nd_status open_functions(lt_functions *lt)
{
    char name[64];
    void *library;
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    ND_TRY(nd_library_open(name, "the CUDA backend", &library));
    const struct {
        const char *name;
        void **function;
    } wanted[] = {
        {"cublasLtCreate", reinterpret_cast<void **>(&lt->create)},
        {"cublasLtDestroy", reinterpret_cast<void **>(&lt->destroy)},
        {"cublasLtMatmul", reinterpret_cast<void **>(&lt->matmul)},
        {"cublasLtMatmulAlgoGetHeuristic", reinterpret_cast<void **>(&lt->heuristic)},
        {"cublasLtMatmulDescCreate", reinterpret_cast<void **>(&lt->desc_create)},
        {"cublasLtMatmulDescDestroy", reinterpret_cast<void **>(&lt->desc_destroy)},
        {"cublasLtMatmulDescSetAttribute", reinterpret_cast<void **>(&lt->desc_set)},
        {"cublasLtMatrixLayoutCreate", reinterpret_cast<void **>(&lt->layout_create)},
        {"cublasLtMatrixLayoutDestroy", reinterpret_cast<void **>(&lt->layout_destroy)},
        {"cublasLtMatmulPreferenceCreate", reinterpret_cast<void **>(&lt->preference_create)},
        {"cublasLtMatmulPreferenceDestroy", reinterpret_cast<void **>(&lt->preference_destroy)},
        {"cublasLtMatmulPreferenceSetAttribute", reinterpret_cast<void **>(&lt->preference_set)},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        ND_TRY(nd_library_function(library, wanted[i].name, wanted[i].function));
    return ND_OK;
}

nd_status nd_cuda_matmuls_create(nd_cuda *cuda)
{
    nd_cuda_matmuls *m = new nd_cuda_matmuls();
    cuda->matmuls = m;
    ND_TRY(open_functions(&m->lt));
    LT_TRY(m->lt.create(&m->handle), NULL);
    return ND_CUDA(cudaMalloc(&m->workspace, WORKSPACE_BYTES));
}

void nd_cuda_matmuls_destroy(nd_cuda *cuda)
{
    nd_cuda_matmuls *m = cuda->matmuls;
    if (!m)
        return;
    for (const auto &entry : m->plans) {
        m->lt.desc_destroy(entry.second.desc);
        m->lt.layout_destroy(entry.second.left);
        m->lt.layout_destroy(entry.second.right);
        m->lt.layout_destroy(entry.second.result);
    }
    cudaFree(m->workspace);
    if (m->handle)
        m->lt.destroy(m->handle);
    delete m;
    cuda->matmuls = NULL;
}

size_t nd_cuda_matmuls_bytes(const nd_cuda *cuda)
{
    return cuda->matmuls && cuda->matmuls->workspace ? WORKSPACE_BYTES : 0;
}

static cudaDataType_t library_type(nd_dtype type)
{
    switch (type) {
    case ND_BF16:
        return CUDA_R_16BF;
    case ND_I8:
        return CUDA_R_8I;
    case ND_I32:
        return CUDA_R_32I;
    default:
        return CUDA_R_32F;
    }
}

static uint32_t alignment_of(const void *pointer)
{
    const uintptr_t at = (uintptr_t)pointer;
    uint32_t alignment = 256;
    while (at % alignment != 0)
        alignment /= 2;
    return alignment;
}

/* Row-major c = op(a) op(b) is column-major cᵀ = op(b)ᵀ op(a)ᵀ: b comes first, and row-major
 * storage is the transpose. */
static nd_status describe(const lt_functions *lt, const nd_matmul *p, plan *made)
{
    const bool integer = p->type == ND_I8;
    const cublasOperation_t left = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t mode =
        p->alpha_device ? CUBLASLT_POINTER_MODE_DEVICE : CUBLASLT_POINTER_MODE_HOST;
    const cudaDataType_t type = library_type(p->type);
    LT_TRY(lt->desc_create(&made->desc, integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                           integer ? CUDA_R_32I : CUDA_R_32F),
           p);
    LT_TRY(lt->desc_set(made->desc, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof left), p);
    LT_TRY(lt->desc_set(made->desc, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof right), p);
    LT_TRY(lt->desc_set(made->desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, &mode, sizeof mode), p);
    const int64_t left_stride = p->transpose_b ? p->k : p->n;
    const int64_t right_stride = p->transpose_a ? p->m : p->k;
    LT_TRY(lt->layout_create(&made->left, type, (uint64_t)left_stride,
                             (uint64_t)(p->transpose_b ? p->n : p->k), left_stride),
           p);
    LT_TRY(lt->layout_create(&made->right, type, (uint64_t)right_stride,
                             (uint64_t)(p->transpose_a ? p->k : p->m), right_stride),
           p);
    LT_TRY(lt->layout_create(&made->result, library_type(p->c_type), (uint64_t)p->n, (uint64_t)p->m,
                             p->n),
           p);
    return ND_OK;
}

static nd_status choose(nd_cuda_matmuls *m, const nd_matmul *p, const plan_key *key, plan *made)
{
    const lt_functions *lt = &m->lt;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t best;
    const uint64_t workspace = WORKSPACE_BYTES;
    /* Partial sums are added in f32, even for a bf16 result. */
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE |
                                CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                (p->c_type == ND_BF16 ? 0 : CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE);
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &key->b_alignment, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &key->a_alignment, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &key->c_alignment, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key->c_alignment, sizeof(uint32_t)},
    };
    LT_TRY(lt->preference_create(&preference), p);
    nd_status status = ND_OK;
    for (size_t i = 0; status == ND_OK && i < sizeof wishes / sizeof *wishes; i++)
        status =
            check(lt->preference_set(preference, wishes[i].name, wishes[i].value, wishes[i].size),
                  "cublasLtMatmulPreferenceSetAttribute", p);
    int results = 0;
    if (status == ND_OK) {
        const cublasStatus_t code =
            lt->heuristic(m->handle, made->desc, made->left, made->right, made->result,
                          made->result, preference, 1, &best, &results);
        made->found =
            code == CUBLAS_STATUS_SUCCESS && results > 0 && best.state == CUBLAS_STATUS_SUCCESS;
        if (made->found)
            made->algorithm = best.algo;
    }
    lt->preference_destroy(preference);
    return status;
}

static nd_status plan_for(nd_cuda_matmuls *m, const nd_matmul *p, plan **out)
{
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = p->m;
    key.n = p->n;
    key.k = p->k;
    key.type = (int32_t)p->type;
    key.c_type = (int32_t)p->c_type;
    key.transpose_a = p->transpose_a;
    key.transpose_b = p->transpose_b;
    key.device_alpha = p->alpha_device != NULL;
    key.a_alignment = alignment_of(p->a);
    key.b_alignment = alignment_of(p->b);
    key.c_alignment = alignment_of(p->c);
    const std::string name(reinterpret_cast<const char *>(&key), sizeof key);
    const auto known = m->plans.find(name);
    if (known != m->plans.end()) {
        *out = &known->second;
        return ND_OK;
    }
    plan made;
    memset(&made, 0, sizeof made);
    ND_TRY(describe(&m->lt, p, &made));
    ND_TRY(choose(m, p, &key, &made));
    *out = &(m->plans[name] = made);
    return ND_OK;
}

nd_status nd_cuda_matmul(nd_cuda *cuda, const nd_matmul *p, bool *done)
{
    nd_cuda_matmuls *m = cuda->matmuls;
    plan *use;
    /* Integer products need rows of whole words. */
    *done = p->type != ND_I8 || (p->k % 16 == 0 && p->n % 16 == 0);
    if (!*done)
        return ND_OK;
    ND_TRY(plan_for(m, p, &use));
    *done = use->found;
    if (!*done)
        return ND_OK;
    const int32_t one = 1, none = 0;
    const void *alpha = &p->alpha, *beta = &p->beta;
    if (p->type == ND_I8) {
        alpha = &one;
        beta = &none;
    } else if (p->alpha_device) {
        alpha = p->alpha_device;
        beta = cuda->constants + (p->beta != 0.0f ? 1 : 0);
    }
    const cublasStatus_t code = m->lt.matmul(
        m->handle, use->desc, alpha, p->b, use->left, p->a, use->right, beta, p->c, use->result,
        p->c, use->result, &use->algorithm, m->workspace, WORKSPACE_BYTES, cuda->stream);
    if (code == CUBLAS_STATUS_NOT_SUPPORTED) { /* the proposal was wrong: do not try it again */
        use->found = *done = false;
        return ND_OK;
    }
    return check(code, "cublasLtMatmul", p);
}
