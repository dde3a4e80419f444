/* What a run computes on: the device of this rank's own, or its share of the CPU. */
#pragma once

#include "train/run.h"

/* The backend of [hardware] target: a GPU of this rank's own where there is one, else the CPU with this
 * rank's share of the machine's cores. Of `comm` only local_rank and local_size are used. The caller
 * owns the backend. Not collective. Errors: ND_ECONFIG when a GPU is asked for and there is none, or
 * fewer than ranks on this machine. */
nd_status nd_run_create_backend(const nd_config *config, const nd_comm *comm, nd_backend **backend);

/* Keeps of what is fast what is fast on every rank, so that all choose alike. Collective. */
nd_status nd_run_share_traits(nd_comm *comm, nd_backend *backend);

/* Replaces `auto` in [hardware] precision and backward_precision by what the backend does best. */
void nd_run_resolve_precision(nd_config *config, const nd_backend *backend);

/* Makes run->backend the device of run->comm, and [dist] reduction its way of adding. Undone by
 * nd_device_detach and nd_comm_set_device. Collective. Errors: ND_ECONFIG when ranks compute on
 * different kinds of devices, or on one that cannot add as is asked; those of nd_device_attach. */
nd_status nd_run_attach_backend(nd_run *run);
