/* The GPU that device/runner.c looks for. */
#include "cuda_backend.h"

int nd_cuda_device_count(char *reason, size_t size)
{
    (void)reason, (void)size;
    return 1;
}
