/* Decides which attention goes through cuDNN: all that it supports, unless configured otherwise.
 * Decided once per shape, and logged with the reason. */
#include "attention.cuh"

#include "cuda_backend.h"
#include "cudnn_attention.h"

extern "C" {
#include "core/base/log.h"
}

#include <stdio.h>
#include <string.h>

struct nd_cuda_library_attention {
    nd_cudnn *cudnn;  /* NULL until it is needed, and if there is none */
    bool tried, told; /* tried to open it; logged that kept tokens use the project's kernels */
};

static nd_status open_library(nd_cuda *cuda)
{
    int major = 0, minor = 0;
    cuda->library_attention->tried = true;
    ND_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->device));
    ND_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->device));
    return nd_cudnn_create(cuda->stream, 10 * major + minor, &cuda->library_attention->cudnn);
}

nd_status nd_cuda_library_attention_create(nd_cuda *cuda)
{
    if (cuda->attention == ND_CUDA_ATTENTION_BUILTIN)
        return ND_OK;
    cuda->library_attention = new nd_cuda_library_attention();
    return cuda->attention == ND_CUDA_ATTENTION_CUDNN ? open_library(cuda) : ND_OK;
}

void nd_cuda_library_attention_destroy(nd_cuda *cuda)
{
    if (cuda->library_attention)
        nd_cudnn_destroy(cuda->library_attention->cudnn);
    delete cuda->library_attention;
    cuda->library_attention = NULL;
}

static bool suits(nd_cview v)
{
    return v.dtype == ND_BF16 && (uintptr_t)v.data % 16 == 0;
}

static bool suits_all(const nd_cview *views, size_t count, nd_cview lse)
{
    bool all = lse.dtype == ND_F32;
    for (size_t i = 0; i < count; i++)
        all = all && suits(views[i]);
    return all;
}

static void log_choice(nd_backend *b, const nd_cudnn_shape *s, const nd_cudnn_plan *plan)
{
    char shape[160];
    const char *reason = nd_cudnn_plan_reason(plan);
    if (!b->log)
        return;
    snprintf(shape, sizeof shape, "attention%s of %lld x %lld tokens, %lld heads over %lld of %lld",
             s->backward ? "_backward" : "", (long long)s->sequences, (long long)s->length,
             (long long)s->heads, (long long)s->kv_heads, (long long)s->head_dim);
    if (reason)
        nd_log_line(b->log, "device  %s: builtin kernels; cuDNN: %s", shape, reason);
    else
        nd_log_line(b->log, "device  %s: cuDNN engine %lld, workspace %.1f MiB", shape,
                    (long long)nd_cudnn_plan_engine(plan),
                    (double)nd_cudnn_plan_workspace(plan) / 1048576.0);
}

/* Opens the library when `auto` first needs it. A missing library is logged and not an error. */
static bool is_open(nd_backend *b)
{
    nd_cuda *cuda = nd_cuda_of(b);
    nd_cuda_library_attention *l = cuda->library_attention;
    if (l->cudnn || l->tried)
        return l->cudnn != NULL;
    if (open_library(cuda) == ND_OK)
        return true;
    if (b->log)
        nd_log_line(b->log, "device  attention: builtin kernels; %s", nd_error_get()->message);
    nd_error_clear();
    return false;
}

struct planned {
    nd_cuda *cuda;
    const nd_cudnn_plan *plan;
};

static nd_status run(nd_cuda *cuda, const nd_cudnn_plan *plan, nd_cudnn_arguments *arguments)
{
    const size_t bytes = nd_cudnn_plan_workspace(plan);
    if (bytes > 0)
        ND_TRY(nd_cuda_scratch(cuda, bytes, &arguments->workspace));
    return nd_cudnn_run(cuda->library_attention->cudnn, plan, arguments);
}

static nd_status forward(void *context, nd_view o, nd_view lse, nd_cview q, nd_cview k, nd_cview v)
{
    const planned *p = static_cast<const planned *>(context);
    nd_cudnn_arguments a;
    memset(&a, 0, sizeof a);
    a.q = q.data;
    a.k = k.data;
    a.v = v.data;
    a.o = o.data;
    a.lse = lse.data;
    return run(p->cuda, p->plan, &a);
}

static nd_status backward(void *context, const nd_attention_gradients *g)
{
    const planned *p = static_cast<const planned *>(context);
    nd_cudnn_arguments a;
    memset(&a, 0, sizeof a);
    a.q = g->q.data;
    a.k = g->k.data;
    a.v = g->v.data;
    a.o = const_cast<void *>(g->o.data);
    a.lse = const_cast<void *>(g->lse.data);
    a.dout = g->dout.data;
    a.dq = g->dq.data;
    a.dk = g->dk.data;
    a.dv = g->dv.data;
    return run(p->cuda, p->plan, &a);
}

