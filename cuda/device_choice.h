/* Chooses the GPU of a rank. No vendor types; needs no GPU. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* The GPU of a rank: the one with its number among the ranks of this machine, or the only one where
 * `visible`, the value of CUDA_VISIBLE_DEVICES (may be NULL), names one: srun --gpus-per-task=1
 * shows every rank its own GPU as number 0. That ranks have different GPUs is checked when they
 * connect (nccl_bootstrap.h). `wanted`: the configuration requires a GPU; otherwise *device is -1
 * where there is none. `reason` says in the message why there is none. Errors: ND_ECONFIG when a
 * GPU is required and there is none, and when ranks outnumber GPUs: NCCL refuses two ranks on one,
 * and a mixture of GPUs and CPUs would give other results. */
nd_status nd_choose_device(bool wanted, int devices, const char *visible, int local_rank,
                           int local_size, const char *reason, int *device);
