/* A CUDA driver without a device, named libcuda.so.1, so that cuDNN can compile its kernels and
 * finish its plans for a device that is only described. Whatever loads a module or asks for a
 * function of one gets a token; nothing can be launched, and there are no devices. */

enum { SUCCESS = 0, NO_DEVICE = 100, NOT_SUPPORTED = 801 };

static int token;

/* Hands out something that is not NULL. */
#define GIVES(name)                                                                                \
    int name(void **out);                                                                          \
    int name(void **out)                                                                           \
    {                                                                                              \
        *out = &token;                                                                             \
        return SUCCESS;                                                                            \
    }
#define COUNTS(name, value)                                                                        \
    int name(int *out);                                                                            \
    int name(int *out)                                                                             \
    {                                                                                              \
        *out = (value);                                                                            \
        return SUCCESS;                                                                            \
    }
#define AGREES(name)                                                                               \
    int name(void);                                                                                \
    int name(void)                                                                                 \
    {                                                                                              \
        return SUCCESS;                                                                            \
    }
#define REFUSES(name, code)                                                                        \
    int name(void);                                                                                \
    int name(void)                                                                                 \
    {                                                                                              \
        return (code);                                                                             \
    }

GIVES(cuCtxGetCurrent)
GIVES(cuCtxPopCurrent)
GIVES(cuDevicePrimaryCtxRetain)
GIVES(cuKernelGetFunction)
GIVES(cuLibraryGetKernel)
GIVES(cuLibraryLoadData)
GIVES(cuLibraryLoadFromFile)
GIVES(cuModuleGetFunction)
GIVES(cuModuleLoadData)
GIVES(cuModuleLoadDataEx)
GIVES(cuModuleLoadFatBinary)
COUNTS(cuCtxGetDevice, 0)
COUNTS(cuDeviceGet, 0)
COUNTS(cuDriverGetVersion, 13000)
COUNTS(cuFuncGetAttribute, 0)
COUNTS(cuKernelGetAttribute, 0)
COUNTS(cuOccupancyMaxActiveBlocksPerMultiprocessor, 1)
COUNTS(cuOccupancyMaxPotentialClusterSize, 1)
AGREES(cuCtxPushCurrent)
AGREES(cuDevicePrimaryCtxRelease)
AGREES(cuDevicePrimaryCtxReset)
AGREES(cuFuncSetAttribute)
AGREES(cuKernelSetAttribute)
AGREES(cuLibraryUnload)
AGREES(cuModuleUnload)
AGREES(cuTensorMapEncodeTiled)
REFUSES(cuCtxGetLimit, NOT_SUPPORTED)
REFUSES(cuDeviceGetAttribute, NO_DEVICE)
REFUSES(cuDeviceGetCount, NO_DEVICE)
REFUSES(cuGetErrorName, NOT_SUPPORTED)
REFUSES(cuGetErrorString, NOT_SUPPORTED)
REFUSES(cuInit, NO_DEVICE)
REFUSES(cuLaunchCooperativeKernel, NO_DEVICE)
REFUSES(cuLaunchKernel, NO_DEVICE)
REFUSES(cuLaunchKernelEx, NO_DEVICE)
REFUSES(cuLinkAddData, NOT_SUPPORTED)
REFUSES(cuLinkAddData_v2, NOT_SUPPORTED)
REFUSES(cuLinkAddFile_v2, NOT_SUPPORTED)
REFUSES(cuLinkComplete, NOT_SUPPORTED)
REFUSES(cuLinkCreate, NOT_SUPPORTED)
REFUSES(cuLinkCreate_v2, NOT_SUPPORTED)
REFUSES(cuLinkDestroy, NOT_SUPPORTED)
REFUSES(cuMemcpyDtoH_v2, NO_DEVICE)
REFUSES(cuModuleGetGlobal_v2, NOT_SUPPORTED)
REFUSES(cuStreamGetCtx, NO_DEVICE)
REFUSES(cuStreamSynchronize, NO_DEVICE)
