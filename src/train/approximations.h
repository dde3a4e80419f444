/* Which of a run's choices are approximate, by name: for the log, plans, checkpoints and reports. */
#pragma once

#include "core/config/config.h"

#include <stddef.h>

/* The chosen formats that are approximate: "grad_comm_dtype = int8, embedding_sync = int8_delta"; "" when
 * all are exact. Where one rank sends nothing, gradients are exact in any format. */
void nd_wire_approximations(const nd_config *config, int ranks, char *text, size_t size);
