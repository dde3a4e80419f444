/* Loads NVIDIA's libraries when a GPU is used: the program also starts without them. */
#pragma once

#include "core/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Loads `name` ("libcublasLt.so.13") from the directory in the environment variable
 * ND_CUDA_LIBRARIES, by the system's search, or from where the build found CUDA. It stays loaded.
 * Errors: ND_EINTERNAL naming the library, what needs it (`what_for`) and the loader's reason. */
nd_status nd_library_open(const char *name, const char *what_for, void **library);

/* Finds the function `name` in it. Errors: ND_EINTERNAL. */
nd_status nd_library_function(void *library, const char *name, void **function);

#ifdef __cplusplus
}
#endif
