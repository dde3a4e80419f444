/* The seam to devices beside the CPU: what a rank computes on, and how its memory is sent. Of these
 * functions one implementation is linked: cuda/device.c where the build has CUDA, device_none.c, a
 * complete one for no device, elsewhere. Callers never ask which. */
#ifndef ND_DIST_DEVICE_H
#define ND_DIST_DEVICE_H

#include "dist/code_kernels.h"
#include "dist/comm.h"

#include <stdbool.h>

/* What is asked of a device: the keys of [hardware] that bear on it. */
typedef struct nd_device_choice {
    nd_target target;
    nd_attention_choice attention;
} nd_device_choice;

/* A backend on the device of this rank's own, that of its number among the ranks of its machine
 * (comm->local_rank of comm->local_size); of `comm` nothing else is used. *backend stays NULL where the
 * CPU is what is left: with ND_TARGET_CPU, with ND_TARGET_AUTO where there is no device, and in a build
 * that knows none, where nd_config_check has refused what asks for one. The caller owns the backend
 * (nd_backend_destroy). Not collective. Errors: ND_ECONFIG when a device, or what only one has, is asked for
 * and there is none, or ranks outnumber devices; ND_EINTERNAL when a library is missing; ND_ENOMEM. */
nd_status nd_device_backend_create(nd_device_choice choice, const nd_comm *comm,
                                   nd_backend **backend);

/* Whether `backend` is of a kind that nd_device_backend_create makes: one whose memory nd_device_attach
 * can send without the host. Not collective. */
bool nd_device_owns(const nd_backend *backend);

/* How entries of a code stream are made and read in memory of `backend`; NULL: by the host. Not
 * collective. */
const nd_code_kernels *nd_device_code_kernels(const nd_backend *backend);

/* From here on what lies in memory of comm->device goes from device to device, summed as
 * comm->reduction says; does nothing where comm->device is not one of nd_device_owns, in a comm of one
 * rank, and in builds that cannot: then it goes through the host. Collective. Errors: ND_EINTERNAL when
 * a library is missing, ND_EPEER. */
nd_status nd_device_attach(nd_comm *comm);

/* Takes that back; does nothing for a comm that is not attached. To be called before memory of the
 * backend is released. Collective unless a function of `comm` has failed. */
void nd_device_detach(nd_comm *comm);

#endif
