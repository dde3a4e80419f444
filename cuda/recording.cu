/* Recordings are CUDA graphs of the compute stream. They contain addresses: of the scratch and the
 * rotary table, whose moves cuda->epoch counts, and of the ops' arguments. */
#include "context.cuh"

#include <stdlib.h>

struct nd_recording {
    cudaGraphExec_t graph;
    int64_t epoch;
};

nd_status nd_cuda_not_recording(const nd_cuda *cuda)
{
    return cuda->recording ? ND_FAIL(ND_EINTERNAL, "cuda: an op that is recorded waits, uploads, "
                                                   "or needs more memory than there is")
                           : ND_OK;
}

/* Relaxed: does not restrict other threads, such as NCCL's. */
static nd_status record_cuda(nd_backend *b, bool *can)
{
    nd_cuda *cuda = nd_cuda_of(b);
    ND_TRY(nd_cuda_not_recording(cuda));
    const cudaError_t code = cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeRelaxed);
    ND_CUDA_TRY(code);
    *can = cuda->recording = true;
    return ND_OK;
}

static nd_status make_recording(nd_cuda *cuda, cudaGraph_t graph, nd_recording **recording)
{
    nd_recording *made = static_cast<nd_recording *>(calloc(1, sizeof *made));
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for a recording");
    const cudaError_t code = cudaGraphInstantiate(&made->graph, graph, 0);
    if (code != cudaSuccess) {
        free(made);
        ND_CUDA_TRY(code);
    }
    made->epoch = cuda->epoch;
    *recording = made;
    return ND_OK;
}

static nd_status record_end_cuda(nd_backend *b, nd_recording **recording)
{
    nd_cuda *cuda = nd_cuda_of(b);
    cudaGraph_t graph = NULL;
    nd_status status = ND_OK;
    const cudaError_t code = cudaStreamEndCapture(cuda->stream, &graph);
    cuda->recording = false;
    if (code != cudaSuccess)
        cudaGetLastError(); /* an error that ended the recording is not one of the next call */
    if (recording)
        status = code == cudaSuccess
                     ? make_recording(cuda, graph, recording)
                     : nd_cuda_check(code, "cudaStreamEndCapture", __FILE__, __LINE__);
    if (graph)
        cudaGraphDestroy(graph);
    return status;
}

static nd_status replay_cuda(nd_backend *b, nd_recording *recording, bool *stale)
{
    nd_cuda *cuda = nd_cuda_of(b);
    *stale = recording->epoch != cuda->epoch;
    if (!*stale)
        ND_CUDA_TRY(cudaGraphLaunch(recording->graph, cuda->stream));
    return ND_OK;
}

static void release_recording(nd_backend *b, nd_recording *recording)
{
    (void)b;
    cudaGraphExecDestroy(recording->graph);
    free(recording);
}

void nd_cuda_fill_recording(nd_backend_ops *ops)
{
    ops->record = record_cuda;
    ops->record_end = record_end_cuda;
    ops->replay = replay_cuda;
    ops->release_recording = release_recording;
}
