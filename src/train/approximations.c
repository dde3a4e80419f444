#include "train/approximations.h"

#include "dist/gradient_wire.h"

#include <stdio.h>
#include <string.h>

static void add(char *text, size_t size, const char *key, const char *value)
{
    const size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s = %s", used ? ", " : "", key, value);
}

void nd_wire_approximations(const nd_config *config, int ranks, char *text, size_t size)
{
    static const char *const outer[] = {"fp32", "int8", "int4"};
    const nd_gradient_wire format = (nd_gradient_wire)config->dist.grad_comm_dtype;
    text[0] = '\0';
    if (ranks > 1 && format != ND_GRADIENT_WIRE_FP32)
        add(text, size, "grad_comm_dtype", nd_gradient_wire_name(format));
    if (config->dist.embedding_sync == ND_EMBEDDING_WIRE_INT8_DELTA)
        add(text, size, "embedding_sync", "int8_delta");
    if (nd_config_has_rounds(config) && config->dist.outer_comm_dtype != ND_OUTER_WIRE_FP32)
        add(text, size, "outer_comm_dtype", outer[config->dist.outer_comm_dtype]);
}
