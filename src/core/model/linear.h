/* The linear layer: ternary codes with quantized activations, and unquantized forms. */
#pragma once

#include "core/base/arena.h"

/* A parameter as a replica holds it. Codes are kept as bytes, or packed; then `codes` is scratch
 * that all weights share and each product fills. */
typedef struct nd_weight {
    bool ternary;
    nd_view codes;  /* i8 [out, in] */
    nd_view packed; /* u8 [1, ceil(out*in / 4)] as pack_codes makes them; data NULL: not packed */
    nd_view scales; /* f32 [1, 1] or [out, groups] */
    nd_view dense;  /* float [rows, cols], of parameters that are not ternary */
} nd_weight;

/* The codes of a weight that is kept packed, to its codes and back; else nothing. */
nd_status nd_weight_unpack(nd_backend *b, const nd_weight *w);
nd_status nd_weight_pack(nd_backend *b, const nd_weight *w);

/* A projection's input: q and a, or `dense` if not quantized. */
typedef struct nd_linear_input {
    bool quantized;
    nd_view q;     /* i8 [t, in] */
    nd_view a;     /* f32 [t, 1] */
    nd_view dense; /* float [t, in] */
    nd_view r;     /* [t, 1] reciprocal root mean squares, if it comes from a norm */
} nd_linear_input;

/* Reserves an input of up to `tokens` rows and `width` columns, of type `compute` if not quantized.
 * Errors: the arena's. */
nd_status nd_linear_input_reserve(nd_arena *arena, bool quantized, nd_dtype compute, int64_t tokens,
                                  int64_t width, nd_linear_input *x);

/* The same memory as an input of [rows, width]. */
nd_linear_input nd_linear_input_shaped(const nd_linear_input *x, int64_t rows, int64_t width);

/* x = input, or rmsnorm(input, w) with x->r; quantized if x is. */
nd_status nd_linear_input_copy(nd_backend *b, const nd_linear_input *x, nd_cview input);
nd_status nd_linear_input_norm(nd_backend *b, const nd_linear_input *x, nd_cview input,
                               const nd_weight *w);

/* y = x Wᵀ. `scratch`: a float view of at least out*in elements for the dequantized weight, when
 * codes are multiplied with dense activations; else unused. */
nd_status nd_linear_forward(nd_backend *b, nd_view y, const nd_linear_input *x, const nd_weight *w,
                            nd_view scratch);

/* dx = beta dx + dy W (straight-through: W is codes and scales). int8: with dy in 8 bits if W is
 * ternary, which then must have one scale. */
nd_status nd_linear_backward_input(nd_backend *b, nd_view dx, nd_cview dy, const nd_weight *w,
                                   bool int8, float beta);

/* dw = beta dw + dyᵀ x, with x as quantized. int8: with dy in 8 bits if x is quantized. */
nd_status nd_linear_backward_weight(nd_backend *b, nd_view dw, nd_cview dy,
                                    const nd_linear_input *x, bool int8, float beta);
