/* NVIDIA's libraries are opened when a GPU is used, so that the same program starts where there are
 * none. */
#pragma once

#include "core/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens `name` ("libcublasLt.so.13"): in the directory of the environment variable ND_CUDA_LIBRARIES,
 * by the system's own search, and where the build found CUDA. Errors: ND_EINTERNAL naming the library,
 * what needs it and the loader's reason. It stays open. */
nd_status nd_library_open(const char *name, const char *what_for, void **library);

/* The function `name` of it. Errors: ND_EINTERNAL. */
nd_status nd_library_function(void *library, const char *name, void **function);

#ifdef __cplusplus
}
#endif
