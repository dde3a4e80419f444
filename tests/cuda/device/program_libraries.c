/* Whether everything that is opened when a GPU is used can be opened here, GPU or not: prints the
 * version of cuBLASLt, NCCL, cuDNN and the compiler that it calls, and what the CUDA runtime says
 * of devices. Exits 1 when a library is missing. */
#include "cuda_backend.h"
#include "library.h"

#include <stdio.h>
#include <string.h>

/* NULL, after a line that says why. */
static void *open_one(const char *stem, int major, const char *what_for)
{
    char name[64];
    void *library = NULL;
    snprintf(name, sizeof name, "lib%s.so.%d", stem, major);
    if (nd_library_open(name, what_for, &library) == ND_OK)
        return library;
    fprintf(stderr, "%s\n", nd_error_get()->message);
    nd_error_clear();
    return NULL;
}

static void *function_of(void *library, const char *name)
{
    void *function = NULL;
    if (library && nd_library_function(library, name, &function) != ND_OK) {
        fprintf(stderr, "%s\n", nd_error_get()->message);
        nd_error_clear();
    }
    return function;
}

static void say(const char *what, long long version)
{
    printf("%-10s %lld\n", what, version);
    fflush(stdout);
}

int main(void)
{
    void *functions[4] = {
        function_of(open_one("cublasLt", ND_CUDA_MAJOR, "every product"), "cublasLtGetVersion"),
        function_of(open_one("nccl", 2, "training on several GPUs"), "ncclGetVersion"),
        function_of(open_one("cudnn", 9, "attention through cuDNN"), "cudnnGetVersion"),
        function_of(open_one("nvrtc", ND_CUDA_MAJOR, "cuDNN"), "nvrtcVersion"),
    };
    size_t (*size_version[2])(void);
    int (*nccl_version)(int *);
    int (*nvrtc_version)(int *, int *);
    char reason[256] = "";
    int version = 0, minor = 0, missing = 0;
    /* ISO C converts no object pointer to a function's. */
    memcpy(&size_version[0], &functions[0], sizeof functions[0]);
    memcpy(&nccl_version, &functions[1], sizeof functions[1]);
    memcpy(&size_version[1], &functions[2], sizeof functions[2]);
    memcpy(&nvrtc_version, &functions[3], sizeof functions[3]);
    if (functions[0])
        say("cuBLASLt", (long long)size_version[0]());
    if (functions[1] && nccl_version(&version) == 0)
        say("NCCL", version);
    if (functions[2])
        say("cuDNN", (long long)size_version[1]());
    if (functions[3] && nvrtc_version(&version, &minor) == 0)
        say("NVRTC", 1000 * version + 10 * minor);
    for (int i = 0; i < 4; i++)
        missing += functions[i] == NULL;
    say("devices", nd_cuda_device_count(reason, sizeof reason));
    if (reason[0])
        printf("%s\n", reason);
    return missing > 0;
}
