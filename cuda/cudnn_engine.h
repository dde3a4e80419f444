/* Which of cuDNN's engines computes a graph, and the execution plan made of it. */
#pragma once

#include "cudnn_operations.h"

/* What a plan is made for: the device of `handle`, or, with no handle, the one that `properties` (a
 * finished CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) describes; such a plan cannot be executed here. */
typedef struct nd_cudnn_target {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties;
} nd_cudnn_target;

typedef struct nd_cudnn_choice {
    cudnnBackendDescriptor_t plan; /* owned by the graph */
    int64_t engine;                /* its number among the graph's */
    int64_t workspace;             /* bytes */
} nd_cudnn_choice;

/* Takes the first engine of cuDNN's own order that gives the same bits every time, needs at most `limit`
 * bytes of workspace, and whose plan can be made. False when there is none: graph->failed says why. */
bool nd_cudnn_choose_engine(nd_cudnn_graph *graph, nd_cudnn_target target, int64_t limit,
                            nd_cudnn_choice *choice);
