#include "timed_ops.h"

#include "timing.h"

static struct {
    nd_backend_ops ops;
    double seconds[TIMED_OPS];
} timed;

const char *const timed_op_names[TIMED_OPS] = {
#define OP(name, ...) #name,
#include "core/backend/backend_ops.def"
#undef OP
};

/* The names of an op's arguments, each preceded by a comma. */
#define ARGUMENTS(...) ND_EACH(ARGUMENT_, __VA_ARGS__)
#define ARGUMENT_OUT(v) , v
#define ARGUMENT_IN(v) , v
#define ARGUMENT_BLOCKS_OUT(q) , q
#define ARGUMENT_BLOCKS_IN(q) , q
#define ARGUMENT_TILES_OUT(q) , q
#define ARGUMENT_TILES_IN(q) , q
#define ARGUMENT_ROWS(type, p) , p
#define ARGUMENT_LOSS(p) , p
#define ARGUMENT_MEMORY_OUT(p) , p
#define ARGUMENT_MEMORY_IN(p) , p
#define ARGUMENT_VALUE(type, x) , x

/* A slot that calls the backend's own and adds the time that took. */
#define OP(name, ...)                                                                              \
    static nd_status timed_##name(nd_backend *b ND_OP_PARAMETERS(__VA_ARGS__))                     \
    {                                                                                              \
        const double start = nd_seconds();                                                         \
        const nd_status status = timed.ops.name(b ARGUMENTS(__VA_ARGS__));                         \
        timed.seconds[TIMED_##name] += nd_seconds() - start;                                       \
        return status;                                                                             \
    }
#include "core/backend/backend_ops.def"
#undef OP

void timed_ops_start(nd_backend *b)
{
    timed.ops = b->ops;
    for (int i = 0; i < TIMED_OPS; i++)
        timed.seconds[i] = 0.0;
#define OP(name, ...) b->ops.name = timed_##name;
#include "core/backend/backend_ops.def"
#undef OP
}

void timed_ops_stop(nd_backend *b, double out[TIMED_OPS])
{
    b->ops = timed.ops;
    for (int i = 0; i < TIMED_OPS; i++)
        out[i] = timed.seconds[i];
}
