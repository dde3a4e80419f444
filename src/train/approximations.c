#include "train/approximations.h"

#include "dist/gradient_wire.h"

#include <stdio.h>

void nd_wire_approximations(const nd_config *config, int ranks, char *text, size_t size)
{
    const nd_gradient_wire format = (nd_gradient_wire)config->dist.grad_comm_dtype;
    const bool rounds = ranks > 1 && format != ND_GRADIENT_WIRE_FP32;
    const bool changes = config->dist.embedding_sync == ND_EMBEDDING_WIRE_INT8_DELTA;
    snprintf(text, size, "%s%s%s%s", rounds ? "grad_comm_dtype = " : "",
             rounds ? nd_gradient_wire_name(format) : "", rounds && changes ? ", " : "",
             changes ? "embedding_sync = int8_delta" : "");
}
