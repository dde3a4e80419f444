/* Chooses cuDNN's engine for a graph and creates the execution plan. */
#pragma once

#include "cudnn_operations.h"

/* The device of a plan: that of `handle` or, when it is NULL, the one that `properties` (a finished
 * CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) describes; such a plan cannot be executed here. */
typedef struct nd_cudnn_target {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties;
} nd_cudnn_target;

typedef struct nd_cudnn_choice {
    cudnnBackendDescriptor_t plan; /* owned by the graph */
    int64_t engine;                /* its number among the graph's */
    int64_t workspace;             /* bytes */
} nd_cudnn_choice;

/* Chooses the first engine in cuDNN's own order that is reproducible, needs at most `limit` bytes
 * of workspace, and whose plan can be created. False, with graph->failed, if there is none. */
bool nd_cudnn_choose_engine(nd_cudnn_graph *graph, nd_cudnn_target target, int64_t limit,
                            nd_cudnn_choice *choice);
