#include "timed_ops.h"

#include "timing.h"

static struct {
    nd_backend_ops ops;
    double seconds[TIMED_OPS];
} timed;

enum {
    GATHER_ROWS,
    GEMM,
    TERNARY_GEMM,
    TERNARY_GEMM_DX,
    TERNARY_GEMM_DW,
    RMSNORM_QUANTIZE,
    RMSNORM_BACKWARD,
    SWIGLU_QUANTIZE,
    SWIGLU_BACKWARD,
    ROPE,
    ATTENTION,
    ATTENTION_BACKWARD,
    CROSS_ENTROPY,
    ADD,
    GEMM_SYMMETRIC,
    MOMENTUM,
    APPLY_UPDATE,
    ADAMW,
    TERNARIZE
};

const char *const timed_op_names[TIMED_OPS] = {
    [GATHER_ROWS] = "gather_rows",
    [GEMM] = "gemm",
    [TERNARY_GEMM] = "ternary_gemm",
    [TERNARY_GEMM_DX] = "ternary_gemm_dx",
    [TERNARY_GEMM_DW] = "ternary_gemm_dw",
    [RMSNORM_QUANTIZE] = "rmsnorm_quantize",
    [RMSNORM_BACKWARD] = "rmsnorm_backward",
    [SWIGLU_QUANTIZE] = "swiglu_rmsnorm_quantize",
    [SWIGLU_BACKWARD] = "swiglu_rmsnorm_backward",
    [ROPE] = "rope",
    [ATTENTION] = "attention",
    [ATTENTION_BACKWARD] = "attention_backward",
    [CROSS_ENTROPY] = "cross_entropy",
    [ADD] = "add",
    [GEMM_SYMMETRIC] = "gemm_symmetric",
    [MOMENTUM] = "momentum",
    [APPLY_UPDATE] = "apply_update",
    [ADAMW] = "adamw",
    [TERNARIZE] = "ternarize",
};

/* Defines a slot that calls the backend's own and adds the time that took. */
#define TIMED(index, slot, parameters, arguments)                                                  \
    static nd_status timed_##slot parameters                                                       \
    {                                                                                              \
        const double start = seconds();                                                            \
        const nd_status status = timed.ops.slot arguments;                                         \
        timed.seconds[index] += seconds() - start;                                                 \
        return status;                                                                             \
    }

TIMED(GATHER_ROWS, gather_rows, (nd_backend * b, nd_view y, nd_cview x, nd_cview rows),
      (b, y, x, rows))
TIMED(GEMM, gemm,
      (nd_backend * b, nd_view c, nd_cview a, bool ta, nd_cview bb, bool tb, float alpha,
       float beta),
      (b, c, a, ta, bb, tb, alpha, beta))
TIMED(TERNARY_GEMM, ternary_gemm,
      (nd_backend * b, nd_view y, nd_cview q, nd_cview a, nd_cview c, nd_cview s),
      (b, y, q, a, c, s))
TIMED(TERNARY_GEMM_DX, ternary_gemm_dx,
      (nd_backend * b, nd_view dx, nd_cview dy, nd_cview c, nd_cview s, float beta),
      (b, dx, dy, c, s, beta))
TIMED(TERNARY_GEMM_DW, ternary_gemm_dw,
      (nd_backend * b, nd_view dw, nd_cview dy, nd_cview q, nd_cview a, float beta),
      (b, dw, dy, q, a, beta))
TIMED(TERNARY_GEMM_DX, ternary_gemm_dx_int8,
      (nd_backend * b, nd_view dx, nd_cview dy, nd_cview c, nd_cview s, float beta),
      (b, dx, dy, c, s, beta))
TIMED(TERNARY_GEMM_DW, ternary_gemm_dw_int8,
      (nd_backend * b, nd_view dw, nd_cview dy, nd_cview q, nd_cview a, float beta),
      (b, dw, dy, q, a, beta))
TIMED(RMSNORM_QUANTIZE, rmsnorm_quantize,
      (nd_backend * b, nd_view q, nd_view a, nd_view r, nd_cview x, nd_cview w), (b, q, a, r, x, w))
TIMED(RMSNORM_BACKWARD, rmsnorm_backward,
      (nd_backend * b, nd_view dx, nd_view dw, nd_cview dy, nd_cview x, nd_cview w, nd_cview r,
       float beta),
      (b, dx, dw, dy, x, w, r, beta))
