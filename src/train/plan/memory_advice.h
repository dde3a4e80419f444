/* Suggests settings that reduce the memory of a run. */
#pragma once

#include "core/config/config.h"
#include "train/run/memory.h"

#include <stdio.h>

/* Writes, one indented line each, settings with which a rank would need less than `bytes`. */
void nd_memory_advise(const nd_config *config, const size_t bytes[ND_MEMORY_COUNT], FILE *out);
