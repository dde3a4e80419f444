/* The CUDA backend over the emulation of a device (emulation/cuda_emulation.h). */
#pragma once

#include "cuda_backend.h"

nd_status nd_emulated_backend_create(const nd_cuda_options *options, nd_backend **backend);
