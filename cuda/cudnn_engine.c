#include "cudnn_engine.h"

#include <stdio.h>

enum { MOST_ENGINES = 16 };

static cudnnBackendDescriptor_t finished_graph(nd_cudnn_graph *graph, nd_cudnn_target target)
{
    const cudnnBackendDescriptor_t all =
        nd_cudnn_make(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    nd_cudnn_set(graph, all, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                 graph->operation_count, graph->operations);
    if (target.handle)
        nd_cudnn_set(graph, all, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                     &target.handle);
    nd_cudnn_finish(graph, all, "graph of operations");
    return all;
}

/* The configurations that cuDNN proposes, best first. */
static int64_t proposals(nd_cudnn_graph *graph, nd_cudnn_target target,
                         cudnnBackendDescriptor_t configs[MOST_ENGINES])
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    const cudnnBackendDescriptor_t all = finished_graph(graph, target);
    const cudnnBackendDescriptor_t ask = nd_cudnn_make(graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    int64_t count = 0;
    nd_cudnn_set(graph, ask, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                 1, &all);
    nd_cudnn_set(graph, ask, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (!target.handle)
        nd_cudnn_set(graph, ask, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &target.properties);
    nd_cudnn_finish(graph, ask, "choice of an engine for operations");
    for (int i = 0; i < MOST_ENGINES; i++)
        configs[i] = nd_cudnn_make(graph, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (graph->failed[0])
        return 0;
    if (graph->cudnn->get(ask, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                          MOST_ENGINES, &count, configs) != CUDNN_STATUS_SUCCESS)
        count = 0;
    if (count == 0)
        snprintf(graph->failed, sizeof graph->failed, "no engine computes it");
    return count;
}

/* An engine that does not say whether it is reproducible counts as one that is not. */
static bool repeats(const nd_cudnn_graph *graph, cudnnBackendDescriptor_t engine)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    if (graph->cudnn->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                          CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < count; i++)
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
            return false;
    return true;
}

/* If the result is false, `why` is the reason. */
static bool plan_of(nd_cudnn_graph *graph, nd_cudnn_target target, cudnnBackendDescriptor_t config,
                    int64_t limit, nd_cudnn_choice *choice, char why[ND_CUDNN_REASON])
{
    const nd_cudnn_library *cudnn = graph->cudnn;
    cudnnBackendDescriptor_t engine = nd_cudnn_make(graph, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    const cudnnBackendDescriptor_t plan =
        nd_cudnn_make(graph, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    int64_t count = 0;
    char reason[ND_CUDNN_REASON];
    if (graph->failed[0])
        return false;
    if (cudnn->get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                   &engine) != CUDNN_STATUS_SUCCESS ||
        cudnn->get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count,
                   &choice->engine) != CUDNN_STATUS_SUCCESS) {
        snprintf(why, ND_CUDNN_REASON, "an engine that cannot be asked");
        return false;
    }
    if (!repeats(graph, engine)) {
        snprintf(why, ND_CUDNN_REASON, "engine %lld does not give the same bits every time",
                 (long long)choice->engine);
        return false;
    }
    nd_cudnn_set(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (target.handle)
        nd_cudnn_set(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                     &target.handle);
    else
        nd_cudnn_set(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target.properties);
    if (graph->failed[0])
        return false;
    const cudnnStatus_t code = cudnn->finalize(plan);
    if (code != CUDNN_STATUS_SUCCESS) {
        nd_cudnn_describe(cudnn, code, reason, sizeof reason);
        snprintf(why, ND_CUDNN_REASON, "engine %lld: %.200s", (long long)choice->engine, reason);
        return false;
    }
    if (cudnn->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                   &choice->workspace) != CUDNN_STATUS_SUCCESS ||
        choice->workspace < 0 || choice->workspace > limit) {
        snprintf(why, ND_CUDNN_REASON,
                 "engine %lld needs a workspace of %lld bytes, more than the %lld allowed",
                 (long long)choice->engine, (long long)choice->workspace, (long long)limit);
        return false;
    }
    choice->plan = plan;
    return true;
}

bool nd_cudnn_choose_engine(nd_cudnn_graph *graph, nd_cudnn_target target, int64_t limit,
                            nd_cudnn_choice *choice)
{
    cudnnBackendDescriptor_t configs[MOST_ENGINES];
    char why[ND_CUDNN_REASON] = "";
    const int64_t count = proposals(graph, target, configs);
    for (int64_t i = 0; i < count; i++) {
        if (plan_of(graph, target, configs[i], limit, choice, why))
            return true;
        if (graph->failed[0])
            return false;
    }
    if (!graph->failed[0])
        snprintf(graph->failed, sizeof graph->failed, "%s", why);
    return false;
}
