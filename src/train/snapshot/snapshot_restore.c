/* Resumes from a snapshot: a host reads what its ranks own from memory; parts it lacks come from a
 * rank that has them, and stay there as parts of the snapshot. */
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>

/* The lowest rank (on `host`; -1: any) that has file `i`; -1: none. */
static int holder_of(const nd_run *run, const nd_snapshot_found *found, int64_t i, int host)
{
    for (int r = 0; r < run->comm->size; r++)
        if (found->have[r * found->c.file_count + i] &&
            (host < 0 || run->saving.snapshots->hosts.of[r] == host))
            return r;
    return -1;
}

static int64_t file_index(const nd_checkpoint *c, const char *name)
{
    int64_t i = 0;
    while (i < c->file_count && strcmp(c->files[i].name, name) != 0)
        i++;
    return i;
}

/* Whether this rank restores some of tensor `t` (of a slice: some of its bytes). */
static bool needs(const nd_run *run, const nd_checkpoint_tensor *t, int64_t param, const char *part)
{
    const nd_param *p = &run->model->params.list[param];
    if (strcmp(t->param, p->name) != 0 || strcmp(t->part, part) != 0)
        return false;
    if (t->whole_rows == 0 || !run->own.rows[param])
        return true;
    const nd_row_span span = nd_run_owned_rows(run, param);
    const nd_view whole = nd_view_of(NULL, t->dtype, t->whole_rows, t->whole_cols);
    const size_t from = nd_checkpoint_row_at(p, whole, span.first);
    return nd_checkpoint_slice_touches(
        t, from, nd_checkpoint_row_at(p, whole, span.first + span.count) - from);
}

/* mine[file]: whether this rank restores something from it. */
static void find_needs(const nd_run *run, const nd_checkpoint *c, unsigned char *mine)
{
    const int64_t units = nd_checkpoint_units(run);
    for (int64_t at = 0; at < run->model->params.count * units; at++) {
        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX];
        const int count = nd_checkpoint_parts(run, at % units, at / units, parts);
        for (int p = 0; p < count; p++)
            for (int64_t t = 0; t < c->tensor_count; t++)
                if (needs(run, &c->tensors[t], at / units, parts[p].name))
                    mine[file_index(c, c->tensors[t].file)] = 1;
    }
}

/* needed[host * files + file]: whether a rank on the host does. Collective. */
static nd_status share_needs(nd_run *run, const nd_checkpoint *c, bool *needed)
{
    nd_comm *comm = run->comm;
    const size_t files = (size_t)c->file_count;
    ND_AUTOFREE unsigned char *mine = calloc(files + 1, 1);
    ND_AUTOFREE unsigned char *all = calloc(files + 1, (size_t)comm->size);
    ND_TRY(nd_comm_agree(
        comm, ND_CHECK(mine && all, ND_ENOMEM, "no memory for the parts of a snapshot")));
    find_needs(run, c, mine);
    ND_TRY(comm->ops.allgather(comm, all, mine, files));
    for (int r = 0; r < comm->size; r++)
        for (size_t i = 0; i < files; i++)
            needed[(size_t)run->saving.snapshots->hosts.of[r] * files + i] |=
                all[(size_t)r * files + i] != 0;
    return ND_OK;
}

/* A file sent from one rank to another. */
typedef struct transfer {
    int from, to;
    int64_t file;
    void *data; /* mapped, if this rank is one of the two */
    size_t bytes;
} transfer;

static int list_transfers(const nd_run *run, const nd_snapshot_found *found, const bool *needed,
                          transfer *list)
{
    int count = 0;
    for (int64_t i = 0; i < found->c.file_count; i++)
        for (int host = 0; host < run->saving.snapshots->hosts.count; host++)
            if (needed[host * found->c.file_count + i] && holder_of(run, found, i, host) < 0)
                list[count++] =
                    (transfer){.from = holder_of(run, found, i, -1),
                               .to = nd_hosts_leader(&run->saving.snapshots->hosts, host),
                               .file = i,
                               .bytes = (size_t)found->c.files[i].bytes};
    return count;
}