/* Rejects a plan whose first run fails or differs from the project's kernels. */
static nd_status check_plan(nd_backend *b, const nd_attention_shape *s, bool is_backward,
                            nd_cudnn_plan *plan)
{
    char reason[256];
    bool looked;
    planned p = {nd_cuda_of(b), plan};
    const nd_attention_library_pass library = {&p, forward, backward};
    const nd_status status =
        nd_cuda_attention_check(b, s, is_backward, &library, &looked, reason, sizeof reason);
    if (status == ND_ENOMEM)
        return status; /* of its workspace: there is no room for it */
    if (status != ND_OK) {
        snprintf(reason, sizeof reason, "%.200s", nd_error_get()->message);
        nd_error_clear();
    }
    if (reason[0])
        nd_cudnn_plan_reject(plan, reason);
    else if (!looked && b->log)
        nd_log_line(b->log,
                    "device  attention: no memory to compare cuDNN with the builtin kernels");
    return ND_OK;
}

/* *plan: NULL where the builtin kernels compute this. `all` and lse: inputs and outputs. */
static nd_status choose(nd_backend *b, const nd_attention_shape *s, bool backward_pass,
                        const nd_cview *all, size_t count, nd_cview lse, nd_cudnn_plan **plan)
{
    nd_cuda *cuda = nd_cuda_of(b);
    nd_cuda_library_attention *l = cuda->library_attention;
    *plan = NULL;
    if (!l || s->query_len != s->key_len || !suits_all(all, count, lse))
        return ND_OK;
    if (s->rows.data) {
        if (b->log && !l->told)
            nd_log_line(b->log, "device  attention of kept tokens: builtin kernels");
        l->told = true;
        return ND_OK;
    }
    if (!l->cudnn && !l->tried)
        ND_TRY(nd_cuda_not_recording(cuda));
    if (!is_open(b))
        return ND_OK;
    const nd_cudnn_shape shape = {s->sequences, s->key_len,  s->heads,
                                  s->kv_heads,  s->head_dim, backward_pass};
    *plan = nd_cudnn_plan_known(l->cudnn, &shape);
    if (!*plan) {
        ND_TRY(nd_cuda_not_recording(cuda));
        ND_TRY(nd_cudnn_plan_for(l->cudnn, &shape, plan));
        if (!nd_cudnn_plan_reason(*plan))
            ND_TRY(check_plan(b, s, backward_pass, *plan));
        log_choice(b, &shape, *plan);
    }
    const char *reason = nd_cudnn_plan_reason(*plan);
    if (!reason)
        return ND_OK;
    *plan = NULL;
    return ND_CHECK(
        cuda->attention != ND_CUDA_ATTENTION_CUDNN, ND_ECONFIG,
        "[hardware] attention_backend = cudnn, but cuDNN refuses attention%s of %lld x %lld "
        "tokens, %lld heads over %lld of %lld: %s; use attention_backend = auto, which "
        "takes the builtin kernels for it",
        backward_pass ? "_backward" : "", (long long)s->sequences, (long long)s->key_len,
        (long long)s->heads, (long long)s->kv_heads, (long long)s->head_dim, reason);
}

nd_status nd_cuda_attention_library(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *s, bool *done)
{
    const nd_cview all[] = {q, k, v, nd_as_const(o)};
    nd_cudnn_plan *plan;
    ND_TRY(choose(b, s, false, all, sizeof all / sizeof *all, nd_as_const(lse), &plan));
    planned p = {nd_cuda_of(b), plan};
    *done = plan != NULL;
    return plan ? forward(&p, o, lse, q, k, v) : ND_OK;
}

nd_status nd_cuda_attention_backward_library(nd_backend *b, const nd_attention_gradients *g,
                                             const nd_attention_shape *s, bool *done)
{
    const nd_cview all[] = {g->q,
                            g->k,
                            g->v,
                            g->o,
                            g->dout,
                            nd_as_const(g->dq),
                            nd_as_const(g->dk),
                            nd_as_const(g->dv)};
    nd_cudnn_plan *plan;
    ND_TRY(choose(b, s, true, all, sizeof all / sizeof *all, g->lse, &plan));
    planned p = {nd_cuda_of(b), plan};
    *done = plan != NULL;
    return plan ? backward(&p, g) : ND_OK;
}
