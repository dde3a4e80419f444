/* The CUDA backend's table. */
#include "cuda/emulated_backend.h"
#include "support/support.h"
#include "unfilled.h"

#include <string.h>

Test(cuda, every_op_is_implemented)
{
    nd_backend *b = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    cr_assert_eq(nd_unfilled_count(&b->ops), 0, "%d ops are missing", nd_unfilled_count(&b->ops));
    /* What nd_unfilled_count does not know of would be NULL. */
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
    nd_unfilled_ops(&b.ops);
    const nd_view v = nd_view_of(NULL, ND_F32, 1, 1);
    ND_ASSERT_FAILS(b.ops.add(&b, v, nd_read(v), nd_read(v)), ND_EINTERNAL,
                    "cuda: op add is not implemented");
    cr_assert(nd_unfilled_count(&b.ops) >= 35);
}

Test(cuda, float_types_that_the_device_lacks_are_refused)
{
    nd_backend *b = NULL;
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &b));
    double x = 1.0;
    const nd_view v = nd_view_of(&x, ND_F64, 1, 1);
    ND_ASSERT_FAILS(b->ops.add(b, v, nd_read(v), nd_read(v)), ND_EINTERNAL, "add_cuda: needs");
    nd_backend_destroy(b);
}
