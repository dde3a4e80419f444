/* The interface to devices other than the CPU: the backend a rank computes on, and communication
 * from its memory. One implementation is linked: cuda/device_cuda.c in builds with CUDA, else
 * device_none.c, a complete implementation for no device. Callers need not know which. */
#pragma once

#include "dist/comm.h"
#include "dist/weights/code_kernels.h"

#include <stdbool.h>

/* The keys of [hardware] that concern a device. */
typedef struct nd_device_choice {
    nd_target target;
    nd_attention_choice attention;
} nd_device_choice;

/* Creates a backend on this rank's own device, chosen by its number among the ranks of its machine
 * (comm->local_rank of comm->local_size); uses nothing else of `comm`. *backend is NULL where the
 * CPU is to be used: with ND_TARGET_CPU, with ND_TARGET_AUTO where there is no device, and in a
 * build without devices, for which nd_config_check has rejected what needs one. The caller owns the
 * backend (nd_backend_destroy). Not collective. Errors: ND_ECONFIG when a device, or a feature of
 * one, is requested and there is none, or when ranks outnumber devices; ND_EINTERNAL when a library
 * is missing; ND_ENOMEM. */
nd_status nd_device_backend_create(nd_device_choice choice, const nd_comm *comm,
                                   nd_backend **backend);

/* Whether nd_device_backend_create made `backend`, so that nd_device_attach can send from its
 * memory without the host. Not collective. */
bool nd_device_owns(const nd_backend *backend);

/* Bytes that can still be allocated on the device of `backend`; SIZE_MAX when unknown, or where
 * nd_device_owns is false. Not collective. */
size_t nd_device_memory_left(const nd_backend *backend);

/* Kernels for code streams in memory of `backend`; NULL: the host does it. Not collective. */
const nd_code_kernels *nd_device_code_kernels(const nd_backend *backend);

/* Exchanges memory of comm->device directly between devices from now on, summed as comm->reduction
 * says. Does nothing where nd_device_owns is false, in a comm of one rank, and in builds without
 * NCCL; exchanges then pass through the host. Collective. Errors: ND_EINTERNAL (of a library),
 * ND_ECONFIG when two ranks share a GPU, ND_EPEER. */
nd_status nd_device_attach(nd_comm *comm);

/* Undoes nd_device_attach; does nothing for a comm that is not attached. Must be called before
 * memory of the backend is released. Collective unless a function of `comm` has failed. */
void nd_device_detach(nd_comm *comm);
