#include "train/approximations.h"

#include "dist/gradient_wire.h"

#include <stdio.h>

void nd_wire_approximations(const nd_config *config, int ranks, char *text, size_t size)
{
    const nd_gradient_wire format = (nd_gradient_wire)config->dist.gradient_wire;
    const bool rounds = ranks > 1 && format != ND_GRADIENT_WIRE_FP32;
    const bool changes = config->dist.embedding_wire == ND_EMBEDDING_WIRE_INT8_DELTA;
    snprintf(text, size, "%s%s%s%s", rounds ? "gradient_wire = " : "",
             rounds ? nd_gradient_wire_name(format) : "", rounds && changes ? ", " : "",
             changes ? "embedding_wire = int8_delta" : "");
}
