/* Which GPU a rank takes. No vendor types, no GPU needed. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* The GPU of a rank: that of its number among the ranks of this machine, or the only one where
 * `visible`, CUDA_VISIBLE_DEVICES (may be NULL), names one: srun --gpus-per-task=1 shows every rank its
 * own, each as number 0. Whether they differ is seen when ranks meet (nccl_bootstrap.h). `wanted`: the
 * configuration asks for a GPU; else *device is -1 where there is none. `reason`: why there is none.
 * Errors: ND_ECONFIG when one is wanted and there is none, and when ranks outnumber GPUs: NCCL refuses
 * two ranks on one, and a mixture of GPUs and CPUs would not give the same numbers. */
nd_status nd_choose_device(bool wanted, int devices, const char *visible, int local_rank,
                           int local_size, const char *reason, int *device);
