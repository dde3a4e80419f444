#include "train/replica_check.h"

#include "train/fault_points.h"
#include "train/rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20 }; /* a multiple of 8 */

/* Mixes words one after another, each step a bijection of the state, so that a single changed word
 * always changes the result. */
static uint64_t mix(uint64_t hash, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, count - i < 8 ? count - i : 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    return hash;
}

static nd_status mix_view(nd_backend *b, nd_view view, char *chunk, uint64_t *hash)
{
    if (!view.data)
        return ND_OK;
    const size_t bytes = nd_view_bytes(nd_as_const(view));
    for (size_t at = 0; at < bytes; at += CHUNK_BYTES) {
        const size_t part = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
        ND_TRY(b->ops.download(b, chunk, (const char *)view.data + at, part));
        *hash = mix(*hash, chunk, part);
    }
    return ND_OK;
}

/* hashes[2 i] of weight i, hashes[2 i + 1] of its projector. */
static nd_status hash_weights(nd_run *run, char *chunk, uint64_t *hashes)
{
    nd_backend *b = run->backend;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        const nd_weight *w = &run->model->weights[i];
        if (w->ternary) {
            ND_TRY(mix_view(b, w->scales, chunk, &hashes[2 * i]));
            ND_TRY(mix_view(b, w->packed.data ? w->packed : w->codes, chunk, &hashes[2 * i]));
        } else {
            ND_TRY(mix_view(b, w->dense, chunk, &hashes[2 * i]));
        }
        if (run->rounds || !nd_projectors_shape(nd_optimizer_projectors(run->optimizer), i))
            continue;
        const nd_state *state = nd_projectors_state(nd_optimizer_projectors(run->optimizer), i);
        for (int part = 0; part < state->codec->parts; part++)
            ND_TRY(mix_view(b, state->parts[part], chunk, &hashes[2 * i + 1]));
    }
    return ND_OK;
}

/* "rank 0, 1, 3: 0123456789abcdef; rank 2: ..." of hash `index`. */
static void list_groups(const uint64_t *all, int64_t count, int64_t index, int size, char *text,
                        size_t scratch)
{
    size_t used = 0;
    for (int r = 0; r < size; r++) {
        const uint64_t hash = all[r * count + index];
        int first = 0;
        while (all[first * count + index] != hash)
            first++;
        if (first < r)
            continue;
        used += (size_t)snprintf(text + used, scratch - used, "%srank", r > 0 ? "; " : "");
        for (int same = r; same < size && used + 64 < scratch; same++)
            if (all[same * count + index] == hash)
                used += (size_t)snprintf(text + used, scratch - used, "%s %d", same > r ? "," : "",
                                         same);
        used +=
            (size_t)snprintf(text + used, scratch - used, ": %016llx", (unsigned long long)hash);
        if (used + 64 >= scratch)
            return;
    }
}

static nd_status compare(const nd_run *run, const uint64_t *all, int64_t count)
{
    int64_t differing = 0, named = -1;
    char groups[512];
    for (int64_t i = 0; i < count; i++) {
        bool same = true;
        for (int r = 1; r < run->comm->size; r++)
            same &= all[r * count + i] == all[i];
        differing += !same;
        if (!same && named < 0)
            named = i;
    }
    if (named < 0)
        return ND_OK;
    list_groups(all, count, named, run->comm->size, groups, sizeof groups);
    return nd_run_same_error(ND_FAIL(
        ND_EPEER,
        "step %lld: %s%s is not the same on all ranks (%s); %lld tensors differ; resume from the "
        "newest checkpoint, and suspect the memory of the ranks that stand alone",
        (long long)run->position.step, named % 2 ? "the projector of " : "",
        run->model->params.list[named / 2].name, groups, (long long)differing));
}

/* A test's flipped bit. */
static nd_status flip(nd_run *run)
{
    const nd_weight *w =
        &run->model->weights[nd_params_layer_index(&run->model->params, 0, ND_ATTN_Q)];
    void *at = w->packed.data ? w->packed.data : w->codes.data;
    char byte;
    if (!nd_fault_here(run->comm, "flip", "codes"))
        return ND_OK;
    ND_TRY(run->backend->ops.download(run->backend, &byte, at, 1));
    byte ^= 1;
    return run->backend->ops.upload(run->backend, at, &byte, 1);
}

/* The replicas of one worker, or of the model of the last synchronisation. */
static nd_status check_replicas(nd_run *run)
{
    nd_comm *comm = run->comm;
    const int64_t count = 2 * run->model->params.count;
    if (comm->size == 1)
        return ND_OK;
    nd_comm_set_phase(comm, run->position.step, "check");
    char *chunk = malloc(CHUNK_BYTES);
    uint64_t *mine = calloc((size_t)count, sizeof *mine);
    uint64_t *all = calloc((size_t)(count * comm->size), sizeof *all);
    nd_status status = chunk && mine && all
                           ? flip(run)
                           : ND_FAIL(ND_ENOMEM, "no memory for %lld hashes", (long long)count);
    if (status == ND_OK)
        status = hash_weights(run, chunk, mine);
    if (status == ND_OK)
        status = comm->ops.allgather(comm, all, mine, (size_t)count * sizeof *mine);
    if (status == ND_OK)
        status = compare(run, all, count);
    free(chunk);
    free(mine);
    free(all);
    return status;
}

nd_status nd_replica_check(nd_run *run)
{
    nd_status status = ND_OK;
    if (!run->rounds)
        return check_replicas(run);
    for (int i = 0; i < nd_run_workers(run) && status == ND_OK; i++)
        status = check_replicas(nd_run_worker(run, i));
    ND_TRY(nd_run_agree(run->comm, status)); /* only one worker's ranks may know */
    return check_replicas(run);
}
