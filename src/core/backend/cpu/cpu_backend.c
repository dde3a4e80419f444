#include "core/backend/cpu/fast.h"
#include "core/backend/cpu/onednn.h"
#include "core/backend/cpu/op_families.h"
#include "core/backend/no_recording.h"
#include "core/backend/threads.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Maps and touches memory instead of using the heap, so that a run that does not fit fails at its
 * start and released memory returns to the system. */
static nd_status cpu_allocate(nd_backend *b, size_t bytes, void **memory)
{
    (void)b;
    *memory = NULL;
    if (bytes == 0)
        return ND_OK;
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ND_FAIL_IF(mapped == MAP_FAILED, ND_ENOMEM, "cannot map %zu bytes", bytes);
    madvise(mapped, bytes, MADV_HUGEPAGE);
    memset(mapped, 0, bytes);
    *memory = mapped;
    return ND_OK;
}

static void cpu_release(nd_backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (memory)
        munmap(memory, bytes);
}

static nd_status cpu_copy(nd_backend *b, void *destination, const void *source, size_t bytes)
{
    (void)b;
    if (bytes > 0)
        memcpy(destination, source, bytes);
    return ND_OK;
}

static nd_status cpu_zero(nd_backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (bytes > 0)
        memset(memory, 0, bytes);
    return ND_OK;
}

static nd_status cpu_synchronize(nd_backend *b)
{
    (void)b;
    return ND_OK;
}

static size_t cpu_workspace_bytes(const nd_backend *b)
{
    return b->context ? nd_cpu_fast_workspace_bytes(b->context) : 0;
}

static void cpu_destroy(nd_backend *b)
{
    if (b->context)
        nd_cpu_fast_destroy(b->context);
    free(b);
}

/* Fills every slot with the reference: plain loops, double accumulation, any float dtype. */
static void fill_reference(nd_backend_ops *ops)
{
    nd_reference_fill_ternary(ops);
    nd_reference_fill_int8(ops);
    nd_reference_fill_rows(ops);
    nd_reference_fill_swiglu(ops);
    nd_reference_fill_attention(ops);
    nd_reference_fill_loss(ops);
    nd_reference_fill_updates(ops);
    nd_reference_fill_state(ops);
}

nd_status nd_cpu_backend_create(const nd_cpu_backend_options *asked, nd_backend **backend)
{
    nd_cpu_backend_options resolved = *asked, *options = &resolved;
    if (resolved.threads == 0)
        resolved.threads = nd_machine_threads(1, 0);
    nd_status status = ND_OK;
    nd_backend *created = calloc(1, sizeof *created);
    ND_FAIL_IF(!created, ND_ENOMEM, "no memory for the CPU backend");
    created->ops = (nd_backend_ops){.name = "cpu",
                                    .host_memory = true,
                                    .destroy = cpu_destroy,
                                    .workspace_bytes = cpu_workspace_bytes,
                                    .allocate = cpu_allocate,
                                    .release = cpu_release,
                                    .upload = cpu_copy,
                                    .download = cpu_copy,
                                    .copy = cpu_copy,
                                    .zero = cpu_zero,
                                    .synchronize = cpu_synchronize};
    fill_reference(&created->ops);
    nd_no_recording_fill(&created->ops);
    omp_set_dynamic(0); /* else OpenMP may take fewer than it is asked for */
    omp_set_num_threads(options->threads);
    if (!options->reference_only) {
        nd_cpu_fast *fast = NULL;
        status = nd_cpu_fast_create(options, &created->ops, &fast);
        created->context = fast;
        if (status == ND_OK)
            nd_cpu_fast_describe(fast, &created->traits);
    }
    ND_RETURN_MADE(status, created, cpu_destroy, backend);
}

int nd_cpu_backend_threads(const nd_backend *b)
{
    return b->ops.destroy == cpu_destroy && b->context ? nd_cpu_fast_threads(b->context) : 1;
}

void nd_cpu_backend_set_threads(nd_backend *b, int threads)
{
    if (b->ops.destroy == cpu_destroy && b->context)
        nd_cpu_fast_set_threads(b->context, threads);
}

void nd_backend_destroy(nd_backend *backend)
{
    if (backend)
        backend->ops.destroy(backend);
}

void nd_cpu_backend_library(char *text, size_t size)
{
    nd_onednn_version(text, size);
}
