/* The backend contract: what a device can compute.
 *
 * A backend is a table of ops and a context. Every slot is filled: the CPU backend starts from a
 * plain reference with double accumulation (cpu/reference_*.c), and fast versions replace slots of
 * it; callers never ask which one they got.
 *
 * Memory. Views passed to ops point to memory of this backend. Ops may run asynchronously in the
 * order of their calls; `synchronize` and `download` wait. Memory that ops need beyond their
 * arguments is the backend's workspace: it grows in the first step, as new shapes come, and then
 * stays.
 *
 * Types. "float" below is f32 or bf16 (the CPU reference also takes f64, for gradient checks in
 * double); dtypes may differ between the arguments of one op unless it says otherwise. Accumulation
 * is in f32 or wider. Shapes are [rows, cols]; t counts tokens. Outputs never alias inputs unless
 * the slot says "in place".
 *
 * Determinism. The same inputs give the same bits, whatever the number of threads.
 *
 * Errors. ND_EINTERNAL for shapes or dtypes that break the contract; ND_ENOMEM when the workspace
 * cannot grow. */
#pragma once

#include "core/base/each.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/view.h"

#include <stdbool.h>

typedef struct nd_backend nd_backend;
typedef struct nd_recording nd_recording;

/* The head layout of one attention call. Tokens are consecutive sequences of `query_len` rows;
 * each attends to `key_len` keys of its sequence. Query i of a sequence is at position
 * key_len - query_len + i and sees keys 0..position (causal). */
typedef struct nd_attention_shape {
    int64_t sequences;
    int64_t query_len;
    int64_t key_len;
    int64_t heads;    /* query heads */
    int64_t kv_heads; /* divides heads; query head h reads key/value head h / (heads / kv_heads) */
    int64_t head_dim;
    nd_cview rows; /* i32 [1, t], as in gather_rows: the tokens that are queries, and query_len =
                    * key_len; data NULL: all tokens are */
} nd_attention_shape;

typedef enum nd_rope_style {
    ND_ROPE_HALVES, /* pairs (i, i + head_dim/2), as GPT-NeoX */
    ND_ROPE_PAIRS   /* pairs (2i, 2i + 1) */
} nd_rope_style;

typedef struct nd_rope_params {
    nd_rope_style style;
    int64_t head_dim;
    int64_t seq_len; /* row t is at position start + t % seq_len */
    int64_t start;
    double base;  /* angle of pair i at position p: p * base^(-2i/head_dim) */
    bool inverse; /* rotate by the negative angle: the backward of rope */
    /* i32 [1, t]: row i gets the position of row rows[i]; -1: not rotated; data NULL: its own */
    nd_cview rows;
} nd_rope_params;

enum { ND_OFFSETS_MAX = 8 };

typedef struct nd_cross_entropy_params {
    float label_smoothing; /* target distribution (1 - e) onehot + e/V */
    float z_loss_weight;   /* adds z * logsumexp^2 */
    float entropy_weight;  /* subtracts w * entropy of the predicted distribution */
    float gradient_scale;  /* dlogits are multiplied by this */
    int offsets;           /* targets per row: the next token, the one after, ...; 0 means 1 */
    float offset_weight[ND_OFFSETS_MAX]; /* [0] is not read: the next token's is 1 */
    nd_view norm;     /* f32 or f64 [t, 1]: receives ||p - onehot(target 0)|| unless data is NULL */
    nd_cview weight;  /* f32 or f64 [t, 1]: factor of each row's gradient; data NULL: 1 */
    nd_view gradient; /* float [t, vocab]: receives dlogits; data NULL: logits does */
} nd_cross_entropy_params;

static inline int nd_cross_entropy_offsets(const nd_cross_entropy_params *params)
{
    return params->offsets > 0 ? params->offsets : 1;
}

typedef struct nd_adamw_params {
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    float gradient_scale;           /* g is multiplied by this first (clipping) */
    float correction1, correction2; /* 1 - beta^step */
    bool cautious_decay;            /* decay only where update * w >= 0 */
    uint64_t rounding_key;          /* stochastic rounding of bf16 w: philox(key, element) */
    int64_t first_element;          /* of the tensor of which w is a part; a multiple of 8 */
} nd_adamw_params;

typedef struct nd_update_params {
    float step_size;     /* learning rate times the shape's scale */
    float decay;         /* learning rate times weight decay */
    bool cautious_decay; /* decay only where update * w >= 0 */
    uint64_t rounding_key;
} nd_update_params;

/* Values in 8 bits: consecutive elements in blocks, each with its own scale. */
typedef enum nd_block_code {
    ND_BLOCK_LINEAR,          /* i8: rint(127 x / s) */
    ND_BLOCK_DYNAMIC,         /* u8: core/base/dynamic_code.h with a sign */
    ND_BLOCK_DYNAMIC_UNSIGNED /* u8: the same for x >= 0 */
} nd_block_code;

/* codes: i8 or u8, one for each element of the tensor; scales: f32, one for each `block`
 * consecutive elements; the last block may be short. */
typedef struct nd_blocks {
    nd_view codes, scales;
    int64_t block;
    nd_block_code code;
} nd_blocks;

enum { ND_TILE = 128, ND_ADAMW_BLOCK_MAX = 2048 };

/* Tokens of a backward product that share the scales of its 8-bit gradients. */
enum { ND_INT8_TOKENS = 1024 };

