/* Shared by the files of the CUDA backend: its state, workspace and error handling.
 *
 * There is one compute stream: ops are enqueued in the order of their calls and return at once;
 * `download` and `synchronize` wait. Memory that an op needs besides its arguments comes from the
 * scratch, device memory that grows to the largest request so far; ops can share it because they
 * run one after another. */
#pragma once

#include "device.cuh"

extern "C" {
#include "core/backend/cpu/reference.h"
}

enum nd_fault_kind {
    ND_FAULT_NONE,
    ND_FAULT_TOKEN,  /* outside [lowest, limit) */
    ND_FAULT_CUT,    /* the codes of a tensor are truncated */
    ND_FAULT_CHANGE, /* a change of code `position` of a tensor of only `limit` codes */
    ND_FAULT_STOPPED /* an int8 product whose operands did not arrive in time */
};

enum { ND_FAULT_NAME = 64 };
struct nd_fault_name {
    char text[ND_FAULT_NAME];
};

/* An error that a kernel found in its arguments; host memory that the device writes. */
struct nd_cuda_fault {
    int32_t kind; /* nd_fault_kind */
    int32_t value;
    int64_t position, limit;
    int32_t lowest;
    nd_fault_name name; /* of a tensor */
};

enum { ND_STAGING_SLOTS = 8, ND_STAGING_BYTES = 1 << 20 };

struct nd_cuda_int8_choices;
struct nd_cuda_matmuls;
struct nd_cuda_library_attention;

struct nd_cuda {
    int device, multiprocessors;
    size_t shared_limit; /* dynamic shared memory available to a block */
    cudaStream_t stream;
    /* Called before the host waits for the stream or, with `all`, for the whole device, as cudaFree
     * does; may be NULL. A stream that waits for other GPUs may never become idle: this waits with
     * a timeout (nccl_exchanges.h). */
    nd_status (*before_wait)(void *context, bool all);
    void *before_wait_context;
    void *scratch;
    size_t scratch_bytes;
    nd_cuda_matmuls *matmuls;
    nd_cuda_fault *fault;
    /* Pinned memory for small uploads, so that they need not wait. */
    unsigned char *staging;
    cudaEvent_t staging_free[ND_STAGING_SLOTS];
    int staging_next;
    float *rope; /* cosines, then sines, [positions, head_dim/2] each */
    int64_t rope_positions, rope_head_dim;
    double rope_base;
    void *dynamic_codes; /* two nd_dynamic_code: signed, unsigned */
    float *constants;    /* {0, 1} */
    bool recording;      /* ops are recorded instead of executed (recording.cu) */
    int64_t epoch;       /* counts moves of memory that recordings refer to */
    int attention;       /* nd_cuda_attention */
    nd_cuda_library_attention *library_attention; /* NULL: cuDNN is not requested or not built in */
    int int8;                                     /* nd_cuda_int8 */
    nd_cuda_int8_choices *int8_choices;
};

static inline nd_cuda *nd_cuda_of(const nd_backend *b)
{
    return static_cast<nd_cuda *>(b->context);
}

/* The status of a CUDA call; an error is raised when it failed. */
nd_status nd_cuda_check(cudaError_t code, const char *what, const char *file, int line);
#define ND_CUDA(expression) nd_cuda_check((expression), #expression, __FILE__, __LINE__)
#define ND_CUDA_TRY(expression)                                                                    \
    do {                                                                                           \
        const nd_status nd_cuda_status_ =                                                          \
            nd_cuda_check((expression), #expression, __FILE__, __LINE__);                          \
        if (nd_cuda_status_ != ND_OK)                                                              \
            return nd_cuda_status_;                                                                \
    } while (0)

/* Fails during recording. */
nd_status nd_cuda_not_recording(const nd_cuda *cuda);

/* Waits for everything enqueued so far. */
nd_status nd_cuda_wait(nd_cuda *cuda);

/* Frees device memory (may be NULL) that enqueued ops may still use. cudaFree waits for every
 * stream of the device, so exchanges with other GPUs are first waited for, with their timeout. */
nd_status nd_cuda_free(nd_cuda *cuda, void *memory);

/* `bytes` of device memory for one op, aligned to 256; its previous contents are lost. */
nd_status nd_cuda_scratch(nd_cuda *cuda, size_t bytes, void **scratch);

/* Bytes of `count` elements of `size` bytes, rounded up to keep the next piece aligned. */
static inline size_t nd_scratch_bytes(int64_t count, size_t size)
{
    return ((size_t)count * size + 255) / 256 * 256;
}

static inline int64_t nd_ceil(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t nd_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Blocks of `threads` threads for `work` items, at most `most`: kernels loop over the rest. */
static inline unsigned nd_blocks_for(int64_t work, int64_t threads, int64_t most)
{
    const int64_t blocks = nd_min(nd_ceil(work, threads), most);
    return (unsigned)(blocks > 0 ? blocks : 1);
}

/* c [m, n] = alpha op(a) op(b) + beta c, row-major, with cuBLASLt. a and b have one type: bf16 or
 * f32 with c f32 or bf16 (bf16 only for bf16), or i8 with c i32, where a is [m, k], b is [n, k],
 * alpha 1 and beta 0. alpha_device (f32, may be NULL) replaces alpha. *done is false, and nothing
 * enqueued, when the library has no kernel for it. */
struct nd_matmul {
    nd_dtype type, c_type;
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    float alpha, beta;
    const float *alpha_device;
};
nd_status nd_cuda_matmuls_create(nd_cuda *cuda);
void nd_cuda_matmuls_destroy(nd_cuda *cuda);
size_t nd_cuda_matmuls_bytes(const nd_cuda *cuda);
nd_status nd_cuda_matmul(nd_cuda *cuda, const nd_matmul *call, bool *done);

/* Measurements of int8 products (int8_product.cuh). */
nd_status nd_cuda_int8_choices_create(nd_cuda *cuda);
void nd_cuda_int8_choices_destroy(nd_cuda *cuda);

/* Uses the library if possible, else the plain kernels. */
nd_status nd_cuda_product(nd_cuda *cuda, const nd_matmul *call);

/* Prepares attention with cuDNN, which is opened now if it is required. Errors: ND_ECONFIG,
 * ND_EINTERNAL if it is required and missing. */
nd_status nd_cuda_library_attention_create(nd_cuda *cuda);
void nd_cuda_library_attention_destroy(nd_cuda *cuda);

/* y = alpha x + beta y over `count` elements; beta 0 reads no y. */
nd_status nd_cuda_axpby(nd_cuda *cuda, nd_view y, float alpha, nd_cview x, float beta);

/* Each function fills the slots of one family of ops. */
void nd_cuda_fill_codes(nd_backend_ops *ops);
void nd_cuda_fill_ternary(nd_backend_ops *ops);
void nd_cuda_fill_int8(nd_backend_ops *ops);
void nd_cuda_fill_products(nd_backend_ops *ops);
void nd_cuda_fill_symmetric(nd_backend_ops *ops);
void nd_cuda_fill_norms(nd_backend_ops *ops);
void nd_cuda_fill_swiglu(nd_backend_ops *ops);
void nd_cuda_fill_rope(nd_backend_ops *ops);
void nd_cuda_fill_elementwise(nd_backend_ops *ops);
void nd_cuda_fill_attention(nd_backend_ops *ops);
void nd_cuda_fill_loss(nd_backend_ops *ops);
void nd_cuda_fill_updates(nd_backend_ops *ops);
void nd_cuda_fill_state(nd_backend_ops *ops);
void nd_cuda_fill_recording(nd_backend_ops *ops);
