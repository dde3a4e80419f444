/* The backend of a run: this rank's GPU, or its share of the CPU. */
#pragma once

#include "core/config/config.h"
#include "dist/comm.h"

/* Creates the backend of [hardware] target: one GPU per rank where there are GPUs, else the CPU
 * with this rank's share of the machine's cores. Uses only local_rank and local_size of `comm`. The
 * caller owns the backend. Not collective. Errors: ND_ECONFIG when a GPU is requested and this
 * machine has none, or fewer than ranks. */
nd_status nd_run_create_backend(const nd_config *config, const nd_comm *comm, nd_backend **backend);

/* Clears the traits `fast_bf16` and `fast_int8_gradients` unless every rank's backend has them, so
 * that all ranks choose the same precision. Collective. Errors: ND_ECONFIG when ranks compute on
 * different kinds of devices; ND_ENOMEM, ND_EPEER. */
nd_status nd_run_share_traits(nd_comm *comm, nd_backend *backend);

/* Replaces `auto` in [hardware] precision by bf16 where that is faster than fp32, else fp32; in
 * backward_precision by int8 where that is faster, exact and group_size is 0, else same. With
 * target = cuda both count as faster, whatever the backend. Not collective. */
void nd_run_resolve_precision(nd_config *config, const nd_backend *backend);