TIMED(SWIGLU_QUANTIZE, swiglu_rmsnorm_quantize,
      (nd_backend * b, nd_view q, nd_view a, nd_view r, nd_cview gate, nd_cview up, nd_cview w),
      (b, q, a, r, gate, up, w))
TIMED(SWIGLU_BACKWARD, swiglu_rmsnorm_backward,
      (nd_backend * b, nd_view dgate, nd_view dup, nd_view dw, nd_cview dy, nd_cview gate,
       nd_cview up, nd_cview w, nd_cview r),
      (b, dgate, dup, dw, dy, gate, up, w, r))
TIMED(ROPE, rope, (nd_backend * b, nd_view x, const nd_rope_params *params), (b, x, params))
TIMED(ATTENTION, attention,
      (nd_backend * b, nd_view o, nd_view lse, nd_cview q, nd_cview k, nd_cview v,
       const nd_attention_shape *shape),
      (b, o, lse, q, k, v, shape))
TIMED(ATTENTION_BACKWARD, attention_backward,
      (nd_backend * b, nd_view dq, nd_view dk, nd_view dv, nd_cview dout, nd_cview o, nd_cview lse,
       nd_cview q, nd_cview k, nd_cview v, const nd_attention_shape *shape),
      (b, dq, dk, dv, dout, o, lse, q, k, v, shape))
TIMED(CROSS_ENTROPY, cross_entropy,
      (nd_backend * b, nd_view nll, nd_view total, nd_view logits, nd_cview targets,
       const nd_cross_entropy_params *params),
      (b, nll, total, logits, targets, params))

TIMED(ADD, add, (nd_backend * b, nd_view z, nd_cview x, nd_cview y), (b, z, x, y))
TIMED(GEMM_SYMMETRIC, gemm_symmetric,
      (nd_backend * b, nd_view c, nd_cview a, bool transpose, float alpha),
      (b, c, a, transpose, alpha))
TIMED(MOMENTUM, momentum,
      (nd_backend * b, nd_view u, nd_view m, nd_cview g, float beta, float scale, bool nesterov),
      (b, u, m, g, beta, scale, nesterov))
TIMED(APPLY_UPDATE, apply_update,
      (nd_backend * b, nd_view w, nd_cview u, const nd_update_params *params), (b, w, u, params))
TIMED(ADAMW, adamw,
      (nd_backend * b, nd_view w, nd_view m, nd_view v, nd_cview g, const nd_adamw_params *params),
      (b, w, m, v, g, params))
TIMED(TERNARIZE, ternarize, (nd_backend * b, nd_view c, nd_view s, nd_cview w), (b, c, s, w))

void timed_ops_start(nd_backend *b)
{
    timed.ops = b->ops;
    for (int i = 0; i < TIMED_OPS; i++)
        timed.seconds[i] = 0.0;
    b->ops.gather_rows = timed_gather_rows;
    b->ops.gemm = timed_gemm;
    b->ops.ternary_gemm = timed_ternary_gemm;
    b->ops.ternary_gemm_dx = timed_ternary_gemm_dx;
    b->ops.ternary_gemm_dw = timed_ternary_gemm_dw;
    b->ops.rmsnorm_quantize = timed_rmsnorm_quantize;
    b->ops.rmsnorm_backward = timed_rmsnorm_backward;
    b->ops.swiglu_rmsnorm_quantize = timed_swiglu_rmsnorm_quantize;
    b->ops.swiglu_rmsnorm_backward = timed_swiglu_rmsnorm_backward;
    b->ops.rope = timed_rope;
    b->ops.attention = timed_attention;
    b->ops.attention_backward = timed_attention_backward;
    b->ops.cross_entropy = timed_cross_entropy;
    b->ops.ternary_gemm_dx_int8 = timed_ternary_gemm_dx_int8;
    b->ops.ternary_gemm_dw_int8 = timed_ternary_gemm_dw_int8;
    b->ops.add = timed_add;
    b->ops.gemm_symmetric = timed_gemm_symmetric;
    b->ops.momentum = timed_momentum;
    b->ops.apply_update = timed_apply_update;
    b->ops.adamw = timed_adamw;
    b->ops.ternarize = timed_ternarize;
}

void timed_ops_stop(nd_backend *b, double out[TIMED_OPS])
{
    b->ops = timed.ops;
    for (int i = 0; i < TIMED_OPS; i++)
        out[i] = timed.seconds[i];
}
