/* Which of a run's settings are approximate, by name, for logs, plans, checkpoints and reports. */
#pragma once

#include "core/config/config.h"

#include <stddef.h>

/* Writes the settings with approximate formats: "grad_comm_dtype = int8, embedding_sync =
 * int8_delta"; "" when all are exact. With one rank, gradients are not sent and therefore exact. */
void nd_wire_approximations(const nd_config *config, int ranks, char *text, size_t size);
