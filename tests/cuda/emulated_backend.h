/* The CUDA backend over the emulation of a device (emulation/cuda_emulation.h). */
#pragma once

#include "cuda_backend.h"

nd_status nd_emulated_backend_create(const nd_cuda_options *options, nd_backend **backend);

/* The same, whose wgmma kernel counts as checked: the check (cuda/int8_hopper_check.cu) takes
 * seconds here, and test_int8_product.c is about it. */
nd_status nd_emulated_backend_create_checked(const nd_cuda_options *options, nd_backend **backend);
