/* Started under mpirun by test_code_streams.c: ranks_code_kernels damaged|sound CONFIG DIR
 * [SECTION.KEY=VALUE]...
 *
 * Trains on emulated devices twice: with changed codes compared by the host, and by kernels. Exits
 * 0 when losses, streams and replicas are the same to the bit, and prints how often the host waited
 * in the last step. With `damaged` rank 1 receives a stream in which the first entry is longer than
 * what came. */
#include "cuda/emulated_backend.h"

#include "dist/device.h"
#include "train/replica_check.h"
#include "train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 4 };

extern const nd_code_kernels nd_emulated_code_kernels;

static bool by_kernels, damaged;
static int waits, in_comm;
static nd_backend *device;
static nd_backend_ops real;
static nd_comm_ops base;
static const nd_code_stream *watched;

typedef struct results {
    nd_step_result steps[STEPS];
    uint64_t streams[STEPS];
    int waits, changed; /* in the last step */
} results;

static nd_status count_download(nd_backend *b, void *host, const void *memory, size_t bytes)
{
    waits += in_comm == 0;
    return real.download(b, host, memory, bytes);
}

static nd_status count_synchronize(nd_backend *b)
{
    waits += in_comm == 0;
    return real.synchronize(b);
}

nd_status nd_device_backend_create(nd_device_choice choice, const nd_comm *comm,
                                   nd_backend **backend)
{
    (void)choice, (void)comm;
    ND_TRY(nd_emulated_backend_create_checked(&(nd_cuda_options){0}, backend));
    device = *backend;
    real = device->ops;
    device->ops.download = count_download;
    device->ops.synchronize = count_synchronize;
    return ND_OK;
}

bool nd_device_owns(const nd_backend *backend)
{
    return backend == device;
}

size_t nd_device_memory_left(const nd_backend *backend)
{
    (void)backend;
    return SIZE_MAX;
}

const nd_code_kernels *nd_device_code_kernels(const nd_backend *backend)
{
    return by_kernels && nd_device_owns(backend) ? &nd_emulated_code_kernels : NULL;
}

/* What passes through the host here goes from device to device over NCCL: it counts as no wait. */
static nd_status reduce(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    in_comm++;
    const nd_status status = base.reduce_to_owners(comm, split, pieces, count);
    in_comm--;
    return status;
}

static nd_status broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    in_comm++;
    const nd_status status = base.broadcast_device(comm, data, bytes, root);
    in_comm--;
    if (damaged && comm->rank == 1 && root == 0 && watched && data == watched->theirs.data)
        memset((char *)data + sizeof(float), 0x70, sizeof(uint32_t));
    return status;
}

nd_status nd_device_attach(nd_comm *comm)
{
    base = comm->ops;
    comm->ops.reduce_to_owners = comm->ops.begin_reduction = reduce;
    comm->ops.broadcast_device = broadcast_device;
    return ND_OK;
}

void nd_device_detach(nd_comm *comm)
{
    if (base.name)
        comm->ops = base;
    base.name = NULL;
}

#define DO(expression)                                                                             \
    do {                                                                                           \
        if ((expression) != ND_OK) {                                                               \
            fprintf(stderr, "rank %d, %s: %s: %s\n", comm->rank, by_kernels ? "kernels" : "host",  \
                    #expression, nd_error_get()->message);                                         \
            comm->ops.abort(comm, nd_error_exit_code(nd_error_get()->status));                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t hash(nd_view v)
{
    const unsigned char *bytes = v.data;
    uint64_t h = 14695981039346656037u;
    for (int64_t i = 0; i < v.cols; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h;
}

/* Entries of this rank's stream that hold changes. */
static int changed_entries(const nd_run *run)
{
    const char *at = run->gather.stream.mine.data;
    int changed = 0;
    for (int64_t i = 0; i < run->own.count; i++) {
        const nd_weight *w = &run->model->weights[i];
        if (run->own.owner[i] != run->comm->rank || !w->ternary)
            continue;
        uint32_t length;
        at += nd_view_bytes(nd_as_const(w->scales));
        memcpy(&length, at, sizeof length);
        const bool whole = length == ND_CODES_WHOLE;
        changed += !whole && length > 0;
        at += sizeof length +
              (whole ? (uint32_t)((nd_view_count(nd_as_const(w->codes)) + 4) / 5) : length);
    }
    return changed;
}

static void train(const nd_config *config, nd_comm *comm, const char *directory, results *out)
{
    nd_config c = *config;
    nd_run *run = calloc(1, sizeof *run);
    if (!run)
        exit(1);
    memset(out, 0, sizeof *out);
    snprintf(c.logging.run_dir, sizeof c.logging.run_dir, "%s/%s", directory,
             by_kernels ? "kernels" : "host");
    DO(nd_run_create(&c, comm, run));
    DO(nd_run_start_loader(run));
    if (by_kernels)
        watched = &run->gather.stream;
    for (int i = 0; i < STEPS; i++) {
        waits = 0;
        DO(nd_step_run(run, false, &out->steps[i]));
        out->waits = waits;
        out->streams[i] = hash(run->gather.stream.mine);
    }
    out->changed = changed_entries(run);
    DO(nd_replica_check(run));
    watched = NULL;
    nd_run_destroy(run);
    free(run);
}

int main(int argc, char **argv)
{
    static results host, kernels;
    nd_config *config = calloc(1, sizeof *config);
    nd_comm *comm = NULL;
    if (argc < 4 || !config || nd_comm_create(&comm) != ND_OK)
        return 1;
    damaged = strcmp(argv[1], "damaged") == 0;
    nd_config_defaults(config);
    DO(nd_config_read_file(config, argv[2]));
    for (int i = 4; i < argc; i++)
        DO(nd_config_set(config, argv[i], "argument"));
    DO(nd_config_check(config));
    train(config, comm, argv[3], &host);
    by_kernels = true;
    train(config, comm, argv[3], &kernels);
    int wrong = 0;
    for (int i = 0; i < STEPS; i++) {
        const nd_step_result *a = &host.steps[i], *b = &kernels.steps[i];
        if (a->loss != b->loss || a->grad_norm != b->grad_norm ||
            host.streams[i] != kernels.streams[i]) {
            fprintf(stderr, "rank %d, step %d: loss %.17g and %.17g, stream %llx and %llx\n",
                    comm->rank, i + 1, a->loss, b->loss, (unsigned long long)host.streams[i],
                    (unsigned long long)kernels.streams[i]);
            wrong = 1;
        }
    }
    printf("rank %d: %d entries of changes; waits: %d by the host, %d by kernels\n", comm->rank,
           kernels.changed, host.waits, kernels.waits);
    free(config);
    nd_comm_destroy(comm);
    return wrong;
}
