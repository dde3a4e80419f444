#include "cudnn_library.h"

#include "library.h"

#include <stdio.h>

nd_status nd_cudnn_library_open(nd_cudnn_library *cudnn)
{
    char name[64];
    void *library;
    snprintf(name, sizeof name, "libcudnn.so.%d", CUDNN_MAJOR);
    ND_TRY(nd_library_open(name, "attention through cuDNN", &library));
    const struct {
        const char *name;
        void **function;
    } wanted[] = {
        {"cudnnGetVersion", (void **)&cudnn->version},
        {"cudnnGetErrorString", (void **)&cudnn->error_string},
        {"cudnnGetLastErrorString", (void **)&cudnn->last_error},
        {"cudnnCreate", (void **)&cudnn->create},
        {"cudnnDestroy", (void **)&cudnn->destroy},
        {"cudnnSetStream", (void **)&cudnn->set_stream},
        {"cudnnBackendCreateDescriptor", (void **)&cudnn->create_descriptor},
        {"cudnnBackendDestroyDescriptor", (void **)&cudnn->destroy_descriptor},
        {"cudnnBackendSetAttribute", (void **)&cudnn->set},
        {"cudnnBackendGetAttribute", (void **)&cudnn->get},
        {"cudnnBackendFinalize", (void **)&cudnn->finalize},
        {"cudnnBackendExecute", (void **)&cudnn->execute},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        ND_TRY(nd_library_function(library, wanted[i].name, wanted[i].function));
    cudnn->part_bytes = (int64_t)256 << 20;
    return ND_OK;
}
