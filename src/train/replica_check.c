#include "train/replica_check.h"

#include "train/fault_points.h"
#include "train/rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20 }; /* a multiple of 8 */

/* Hashes words in sequence; each step is a bijection: one changed word changes the result. */
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

/* Per parameter on every rank; the last on owners only. */
enum { WEIGHT, PROJECTOR, STATE, HASHES };

/* The state of an owner: master and optimizer state. */
static nd_status hash_state(nd_run *run, int64_t index, char *chunk, uint64_t *hash)
{
    nd_optimizer_state states[ND_OPTIMIZER_STATES_MAX];
    if (!run->masters[index].data)
        return ND_OK;
    const int count = nd_optimizer_states(run->optimizer, index, states);
    ND_TRY(mix_view(run->backend, run->masters[index], chunk, hash));
    for (int s = 0; s < count; s++)
        ND_TRY(mix_view(run->backend, states[s].view, chunk, hash));
    return ND_OK;
}

static nd_status hash_weights(nd_run *run, char *chunk, uint64_t *all_hashes)
{
    nd_backend *b = run->backend;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        uint64_t *hashes = all_hashes + HASHES * i;
        if (run->own.groups > 1)
            ND_TRY(hash_state(run, i, chunk, &hashes[STATE]));
        const nd_weight *w = &run->model->weights[i];
        if (w->ternary) {
            ND_TRY(mix_view(b, w->scales, chunk, &hashes[WEIGHT]));
            ND_TRY(mix_view(b, w->packed.data ? w->packed : w->codes, chunk, &hashes[WEIGHT]));
        } else {
            ND_TRY(mix_view(b, w->dense, chunk, &hashes[WEIGHT]));
        }
        if (run->rounds || !nd_projectors_shape(nd_optimizer_projectors(run->optimizer), i))
            continue;
        const nd_state *state = nd_projectors_state(nd_optimizer_projectors(run->optimizer), i);
        for (int part = 0; part < state->codec->parts; part++)
            ND_TRY(mix_view(b, state->parts[part], chunk, &hashes[PROJECTOR]));
    }
    return ND_OK;
}

/* One hash in a table [ranks][count], for ranks first, first + step, ... */
typedef struct column {
    const uint64_t *all;
    int64_t count, index;
    int first, step, size;
} column;

static uint64_t hash_of(const column *c, int rank)
{
    return c->all[rank * c->count + c->index];
}

/* "rank 0, 1, 3: 0123456789abcdef; rank 2: ..." */
static void list_groups(const column *c, char *text, size_t size)
{
    size_t used = 0;
    for (int r = c->first; r < c->size; r += c->step) {
        int first = c->first;
        while (hash_of(c, first) != hash_of(c, r))
            first += c->step;
        if (first < r)
            continue;
        used += (size_t)snprintf(text + used, size - used, "%srank", r > c->first ? "; " : "");
        for (int same = r; same < c->size && used + 64 < size; same += c->step)
            if (hash_of(c, same) == hash_of(c, r))
                used +=
                    (size_t)snprintf(text + used, size - used, "%s %d", same > r ? "," : "", same);
        used += (size_t)snprintf(text + used, size - used, ": %016llx",
                                 (unsigned long long)hash_of(c, r));
        if (used + 64 >= size)
            return;
    }
}

/* The first rank that must agree with rank r: rank 0, or the first copy of its owner. */
static column column_of(const nd_run *run, const uint64_t *all, int64_t count, int64_t index, int r)
{
    const bool state = index % HASHES == STATE;
    return (column){all,
                    count,
                    index,
                    state ? r % run->own.ranks : 0,
                    state ? run->own.ranks : 1,
                    run->comm->size};
}

static nd_status compare(const nd_run *run, const uint64_t *all, int64_t count)
{
    int64_t differing = 0, named = -1;
    static const char *const whats[] = {"", "the projector of ", "the master or state of "};
    char groups[512];
    column apart = {0};
    for (int64_t i = 0; i < count; i++) {
        bool same = true;
        for (int r = 1; r < run->comm->size; r++) {
            const column c = column_of(run, all, count, i, r);
            if (hash_of(&c, r) == hash_of(&c, c.first))
                continue;
            apart = named < 0 && same ? c : apart;
            same = false;
        }
        differing += !same;
        if (!same && named < 0)
            named = i;
    }
    if (named < 0)
        return ND_OK;
    list_groups(&apart, groups, sizeof groups);
    return nd_error_mark_shared(
        ND_FAIL(ND_EPEER,
                "step %lld: %s%s is not the same on all ranks (%s); %lld tensor%s; resume from the "
                "newest checkpoint, and suspect the memory of the ranks that stand alone",
                (long long)run->position.step, whats[named % HASHES],
                run->model->params.list[named / HASHES].name, groups, (long long)differing,
                differing == 1 ? " differs" : "s differ"));
}

/* For tests: flips one bit of codes, or of a master that this rank owns. */
static nd_status flip_at(nd_run *run, void *at, const char *point)
{
    char byte;
    if (!at || !nd_fault_requested(run->comm, "flip", point))
        return ND_OK;
    ND_TRY(run->backend->ops.download(run->backend, &byte, at, 1));
    byte ^= 1;
    return run->backend->ops.upload(run->backend, at, &byte, 1);
}

static nd_status flip(nd_run *run)
{
    int64_t owned = 0;
    while (owned + 1 < run->model->params.count && !run->masters[owned].data)
        owned++;
    const nd_weight *w =
        &run->model->weights[nd_params_layer_index(&run->model->params, 0, ND_ATTN_Q)];
    void *at = w->packed.data ? w->packed.data : w->codes.data;
    ND_TRY(flip_at(run, run->masters[owned].data, "master"));
    return flip_at(run, at, "codes");
}

/* Checks the replicas of one worker, or of the model of the last synchronization. */
static nd_status check_replicas(nd_run *run)
{
    nd_comm *comm = run->comm;
    const int64_t count = HASHES * run->model->params.count;
    if (comm->size == 1)
        return ND_OK;
    nd_comm_set_phase(comm, run->position.step, "check");
    ND_AUTOFREE char *chunk = malloc(CHUNK_BYTES);
    ND_AUTOFREE uint64_t *mine = calloc((size_t)count, sizeof *mine);
    ND_AUTOFREE uint64_t *all = calloc((size_t)(count * comm->size), sizeof *all);
    ND_FAIL_IF(!chunk || !mine || !all, ND_ENOMEM, "no memory for %lld hashes", (long long)count);
    ND_TRY(flip(run));
    ND_TRY(hash_weights(run, chunk, mine));
    ND_TRY(comm->ops.allgather(comm, all, mine, (size_t)count * sizeof *mine));
    return compare(run, all, count);
}

nd_status nd_replica_check(nd_run *run)
{
    nd_status status = ND_OK;
    if (!run->rounds)
        return check_replicas(run);
    for (int i = 0; i < nd_run_workers(run) && status == ND_OK; i++)
        status = check_replicas(nd_run_worker(run, i));
    ND_TRY(nd_comm_agree(run->comm, status)); /* only one worker's ranks may know */
    return check_replicas(run);
}
