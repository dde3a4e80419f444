/* The CUDA backend's table. */
#include "core/base/rng.h"
#include "cuda/emulated_backend.h"
#include "support/support.h"
#include "unimplemented.h"

#include <string.h>

Test(cuda, every_op_is_implemented)
{
    nd_backend *b = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    cr_assert_eq(nd_unimplemented_count(&b->ops), 0, "%d ops are missing",
                 nd_unimplemented_count(&b->ops));
    /* What nd_unimplemented_count does not know of would be NULL. */
    const char *table = (const char *)&b->ops + offsetof(nd_backend_ops, destroy);
    const size_t slots = (sizeof b->ops - offsetof(nd_backend_ops, destroy)) / sizeof(void *);
    for (size_t i = 0; i < slots; i++) {
        void *slot;
        memcpy(&slot, table + i * sizeof slot, sizeof slot);
        cr_assert(slot != NULL, "slot %zu is empty", i);
    }
    nd_backend_destroy(b);
}

Test(cuda, an_op_that_is_missing_says_so)
{
    nd_backend b = {0};
    nd_unimplemented_ops(&b.ops);
    const nd_view v = nd_view_of(NULL, ND_F32, 1, 1);
    ND_ASSERT_FAILS(b.ops.add(&b, v, nd_as_const(v), nd_as_const(v)), ND_EINTERNAL,
                    "cuda: op add is not implemented");
    cr_assert(nd_unimplemented_count(&b.ops) >= 35);
}

Test(cuda, float_types_that_the_device_lacks_are_refused)
{
    nd_backend *b = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    double x = 1.0;
    const nd_view v = nd_view_of(&x, ND_F64, 1, 1);
    ND_ASSERT_FAILS(b->ops.add(b, v, nd_as_const(v), nd_as_const(v)), ND_EINTERNAL,
                    "add_cuda: needs");
    nd_backend_destroy(b);
}

Test(cuda, memory_that_is_not_there_is_an_error_of_that_call_alone)
{
    nd_backend *b = NULL;
    void *memory = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    ND_ASSERT_FAILS(
        b->ops.allocate(b, (size_t)1 << 50, &memory), ND_ENOMEM,
        "cuda: cannot allocate 1125899906842624 bytes of device memory (1048576.00 GiB)");
    nd_error_clear();
    cr_assert(memory == NULL);
    ND_ASSERT_OK(b->ops.allocate(b, 64, &memory));
    const nd_view x = nd_view_of(memory, ND_F32, 1, 16);
    ND_ASSERT_OK(b->ops.add(b, x, nd_as_const(x), nd_as_const(x)));
    b->ops.release(b, memory, 64);
    nd_backend_destroy(b);
}

/* 29000 floats fit a block's shared memory once, not twice. */
Test(cuda, rows_too_wide_for_one_kernel_get_the_same_codes_and_gradients_from_two)
{
    enum { WIDTH = 29000 };
    static float rows[4][WIDTH], gradients[3][2][WIDTH];
    static int8_t codes[2][WIDTH];
    float scale[2], norm[2];
    nd_backend *b = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    for (int i = 0; i < 4; i++)
        nd_rng_normal_fill(nd_rng_key((uint64_t)i, "rows"), 0, 1.0f, rows[i], WIDTH);
#define ROW(x) nd_view_of(x, ND_F32, 1, WIDTH)
#define ONE(x) nd_view_of(x, ND_F32, 1, 1)
    const nd_cview gate = nd_as_const(ROW(rows[0])), up = nd_as_const(ROW(rows[1])),
                   dy = nd_as_const(ROW(rows[2])), w = nd_as_const(ROW(rows[3]));
    const nd_view q[] = {nd_view_of(codes[0], ND_I8, 1, WIDTH),
                         nd_view_of(codes[1], ND_I8, 1, WIDTH)};
    ND_ASSERT_OK(
        b->ops.swiglu_rmsnorm_quantize(b, q[0], ONE(&scale[0]), ONE(&norm[0]), gate, up, w));
    for (int with = 0; with < 2; with++)
        ND_ASSERT_OK(b->ops.swiglu_rmsnorm_backward(
            b, ROW(gradients[0][with]), ROW(gradients[1][with]), ROW(gradients[2][with]),
            with ? q[1] : (nd_view){0}, ONE(&scale[1]), ONE(&norm[with]), dy, gate, up, w));
    nd_backend_destroy(b);
    cr_assert_arr_eq(codes[0], codes[1], sizeof codes[0]);
    cr_assert_eq(scale[0], scale[1]);
    cr_assert_eq(norm[0], norm[1]);
    cr_assert_neq(gradients[0][0][WIDTH - 1], 0.0f);
    for (int i = 0; i < 3; i++)
        cr_assert_arr_eq(gradients[i][0], gradients[i][1], sizeof gradients[i][0]);
}

/* Between record and record_end: recorded, not run; and what cannot be recorded says so. */
Test(cuda, ops_are_recorded_and_replayed_with_their_arguments)
{
    nd_backend *b = NULL;
    nd_recording *recording = NULL;
    void *memory = NULL;
    bool can = false, stale = true;
    float host[16] = {1.0f}, back[16];
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    ND_ASSERT_OK(b->ops.allocate(b, sizeof host, &memory));
    ND_ASSERT_OK(b->ops.upload(b, memory, host, sizeof host));
    const nd_view x = nd_view_of(memory, ND_F32, 1, 16);
    ND_ASSERT_OK(b->ops.record(b, &can));
    cr_assert(can);
    ND_ASSERT_OK(b->ops.add(b, x, nd_as_const(x), nd_as_const(x)));
    ND_ASSERT_OK(b->ops.record_end(b, &recording));
    ND_ASSERT_OK(b->ops.download(b, back, memory, sizeof back));
    cr_assert_eq(back[0], 1.0f);
    for (int i = 0; i < 2; i++) {
        ND_ASSERT_OK(b->ops.replay(b, recording, &stale));
        cr_assert_not(stale);
    }
    ND_ASSERT_OK(b->ops.download(b, back, memory, sizeof back));
    cr_assert_eq(back[0], 4.0f);
    ND_ASSERT_OK(b->ops.record(b, &can));
    ND_ASSERT_FAILS(b->ops.upload(b, memory, host, sizeof host), ND_EINTERNAL,
                    "an op that is recorded waits, uploads");
    ND_ASSERT_FAILS(b->ops.download(b, back, memory, sizeof back), ND_EINTERNAL, "recorded waits");
    ND_ASSERT_FAILS(b->ops.sum(b, nd_view_of(memory, ND_F64, 1, 1), nd_as_const(x)), ND_EINTERNAL,
                    "needs more memory than there is");
    nd_error_clear();
    ND_ASSERT_OK(b->ops.record_end(b, NULL));
    /* The workspace grows: what stood in a recording may not be there any more. */
    ND_ASSERT_OK(b->ops.sum(b, nd_view_of(memory, ND_F64, 1, 1), nd_as_const(x)));
    ND_ASSERT_OK(b->ops.replay(b, recording, &stale));
    cr_assert(stale == true);
    b->ops.release_recording(b, recording);
    b->ops.release(b, memory, sizeof host);
    nd_backend_destroy(b);
}
