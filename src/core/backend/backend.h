/* The backend contract: what a device can compute.
 *
 * A backend is a table of ops and a context. Every slot is filled: the CPU backend starts from a
 * plain reference with double accumulation (cpu/reference_*.c) and fast versions replace slots of
 * it; the framework never asks which one it got.
 *
 * Memory. Views passed to ops point to memory of this backend. Ops may run asynchronously in the
 * order of their calls; `synchronize` and `download` wait. What ops need beyond their arguments is
 * the backend's workspace: it grows while the first step meets each shape, then stays.
 *
 * Types. "float" below is f32 or bf16 (the CPU reference also takes f64, for gradient checks in
 * double); dtypes may differ between the arguments of one op unless it says otherwise. Accumulation
 * is in f32 or wider. Shapes are [rows, cols]; t counts tokens. Outputs never alias inputs unless
 * the slot says "in place".
 *
 * Determinism. The result of an op is the same to the bit for the same inputs, whatever the number
 * of threads.
 *
 * Errors. ND_EINTERNAL for shapes or dtypes that break the contract; ND_ENOMEM when the workspace
 * cannot grow. */
#ifndef ND_CORE_BACKEND_BACKEND_H
#define ND_CORE_BACKEND_BACKEND_H

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
    nd_cview rows; /* i32 [1, t], as gather_rows takes them: only these tokens are queries
                    * (query_len = key_len); data NULL is all */
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
    double base;   /* angle of pair i at position p: p * base^(-2i/head_dim) */
    bool inverse;  /* rotate by the negative angle: the backward of rope */
    nd_cview rows; /* i32 [1, t]: row i stands where row rows[i] would, or, at -1, stays as it is;
                    * data NULL: 0, 1, ... */
} nd_rope_params;

enum { ND_OFFSETS_MAX = 8 };

