/* Keys that make a run smaller. */
#pragma once

#include "core/config/config.h"
#include "train/memory.h"

#include <stdio.h>

/* Writes what would make a rank of this configuration take less than `bytes`, a line each, indented. */
void nd_memory_advise(const nd_config *config, const size_t bytes[ND_MEMORY_COUNT], FILE *out);
