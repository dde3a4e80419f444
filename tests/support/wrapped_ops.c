#include "support/wrapped_ops.h"

#include <stdlib.h>

#define BYTES(pointer, count, is_written) {(void **)(uintptr_t) & (pointer), count, is_written},
#define VIEW(v, is_written)                                                                        \
    BYTES((v).data, (size_t)((v).rows * (v).cols) * nd_dtype_size((v).dtype), is_written)

/* Copies of structures with pointers in them, which are replaced for the inner op. */
#define COPY_OUT(v)
#define COPY_IN(v)
#define COPY_BLOCKS_OUT(q) nd_blocks q##_inner = *q;
#define COPY_BLOCKS_IN(q) nd_blocks q##_inner = *q;
#define COPY_TILES_OUT(q) nd_tiles q##_inner = *q;
#define COPY_TILES_IN(q) nd_tiles q##_inner = *q;
#define COPY_ROWS(type, p) type p##_inner = *p;
#define COPY_LOSS(p) nd_cross_entropy_params p##_inner = *p;
#define COPY_MEMORY_OUT(p)
#define COPY_MEMORY_IN(p)
#define COPY_VALUE(type, x)

/* Where each argument has memory. */
#define MEMORY_OF_OUT(v) VIEW(v, true)
#define MEMORY_OF_IN(v) VIEW(v, false)
#define MEMORY_OF_BLOCKS_OUT(q) VIEW(q##_inner.codes, true) VIEW(q##_inner.scales, true)
#define MEMORY_OF_BLOCKS_IN(q) VIEW(q##_inner.codes, false) VIEW(q##_inner.scales, false)
#define MEMORY_OF_TILES(q, is_written)                                                             \
    VIEW(q##_inner.codes, is_written)                                                              \
    VIEW(q##_inner.row_max, is_written) VIEW(q##_inner.column_max, is_written)
#define MEMORY_OF_TILES_OUT(q) MEMORY_OF_TILES(q, true)
#define MEMORY_OF_TILES_IN(q) MEMORY_OF_TILES(q, false)
#define MEMORY_OF_ROWS(type, p) VIEW(p##_inner.rows, false)
#define MEMORY_OF_LOSS(p)                                                                          \
    VIEW(p##_inner.norm, true) VIEW(p##_inner.weight, false) VIEW(p##_inner.gradient, true)
#define MEMORY_OF_MEMORY_OUT(p) BYTES(p, bytes, true)
#define MEMORY_OF_MEMORY_IN(p) BYTES(p, bytes, false)
#define MEMORY_OF_VALUE(type, x)

#define INNER_OUT(v) , v
#define INNER_IN(v) , v
#define INNER_BLOCKS_OUT(q) , &q##_inner
#define INNER_BLOCKS_IN(q) , &q##_inner
#define INNER_TILES_OUT(q) , &q##_inner
#define INNER_TILES_IN(q) , &q##_inner
#define INNER_ROWS(type, p) , &p##_inner
#define INNER_LOSS(p) , &p##_inner
#define INNER_MEMORY_OUT(p) , p
#define INNER_MEMORY_IN(p) , p
#define INNER_VALUE(type, x) , x

/* Calls the inner backend's op with the arguments translated. */
#define OP(name, ...)                                                                              \
    static nd_status wrapped_##name(nd_backend *b ND_OP_PARAMETERS(__VA_ARGS__))                   \
    {                                                                                              \
        wrapper *self = wrapper_of(b);                                                             \
        ND_EACH(COPY_, __VA_ARGS__)                                                                \
        argument list[] = {ND_EACH(MEMORY_OF_, __VA_ARGS__){NULL, 0, false}};                      \
        const int count = (int)(sizeof list / sizeof *list) - 1;                                   \
        nd_status status = self->enter(self, #name, list, count);                                  \
        if (status == ND_OK)                                                                       \
            status = self->inner->ops.name(self->inner ND_EACH(INNER_, __VA_ARGS__));              \
        const nd_status left = self->leave ? self->leave(self, #name) : ND_OK;                     \
        return status != ND_OK ? status : left;                                                    \
    }
#include "core/backend/backend_ops.def"
#undef OP

static nd_status wrapped_synchronize(nd_backend *b)
{
    wrapper_of(b)->waits++;
    return inner_of(b)->ops.synchronize(inner_of(b));
}

static size_t wrapped_workspace_bytes(const nd_backend *b)
{
    return inner_of(b)->ops.workspace_bytes(inner_of(b));
}

static void wrapped_destroy(nd_backend *b)
{
    nd_backend_destroy(inner_of(b));
    free(b->context);
    free(b);
}

const nd_backend_ops nd_wrapped_ops = {
    .destroy = wrapped_destroy,
    .workspace_bytes = wrapped_workspace_bytes,
    .synchronize = wrapped_synchronize,
#define OP(name, ...) .name = wrapped_##name,
#include "core/backend/backend_ops.def"
#undef OP
};