typedef struct nd_cross_entropy_params {
    float label_smoothing; /* target distribution (1 - e) onehot + e/V */
    float z_loss_weight;   /* adds z * logsumexp^2 */
    float entropy_weight;  /* subtracts w * entropy of the predicted distribution */
    float gradient_scale;  /* dlogits are multiplied by this */
    int offsets;           /* targets a row: the next token, the one after, ...; 0 means 1 */
    float offset_weight[ND_OFFSETS_MAX]; /* [0] is not read: the next token weighs 1 */
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

/* codes: i8 or u8, as many as the tensor has elements; scales: f32, one for each `block` consecutive
 * elements of them, the last block being short. */
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

typedef struct nd_backend_ops {
    const char *name;
    /* Whether the host may read and write what `allocate` gave out, between ops. */
    bool host_memory;
    void (*destroy)(nd_backend *b);
    /* Bytes the backend holds beyond what `allocate` gave out, for the memory report. */
    size_t (*workspace_bytes)(const nd_backend *b);

    /* -- memory and order ------------------------------------------------------------------- */

    /* `bytes` of memory aligned to 64 bytes, zero, resident. Errors: ND_ENOMEM. */
    nd_status (*allocate)(nd_backend *b, size_t bytes, void **memory);
    void (*release)(nd_backend *b, void *memory, size_t bytes);
    nd_status (*upload)(nd_backend *b, void *device, const void *host, size_t bytes);
    nd_status (*download)(nd_backend *b, void *host, const void *device, size_t bytes);
    nd_status (*copy)(nd_backend *b, void *destination, const void *source, size_t bytes);
    nd_status (*zero)(nd_backend *b, void *memory, size_t bytes);
    nd_status (*synchronize)(nd_backend *b);

    /* -- recordings -------------------------------------------------------------------------- */

    /* From here to record_end ops are not run but recorded, with their arguments. Upload, download,
     * allocate and synchronize fail meanwhile, and so does an op that needs more workspace than any
     * before it. *can: false, and nothing happens, for a backend that makes no recordings. */
    nd_status (*record)(nd_backend *b, bool *can);
    /* recording NULL: discards what was recorded, also after a failure. */
    nd_status (*record_end)(nd_backend *b, nd_recording **recording);
    /* Runs the ops again. *stale: workspace has moved since; nothing was run then. */
    nd_status (*replay)(nd_backend *b, nd_recording *recording, bool *stale);
    void (*forget)(nd_backend *b, nd_recording *recording);

    /* -- ternary ----------------------------------------------------------------------------- */

    /* s = fp16(max(mean|w|, 1e-5)); c = clip(rint(w/s), -1, 1), ties to even.
     * w: float [out, in]; c: i8 [out, in]; s: f32 [1, 1], or [out, in/g] with one mean for each
     * group of g consecutive inputs of a row. */
    nd_status (*ternarize)(nd_backend *b, nd_view c, nd_view s, nd_cview w);

    /* Four codes to a byte, code + 1 in two bits, first code in the low bits.
     * packed: u8 [1, ceil(out*in / 4)]; c: i8 [out, in]. */
    nd_status (*pack_codes)(nd_backend *b, nd_view packed, nd_cview c);
    nd_status (*unpack_codes)(nd_backend *b, nd_view c, nd_cview packed);

    /* Five codes to a byte (core/base/trits.h).   packed: u8 [1, ceil(out*in / 5)]; c: i8 [out, in]. */
    nd_status (*pack_trits)(nd_backend *b, nd_view packed, nd_cview c);
    nd_status (*unpack_trits)(nd_backend *b, nd_view c, nd_cview packed);

    /* w[o,i] = s * c[o,i].  w: float [out, in]. */
    nd_status (*dequantize_codes)(nd_backend *b, nd_view w, nd_cview c, nd_cview s);

    /* a[t] = max(max_i |x[t,i]|, 1e-5); q[t,i] = clip(rint(127 x[t,i] / a[t]), -128, 127). A row that holds
     * an infinite value or NaN gets an a[t] that is infinite or NaN, and codes of 0.
     * x: float [t, in]; q: i8 [t, in]; a: f32 [t, 1]. */
    nd_status (*quantize_rows)(nd_backend *b, nd_view q, nd_view a, nd_cview x);

    /* y[t,o] = s * (sum_i q[t,i] c[o,i]) * a[t]/127, the sum exact in int32; with group scales
     * y[t,o] = sum_g s[o,g] (sum_{i in g} q[t,i] c[o,i]) * a[t]/127.   y: float [t, out]. */
    nd_status (*ternary_gemm)(nd_backend *b, nd_view y, nd_cview q, nd_cview a, nd_cview c,
                              nd_cview s);

    /* dx[t,i] = beta dx[t,i] + sum_o dy[t,o] s c[o,i].   dx, dy: float; beta: 0 or 1. */
    nd_status (*ternary_gemm_dx)(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c, nd_cview s,
                                 float beta);

    /* dw[o,i] = beta dw[o,i] + sum_t dy[t,o] q[t,i] a[t]/127.   dw: f32 or f64 [out, in]. */
    nd_status (*ternary_gemm_dw)(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q, nd_cview a,
                                 float beta);

    /* The same two with dy in 8 bits: code(x, m) = rint(x (127/m)) in f32, 0 where m < 2^-100, and
     * sums of codes exact in int32. Where dy is not finite, neither is the result. beta: 0 or 1.
     *
     * m[t] = max_o |dy[t,o]|, e[t,o] = code(dy[t,o], m[t]);
     * dx[t,i] = beta dx[t,i] + s (sum_o e[t,o] c[o,i]) m[t]/127.   s: f32 [1, 1]. */
    nd_status (*ternary_gemm_dx_int8)(nd_backend *b, nd_view dx, nd_cview dy, nd_cview c,
                                      nd_cview s, float beta);

    /* h[t,o] = dy[t,o] (a[t]/127) in f32; for each block of ND_INT8_TOKENS tokens, the first from token 0,
     * m[o] = max_t |h[t,o]|, e[t,o] = code(h[t,o], m[o]);
     * dw[o,i] = beta dw[o,i] + sum_blocks (m[o]/127) sum_t e[t,o] q[t,i].   dw: f32 or f64. */
    nd_status (*ternary_gemm_dw_int8)(nd_backend *b, nd_view dw, nd_cview dy, nd_cview q,
                                      nd_cview a, float beta);

    /* -- dense products ---------------------------------------------------------------------- */

    /* c = alpha op(a) op(b) + beta c, op(x) = x or xᵀ.   c: float [m, n]; beta 0 reads nothing. Of an f32
     * and a bf16 operand the former may be rounded to bf16. */
    nd_status (*gemm)(nd_backend *b, nd_view c, nd_cview a, bool transpose_a, nd_cview bb,
                      bool transpose_b, float alpha, float beta);

    /* c = alpha a aᵀ, or alpha aᵀ a with transpose_a; symmetric to the bit.   c: float [m, m]. */
    nd_status (*gemm_symmetric)(nd_backend *b, nd_view c, nd_cview a, bool transpose_a,
                                float alpha);

    /* -- rows -------------------------------------------------------------------------------- */

    /* r[t] = 1/sqrt(mean_i x[t,i]^2 + 1e-5); y[t,i] = x[t,i] r[t] w[i].
     * x, y: float [t, n]; w: float [1, n]; r: f32 or f64 [t, 1]. */
    nd_status (*rmsnorm)(nd_backend *b, nd_view y, nd_view r, nd_cview x, nd_cview w);

    /* quantize_rows(rmsnorm(x, w)) in one pass, the normalised row never rounded below f32. */
    nd_status (*rmsnorm_quantize)(nd_backend *b, nd_view q, nd_view a, nd_view r, nd_cview x,
                                  nd_cview w);

    /* With g = dy*w: dx[t,i] = beta dx[t,i] + r (g_i - x_i r^2 mean_j(g_j x_j));
     * dw[i] += sum_t dy[t,i] x[t,i] r[t].   dw: f32 or f64 [1, n]. */
    nd_status (*rmsnorm_backward)(nd_backend *b, nd_view dx, nd_view dw, nd_cview dy, nd_cview x,
                                  nd_cview w, nd_cview r, float beta);

    /* h = silu(gate) * up, silu(z) = z / (1 + exp(-z)).   all float [t, f]. */
    nd_status (*swiglu)(nd_backend *b, nd_view h, nd_cview gate, nd_cview up);

    /* quantize_rows(rmsnorm(swiglu(gate, up), w)) in one pass. */
    nd_status (*swiglu_rmsnorm_quantize)(nd_backend *b, nd_view q, nd_view a, nd_view r,
                                         nd_cview gate, nd_cview up, nd_cview w);

    /* dgate = dh up silu'(gate); dup = dh silu(gate).   In place allowed: dgate over gate and dup
     * over up. */
    nd_status (*swiglu_backward)(nd_backend *b, nd_view dgate, nd_view dup, nd_cview dh,
                                 nd_cview gate, nd_cview up);

    /* rmsnorm_backward of h = swiglu(gate, up), then swiglu_backward, h recomputed and dh never
     * stored; dw[i] += ... as rmsnorm_backward.   In place allowed as in swiglu_backward. */
    nd_status (*swiglu_rmsnorm_backward)(nd_backend *b, nd_view dgate, nd_view dup, nd_view dw,
                                         nd_cview dy, nd_cview gate, nd_cview up, nd_cview w,
                                         nd_cview r);

    /* Rotates each head of x in place.   x: float [t, heads*head_dim]. */
    nd_status (*rope)(nd_backend *b, nd_view x, const nd_rope_params *params);

    /* y = x + z.   all float [t, n]; in place allowed: y over x. */
    nd_status (*add)(nd_backend *b, nd_view y, nd_cview x, nd_cview z);

    /* -- attention --------------------------------------------------------------------------- */

    /* p = softmax over visible keys of q·k/sqrt(head_dim); o = p v; lse = log of the softmax's sum.
     * q, o: float [sequences*query_len, heads*head_dim]; k, v: float [sequences*key_len,
     * kv_heads*head_dim]; lse: f32 or f64 [sequences*query_len, heads]. Memory linear in key_len.
     * With shape.rows q, o and lse hold these rows only, and rows at -1 become zero: the same to the bit
     * as without, or, where a library computes what has no rows, up to the type's rounding. */
    nd_status (*attention)(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                           nd_cview v, const nd_attention_shape *shape);

    /* y[i] = x[rows[i]], and a row of zeros where rows[i] is -1.   x, y: any one dtype, as many
     * columns; rows: i32 [1, t], below x.rows, ascending up to the first -1, which only -1 follow. In
     * place allowed: y over x, as rows[i] >= i. */
    nd_status (*gather_rows)(nd_backend *b, nd_view y, nd_cview x, nd_cview rows);

    /* dq, dk, dv of the above from dout (all overwritten), probabilities recomputed from lse.
     * With shape.rows only these tokens take part: dq, dk, dv, dout, o, lse and q hold their rows, k and v hold all. Queries of other
     * tokens add nothing to dk and dv; keys of other tokens are constants. Rows at -1 become zero. */
    nd_status (*attention_backward)(nd_backend *b, nd_view dq, nd_view dk, nd_view dv,
                                    nd_cview dout, nd_cview o, nd_cview lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *shape);

    /* -- embedding and loss ------------------------------------------------------------------ */

    /* x[t] = table[tokens[t]].   x: float [t, n]; table: float [vocab, n]; tokens: i32 [1, t]. */
    nd_status (*embedding)(nd_backend *b, nd_view x, nd_cview table, nd_cview tokens);

    /* dtable[tokens[t]] += dx[t], in the order of t.   dtable: f32 or f64 [vocab, n]. */
    nd_status (*embedding_backward)(nd_backend *b, nd_view dtable, nd_cview dx, nd_cview tokens);

    /* Softmax cross-entropy of rows of logits against targets, and its gradient in place of the
     * logits. nll[t] = -log p[target 0] (nats, no auxiliary term); total[t] = sum over offsets j of
     * offset_weight[j] * smoothed nll of target j, + z lse^2 - w H(p), H the entropy of p;
     * logits := gradient_scale * d total[t] / d logits. A target 0 of -1 gives nll = total = 0 and a
     * zero gradient row; another target of -1 leaves its term out. With gradient_scale 0 the loss
     * alone is computed and logits stay as they are.
     * logits: float [t, vocab]; nll, total: f32 or f64 [t, 1]; targets: i32 [t, offsets]. */
    nd_status (*cross_entropy)(nd_backend *b, nd_view nll, nd_view total, nd_view logits,
                               nd_cview targets, const nd_cross_entropy_params *params);

    /* -- reductions and elementwise ---------------------------------------------------------- */

    /* out[0] = sum x^2 and out[0] = sum x, in double, in a fixed order.   out: f64 [1, 1]. */
    nd_status (*sum_squares)(nd_backend *b, nd_view out, nd_cview x);
    nd_status (*sum)(nd_backend *b, nd_view out, nd_cview x);

    /* y = alpha x + beta y, elementwise, converting dtypes; beta 0 reads no y. */
    nd_status (*axpby)(nd_backend *b, nd_view y, float alpha, nd_cview x, float beta);

    /* y = x f, f = 1 / (factor (sqrt(squares) + 1e-30)) computed in double and rounded to f32: x over
     * its norm, which the host need not know.   x, y: float; squares: f64 [1, 1], of sum_squares. */
    nd_status (*divide_by_norm)(nd_backend *b, nd_view y, nd_cview x, nd_cview squares,
                                double factor);

    /* -- optimizers -------------------------------------------------------------------------- */

    /* m = beta m + scale g; u = nesterov ? scale g + beta m : m.   m: f32; g, u: float. */
    nd_status (*momentum)(nd_backend *b, nd_view u, nd_view m, nd_cview g, float beta, float scale,
                          bool nesterov);

    /* w = w - decay w (where cautious_decay allows) - step_size u.   w: f32, f64, or bf16 with
     * stochastic rounding from rounding_key; u: float. */
    nd_status (*apply_update)(nd_backend *b, nd_view w, nd_cview u, const nd_update_params *params);

    /* AdamW (Loshchilov & Hutter 2019), decoupled decay.   m, v: f32; w as in apply_update. */
    nd_status (*adamw)(nd_backend *b, nd_view w, nd_view m, nd_view v, nd_cview g,
                       const nd_adamw_params *params);

    /* -- quantised state --------------------------------------------------------------------- */

    /* s[k] = max |x| over block k, or 0 when that is below 2^-100; q = the code nearest to x/s.
     * x: f32. A block that holds a NaN or an infinity gets that as its scale, so that it decodes to
     * nothing finite but zeros. */
    nd_status (*quantize_blocks)(nd_backend *b, const nd_blocks *q, nd_cview x);

    /* x = s[k] q/127, or s[k] times the value of the dynamic code.   x: f32. */
    nd_status (*dequantize_blocks)(nd_backend *b, nd_view x, const nd_blocks *q);

    /* adamw with the moments in blocks: decoded, updated and encoded block by block, the weights
     * updated from the moments before they are encoded. m: signed dynamic code; v: unsigned; the
     * same block, a multiple of 4 up to ND_ADAMW_BLOCK_MAX. */
    nd_status (*adamw_blocks)(nd_backend *b, nd_view w, const nd_blocks *m, const nd_blocks *v,
                              nd_cview g, const nd_adamw_params *params);

    /* row_max[i,J] = max_j |x[i,j]| over the columns of tile column J, rounded to bf16; column_max
     * likewise; q = the code nearest to x / min(row_max[i,T(j)], column_max[T(i),j]), of 0 where the
     * minimum is below 2^-100.   x: f32, finite. */
    nd_status (*quantize_tiles)(nd_backend *b, const nd_tiles *q, nd_cview x);

    /* x = beta x + min(row_max, column_max) times the code's value.   x: f32; beta: 0 or 1. */
    nd_status (*dequantize_tiles)(nd_backend *b, nd_view x, const nd_tiles *q, float beta);
} nd_backend_ops;

/* What [hardware] precision = auto and backward_precision = auto choose by. */
typedef struct nd_backend_traits {
    char device[128];         /* what computes, for the log */
    bool fast_bf16;           /* bf16 products are faster than f32 ones */
    bool fast_int8_gradients; /* so are the 8-bit backward products, exact as they must be */
    bool exact_int8;          /* the hardware multiplies two 8-bit integers exactly at its full rate */
} nd_backend_traits;

struct nd_backend {
    nd_backend_ops ops;
    void *context; /* of the implementation */
    nd_log *log;   /* told what the backend chose for a shape; NULL, as it is made: nobody */
    nd_backend_traits traits;
};

/* The instruction sets that are told apart, each with those before it: generic is the compiler's base
 * target and SSE4.1 in oneDNN. The order is that of the choices of [hardware] cpu_isa. */
typedef enum nd_cpu_isa {
    ND_CPU_ISA_AUTO, /* the best of this CPU */
    ND_CPU_ISA_GENERIC,
    ND_CPU_ISA_AVX2,
    ND_CPU_ISA_AVX512,
    ND_CPU_ISA_AVX512_VNNI,
    ND_CPU_ISA_AVX512_BF16
} nd_cpu_isa;

/* The CPU backend. `threads` per rank, 0 for what this process may use at once; `reference_only` leaves every
 * slot at the double-accumulation reference. Close releases what it owns. */
typedef struct nd_cpu_backend_options {
    int threads;
    bool reference_only;
    nd_cpu_isa isa; /* of the whole process, oneDNN included */
} nd_cpu_backend_options;

/* The CPU backend: the reference, and unless `reference_only` the fast layer over it. The caller owns it.
 * Errors: ND_ECONFIG when this machine lacks the instruction set, ND_ENOMEM. */
nd_status nd_cpu_backend_create(const nd_cpu_backend_options *options, nd_backend **backend);

/* The version of the CPU backend's library of products: "oneDNN 3.0.1". */
void nd_cpu_backend_library(char *text, size_t size);

/* Releases the backend; memory it allocated must have been released before. NULL is allowed. */
void nd_backend_destroy(nd_backend *backend);

#endif
