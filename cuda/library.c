#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef ND_CUDA_LIBRARY_DIR
#define ND_CUDA_LIBRARY_DIR "/usr/local/cuda/lib64"
#endif

static void *open_in(const char *directory, const char *name)
{
    char path[4096];
    if (!directory || !directory[0])
        return NULL;
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return NULL;
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

nd_status nd_library_open(const char *name, const char *what_for, void **library)
{
    void *opened = open_in(getenv("ND_CUDA_LIBRARIES"), name);
    if (!opened)
        opened = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!opened)
        opened = open_in(ND_CUDA_LIBRARY_DIR, name);
    if (!opened) {
        const char *reason = dlerror();
        return ND_FAIL(ND_EINTERNAL,
                       "%s needs %s, which cannot be opened: %s; the environment variable "
                       "ND_CUDA_LIBRARIES can name its directory",
                       what_for, name, reason ? reason : "unknown reason");
    }
    *library = opened;
    return ND_OK;
}

nd_status nd_library_function(void *library, const char *name, void **function)
{
    *function = dlsym(library, name);
    return ND_CHECK(*function, ND_EINTERNAL, "%s is missing from its library: %s", name, dlerror());
}
