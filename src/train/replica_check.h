/* Whether all ranks still compute with the same weights, and owners of the same parameter hold the same state. */
#pragma once

#include "train/run.h"

/* Collective. Each rank takes a 64-bit hash of every weight as it computes with it (codes and scales,
 * dense values) and of every projector, and with several groups of ranks of the masters and optimizer states it owns,
 * of which the other groups have copies; the ranks compare them. Errors: ND_EPEER on every rank, naming
 * the first tensor that differs and which ranks hold what. */
nd_status nd_replica_check(nd_run *run);
