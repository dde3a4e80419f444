/* The functions of cuDNN's graph interface, loaded when attention first needs them. */
#pragma once

#include "core/base/error.h"

#include <cudnn_graph.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nd_cudnn_library {
    __typeof__(&cudnnGetVersion) version;
    __typeof__(&cudnnGetErrorString) error_string;
    __typeof__(&cudnnGetLastErrorString) last_error;
    __typeof__(&cudnnCreate) create;
    __typeof__(&cudnnDestroy) destroy;
    __typeof__(&cudnnSetStream) set_stream;
    __typeof__(&cudnnBackendCreateDescriptor) create_descriptor;
    __typeof__(&cudnnBackendDestroyDescriptor) destroy_descriptor;
    __typeof__(&cudnnBackendSetAttribute) set;
    __typeof__(&cudnnBackendGetAttribute) get;
    __typeof__(&cudnnBackendFinalize) finalize;
    __typeof__(&cudnnBackendExecute) execute;
    int64_t part_bytes; /* of workspace for ds in a backward pass (cudnn_attention.c) */
} nd_cudnn_library;

/* Loads the library. Errors: ND_EINTERNAL when it is missing or lacks a function. */
nd_status nd_cudnn_library_open(nd_cudnn_library *cudnn);

#ifdef __cplusplus
}
#endif
