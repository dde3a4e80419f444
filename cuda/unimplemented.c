/* The initial table of a backend, in which every op is an error. */
#include "unimplemented.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define OP(name, ...)                                                                              \
    static nd_status name##_unimplemented(nd_backend *b ND_OP_PARAMETERS(__VA_ARGS__))             \
    {                                                                                              \
        return ND_FAIL(ND_EINTERNAL, "cuda: op " #name " is not implemented");                     \
    }
#include "core/backend/backend_ops.def"
#undef OP

static nd_status synchronize_unimplemented(nd_backend *b)
{
    return ND_FAIL(ND_EINTERNAL, "cuda: op synchronize is not implemented");
}

void nd_unimplemented_ops(nd_backend_ops *ops)
{
#define OP(name, ...) ops->name = name##_unimplemented;
#include "core/backend/backend_ops.def"
#undef OP
    ops->synchronize = synchronize_unimplemented;
}

int nd_unimplemented_count(const nd_backend_ops *ops)
{
    int count = !ops->synchronize || ops->synchronize == synchronize_unimplemented;
#define OP(name, ...) count += !ops->name || ops->name == name##_unimplemented;
#include "core/backend/backend_ops.def"
#undef OP
    return count;
}
