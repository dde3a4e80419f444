#include "train/approximations.h"

#include <stdio.h>
#include <string.h>

static void add(const nd_config *config, const char *key, char *text, size_t size)
{
    char value[32];
    const size_t used = strlen(text);
    nd_config_value(config, "dist", key, value, sizeof value);
    snprintf(text + used, size - used, "%s%s = %s", used ? ", " : "", key, value);
}

void nd_wire_approximations(const nd_config *config, int ranks, char *text, size_t size)
{
    text[0] = '\0';
    if (ranks > 1 && config->dist.grad_comm_dtype != ND_GRADIENT_WIRE_FP32)
        add(config, "grad_comm_dtype", text, size);
    if (config->dist.embedding_sync == ND_EMBEDDING_SYNC_INT8_DELTA)
        add(config, "embedding_sync", text, size);
    if (nd_config_has_rounds(config) && config->dist.outer_comm_dtype != ND_OUTER_COMM_FP32)
        add(config, "outer_comm_dtype", text, size);
}
