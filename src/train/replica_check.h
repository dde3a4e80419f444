/* Checks that all ranks compute with the same weights, and that all owners of a parameter hold the
 * same state. */
#pragma once

#include "train/run.h"

/* Each rank computes a 64-bit hash of every weight in the form it computes with (codes and scales,
 * dense values) and of every projector, and with several groups of ranks also of the masters and
 * optimizer states it owns, which the other groups hold as well; the ranks compare them.
 * Collective. Errors: ND_EPEER on every rank, naming the first tensor that differs and which ranks
 * hold what. */
nd_status nd_replica_check(nd_run *run);
