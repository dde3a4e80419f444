#include "core/base/build_info.h"

#include <stdio.h>

/* Defined in the program only (nd_commit in cmake/Modules.cmake). */
extern const char nd_build_commit_text[] __attribute__((weak));

const char *nd_build_version(void)
{
    return ND_VERSION;
}

const char *nd_build_commit(void)
{
    return nd_build_commit_text ? nd_build_commit_text : "unknown";
}

void nd_build_options(char *text, size_t size)
{
    static const char *const words[] = {"off", "on"};
    snprintf(text, size, "%s, CUDA %s, NCCL %s, cuDNN %s, compiler %s", ND_BUILD_TYPE,
             words[ND_HAVE_CUDA], words[ND_HAVE_NCCL], words[ND_HAVE_CUDNN], __VERSION__);
}