/* A matrix in 4 bits with the scales of tiles of ND_TILE x ND_TILE. With T(i) = i / ND_TILE:
 * codes: u8 [rows, ceil(cols/2)] of core/base/nibble_code.h, even columns in the low half;
 * row_max: bf16 [rows, T(cols-1)+1], column_max: bf16 [T(rows-1)+1, cols]. */
typedef struct nd_tiles {
    nd_view codes, row_max, column_max;
} nd_tiles;

/* The parameters of an op, each preceded by a comma, as core/backend/backend_ops.def lists them. */
#ifdef __CPPCHECK__ /* its preprocessor (2.10) gives up on longer lists */
#define ND_OP_PARAMETERS(...) , ...
#else
#define ND_OP_PARAMETERS(...) ND_EACH(ND_PARAMETER_, __VA_ARGS__)
#endif
#define ND_PARAMETER_OUT(v) , nd_view v
#define ND_PARAMETER_IN(v) , nd_cview v
#define ND_PARAMETER_BLOCKS_OUT(q) , const nd_blocks *q
#define ND_PARAMETER_BLOCKS_IN(q) , const nd_blocks *q
#define ND_PARAMETER_TILES_OUT(q) , const nd_tiles *q
#define ND_PARAMETER_TILES_IN(q) , const nd_tiles *q
#define ND_PARAMETER_ROWS(type, p) , const type *p
#define ND_PARAMETER_LOSS(p) , const nd_cross_entropy_params *p
#define ND_PARAMETER_MEMORY_OUT(p) , void *p
#define ND_PARAMETER_MEMORY_IN(p) , const void *p
#define ND_PARAMETER_VALUE(type, x) , type x

typedef struct nd_backend_ops {
    const char *name;
    /* Whether the host may read and write memory from `allocate` between ops. */
    bool host_memory;
    void (*destroy)(nd_backend *b);
    /* Bytes the backend holds beyond those from `allocate`, for the memory report. */
    size_t (*workspace_bytes)(const nd_backend *b);

    void (*release)(nd_backend *b, void *memory, size_t bytes);
    nd_status (*synchronize)(nd_backend *b);

    /* Recordings. */

    /* Until record_end, ops are recorded with their arguments instead of being run. Upload,
     * download, allocate and synchronize then fail, and so does an op that needs more workspace
     * than any before it. A backend that cannot record sets *can to false and does nothing. */
    nd_status (*record)(nd_backend *b, bool *can);
    /* Ends it. The caller releases *recording; `recording` NULL discards what was recorded, also
     * after a failure. */
    nd_status (*record_end)(nd_backend *b, nd_recording **recording);
    /* Runs the recorded ops. *stale is true if the workspace has moved since; then nothing was
     * run. */
    nd_status (*replay)(nd_backend *b, nd_recording *recording, bool *stale);
    void (*release_recording)(nd_backend *b, nd_recording *recording);

#define OP(name, ...) nd_status (*name)(nd_backend * b ND_OP_PARAMETERS(__VA_ARGS__));
#include "core/backend/backend_ops.def"
#undef OP
} nd_backend_ops;

/* Decides what `auto` means in [hardware] precision and backward_precision. */
typedef struct nd_backend_traits {
    char device[128];         /* what computes, for the log */
    bool fast_bf16;           /* bf16 products are faster than f32 ones */
    bool fast_int8_gradients; /* so are products with 8-bit gradients, which are exact */
    bool exact_int8;          /* products of any 8-bit integers are exact, at full speed */
} nd_backend_traits;

struct nd_backend {
    nd_backend_ops ops;
    void *context; /* of the implementation */
    nd_log *log;   /* where the backend logs what it chose for a shape; NULL at creation */
    nd_backend_traits traits;
};

/* Instruction sets, each including those before it (but AVX-512 not AVX-VNNI), in the order of the
 * choices of [hardware] cpu_isa. Generic is the compiler's base target, and SSE4.1 in oneDNN. */
typedef enum nd_cpu_isa {
    ND_CPU_ISA_AUTO, /* the best of this CPU */
    ND_CPU_ISA_GENERIC,
    ND_CPU_ISA_DOTPROD, /* of ARM, beside the others */
    ND_CPU_ISA_AVX2,
    ND_CPU_ISA_AVX2_VNNI,
    ND_CPU_ISA_AVX512,
    ND_CPU_ISA_AVX512_VNNI,
    ND_CPU_ISA_AVX512_BF16,
    ND_CPU_ISA_AMX
} nd_cpu_isa;

typedef struct nd_cpu_backend_options {
    int threads;         /* of this rank; 0: as many as the process may use */
    bool reference_only; /* every op is the double-accumulation reference */
    nd_cpu_isa isa;      /* of the whole process, oneDNN included */
} nd_cpu_backend_options;

/* The CPU backend: the reference, and unless `reference_only` the fast layer over it. The caller
 * owns it (nd_backend_destroy). Errors: ND_ECONFIG when this machine lacks the instruction set,
 * ND_ENOMEM. */
nd_status nd_cpu_backend_create(const nd_cpu_backend_options *options, nd_backend **backend);

/* The number of threads that a CPU backend was created for; how many of them its ops use from now
 * on (1 to that number), with the same results to the bit. For other backends 1, and no effect. */
int nd_cpu_backend_threads(const nd_backend *backend);
void nd_cpu_backend_set_threads(nd_backend *backend, int threads);

/* The version of the library that the CPU backend multiplies matrices with: "oneDNN 3.0.1". */
void nd_cpu_backend_library(char *text, size_t size);

/* Releases the backend; memory it allocated must have been released before. NULL is allowed. */
void nd_backend_destroy(nd_backend *backend);