static nd_status open_end(const nd_run *run, const nd_snapshot_found *found, transfer *t)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    const nd_checkpoint *c = &found->c;
    const int rank = nd_snapshot_rank_of(c->files[t->file].name), here = run->comm->rank;
    size_t bytes;
    if (here == t->to) {
        ND_TRY(nd_snapshot_part_path(run, c->step, ND_PART_OWN, rank, path));
        return nd_snapshot_map_new(path, t->bytes, &t->data);
    }
    if (here != t->from)
        return ND_OK;
    const nd_snapshot_part part = (nd_snapshot_part)found->have[here * c->file_count + t->file];
    ND_TRY(nd_snapshot_part_path(run, c->step, part, rank, path));
    return nd_snapshot_map(path, &t->data, &bytes);
}

static nd_status open_ends(const nd_run *run, const nd_snapshot_found *found, transfer *list,
                           int count)
{
    if (nd_snapshot_leads(run))
        ND_TRY(nd_snapshot_write_texts(run, found->c.step, found));
    for (int i = 0; i < count; i++)
        ND_TRY(open_end(run, found, &list[i]));
    return ND_OK;
}

/* Every rank takes part in each exchange, most without data. */
static nd_status exchange(nd_run *run, nd_snapshot_found *found, const transfer *t)
{
    nd_comm *comm = run->comm;
    const bool sends = comm->rank == t->from, receives = comm->rank == t->to;
    const nd_comm_exchange x = {.out = t->data,
                                .out_bytes = sends ? t->bytes : 0,
                                .to = t->to,
                                .in = t->data,
                                .in_bytes = receives ? t->bytes : 0,
                                .from = t->from};
    found->have[t->to * found->c.file_count + t->file] = ND_PART_OWN;
    nd_log_line(&run->log, "snapshot %s of step %lld comes from host %s to host %s",
                found->c.files[t->file].name, (long long)found->c.step,
                run->saving.snapshots->hosts.names[t->from],
                run->saving.snapshots->hosts.names[t->to]);
    ND_TRY(comm->ops.begin_exchange(comm, &x));
    return comm->ops.finish(comm);
}

static nd_status fetch(nd_run *run, nd_snapshot_found *found, bool *untouched)
{
    const size_t places = (size_t)found->c.file_count * (size_t)run->saving.snapshots->hosts.count;
    ND_AUTOFREE bool *needed = calloc(places, sizeof *needed);
    ND_AUTOFREE transfer *list = calloc(places, sizeof *list);
    int count = 0;
    nd_status status = nd_comm_agree(
        run->comm, ND_CHECK(needed && list, ND_ENOMEM, "no memory for the parts of a snapshot"));
    ND_IF_OK(share_needs(run, &found->c, needed));
    if (status == ND_OK) {
        count = list_transfers(run, found, needed, list);
        status = open_ends(run, found, list, count);
    }
    status = nd_comm_agree(run->comm, status == ND_EIO ? ND_ECHECKPOINT : status);
    *untouched = status == ND_ECHECKPOINT;
    for (int i = 0; i < count; i++) {
        ND_IF_OK(exchange(run, found, &list[i]));
        nd_snapshot_unmap(list[i].data, list[i].bytes);
    }
    return status;
}

static nd_status name_paths(const nd_run *run, nd_snapshot_found *found)
{
    nd_checkpoint *c = &found->c;
    const int host = run->saving.snapshots->hosts.of[run->comm->rank];
    for (int64_t i = 0; i < c->file_count; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        const int holder = holder_of(run, found, i, host);
        if (holder < 0)
            continue;
        ND_TRY(nd_snapshot_part_path(run, c->step,
                                     (nd_snapshot_part)found->have[holder * c->file_count + i],
                                     nd_snapshot_rank_of(c->files[i].name), path));
        c->files[i].path = strdup(path);
        ND_FAIL_IF(!c->files[i].path, ND_ENOMEM, "no memory for the paths of a snapshot");
    }
    return ND_OK;
}

nd_status nd_snapshot_restore(nd_run *run, nd_snapshot_found *found, bool *untouched)
{
    *untouched = false;
    ND_TRY(fetch(run, found, untouched));
    ND_TRY(nd_comm_agree(run->comm, name_paths(run, found)));
    ND_TRY(nd_checkpoint_restore_open(run, &found->c));
    run->saving.snapshots->whole = found->c.step;
    run->saving.step = -1; /* it is on no disk */
    return ND_OK;
}
