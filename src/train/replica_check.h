/* Checks that all ranks compute with the same weights and that all owners of a parameter hold the
 * same state. */
#pragma once

#include "train/run/run.h"

/* Each rank hashes (64 bits) every weight in the form it computes with (codes and scales, dense
 * values) and every projector, and with several groups also the masters and optimizer states it
 * owns, which other groups hold as well; the ranks compare the hashes. Collective. Errors: ND_EPEER
 * on every rank, naming the first tensor that differs and which ranks hold what. */
nd_status nd_replica_check(nd_run *run);
