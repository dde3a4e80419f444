/* Dtypes that the contract of an op excludes are refused, by the reference and the fast layer. */
#include "support/support.h"

#include "core/base/arena.h"

enum { T = 8, N = 32, VIEWS = 10 };

static _Alignas(64) char memory[VIEWS][T * N * sizeof(double)];
static int excluded; /* the view that is i32 where the contract says float; -1: none */

static nd_view out(int view, int64_t rows, int64_t cols)
{
    return nd_view_of(memory[view], view == excluded ? ND_I32 : ND_F32, rows, cols);
}

static nd_cview in(int view, int64_t rows, int64_t cols)
{
    return nd_as_const(out(view, rows, cols));
}

/* `call` succeeds, and fails when any of the views 0 to floats - 1 is excluded. */
#define REFUSES(floats, call)                                                                      \
    for (excluded = -1; excluded < (floats); excluded++) {                                         \
        const nd_status status = (call);                                                           \
        cr_expect_eq(status, excluded < 0 ? ND_OK : ND_EINTERNAL, "%s: %s of float %d: status %d", \
                     b->ops.name, #call, excluded, (int)status);                                   \
        nd_error_clear();                                                                          \
    }

static void check_rows(nd_backend *b)
{
    const nd_view q = nd_view_of(memory[8], ND_I8, T, N), a = nd_view_of(memory[9], ND_F32, T, 1);
    REFUSES(4, b->ops.rmsnorm(b, out(0, T, N), out(1, T, 1), in(2, T, N), in(3, 1, N)));
    REFUSES(3, b->ops.rmsnorm_quantize(b, q, a, out(0, T, 1), in(1, T, N), in(2, 1, N)));
    REFUSES(6, b->ops.rmsnorm_backward(b, out(0, T, N), out(1, 1, N), in(2, T, N), in(3, T, N),
                                       in(4, 1, N), in(5, T, 1), 0.0f));
    REFUSES(3, b->ops.swiglu(b, out(0, T, N), in(1, T, N), in(2, T, N)));
    REFUSES(4, b->ops.swiglu_rmsnorm_quantize(b, q, a, out(0, T, 1), in(1, T, N), in(2, T, N),
                                              in(3, 1, N)));
    REFUSES(5, b->ops.swiglu_backward(b, out(0, T, N), out(1, T, N), in(2, T, N), in(3, T, N),
                                      in(4, T, N)));
    REFUSES(8, b->ops.swiglu_rmsnorm_backward(b, out(0, T, N), out(1, T, N), out(2, 1, N), q, a,
                                              out(3, T, 1), in(4, T, N), in(5, T, N), in(6, T, N),
                                              in(7, 1, N)));
}

static void check_elementwise(nd_backend *b)
{
    const nd_view number = nd_view_of(memory[9], ND_F64, 1, 1);
    const nd_update_params update = {.step_size = 1.0f};
    const nd_adamw_params adamw = {.epsilon = 1.0f, .correction1 = 1.0f, .correction2 = 1.0f};
    REFUSES(3, b->ops.add(b, out(0, T, N), in(1, T, N), in(2, T, N)));
    REFUSES(2, b->ops.axpby(b, out(0, T, N), 1.0f, in(1, T, N), 0.0f));
    REFUSES(2, b->ops.divide_by_norm(b, out(0, T, N), in(1, T, N), nd_as_const(number), 1.0));
    REFUSES(1, b->ops.sum(b, number, in(0, T, N)));
    REFUSES(1, b->ops.sum_squares(b, number, in(0, T, N)));
    REFUSES(3, b->ops.momentum(b, out(0, T, N), out(1, T, N), in(2, T, N), 0.9f, 1.0f, true));
    REFUSES(2, b->ops.apply_update(b, out(0, T, N), in(1, T, N), &update));
    REFUSES(4, b->ops.adamw(b, out(0, T, N), out(1, T, N), out(2, T, N), in(3, T, N), &adamw));
}

static void check_products_and_losses(nd_backend *b)
{
    const nd_attention_shape shape = {1, T, T, 2, 1, N / 2, {0}};
    static const int32_t zeros[T];
    const nd_cview ids = nd_cview_of(zeros, ND_I32, T, 1);
    nd_rope_params rope = {.head_dim = 0, .seq_len = T, .base = 1e4};
    REFUSES(3, b->ops.gemm(b, out(0, T, T), in(1, T, N), false, in(2, T, N), true, 1.0f, 0.0f));
    REFUSES(3, b->ops.gemm_symmetric(b, out(0, T, T), in(1, T, N), false, in(2, T, N), 1.0f, 0.0f,
                                     0.0f));
    REFUSES(5, b->ops.attention(b, out(0, T, N), out(1, T, 2), in(2, T, N), in(3, T, N / 2),
                                in(4, T, N / 2), &shape));
    REFUSES(9, b->ops.attention_backward(b, out(0, T, N), out(1, T, N / 2), out(2, T, N / 2),
                                         in(3, T, N), in(4, T, N), in(5, T, 2), in(6, T, N),
                                         in(7, T, N / 2), in(8, T, N / 2), &shape));
    REFUSES(2, b->ops.embedding(b, out(0, T, N), in(1, T, N), ids));
    REFUSES(2, b->ops.embedding_backward(b, out(0, T, N), in(1, T, N), ids));
    REFUSES(6, b->ops.cross_entropy(b, out(0, T, 1), out(1, T, 1), out(2, T, N), ids,
                                    &(nd_cross_entropy_params){.gradient_scale = 1.0f,
                                                               .norm = out(3, T, 1),
                                                               .weight = in(4, T, 1),
                                                               .gradient = out(5, T, N)}));
    excluded = -1;
    ND_ASSERT_FAILS(b->ops.rope(b, out(0, T, N), &rope), ND_EINTERNAL, "head_dim");
}

Test(backend_dtypes, that_an_op_does_not_take_are_refused)
{
    for (int reference = 0; reference < 2; reference++) {
        const nd_cpu_backend_options options = {.threads = 1, .reference_only = reference == 1};
        nd_backend *b;
        ND_ASSERT_OK(nd_cpu_backend_create(&options, &b));
        check_rows(b);
        check_elementwise(b);
        check_products_and_losses(b);
        nd_backend_destroy(b);
    }
}

Test(arena, that_holds_nothing_reserves_nothing_more)
{
    const nd_cpu_backend_options options = {.threads = 1, .reference_only = true};
    nd_backend *b;
    nd_arena arena;
    nd_view view;
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &b));
    nd_arena_start_sizing(&arena, "wire", b);
    ND_ASSERT_OK(nd_arena_commit(&arena));
    ND_ASSERT_OK(nd_arena_reserve(&arena, ND_F32, 0, 5, &view));
    ND_ASSERT_FAILS(nd_arena_reserve(&arena, ND_F32, 1, 5, &view), ND_EINTERNAL,
                    "wire: 64 bytes reserved of 0 counted");
    nd_arena_release(&arena);
    nd_backend_destroy(b);
}
