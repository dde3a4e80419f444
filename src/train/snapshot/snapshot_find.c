/* Finds the newest complete snapshot, wherever its parts are: leaders report the manifests on their
 * hosts; for each, newest first, ranks verify the parts on their hosts and share the results. */
#include "core/base/durable_file.h"
#include "train/checkpoint/manifest.h"
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { GENERATIONS = 4 };

typedef struct generation {
    int64_t step; /* -1: none */
    char state[ND_SHA256_HEX_SIZE];
} generation;

void nd_snapshot_found_free(nd_snapshot_found *found)
{
    nd_checkpoint_close(&found->c);
    free(found->have);
    free(found->config_text);
    free(found->manifest_text);
    *found = (nd_snapshot_found){0};
}

nd_status nd_snapshot_share_texts(nd_run *run, nd_snapshot_found *texts, int root)
{
    nd_comm *comm = run->comm;
    uint64_t sizes[2] = {texts->config_bytes, texts->manifest_bytes};
    ND_TRY(comm->ops.broadcast(comm, sizes, sizeof sizes, root));
    if (comm->rank != root) {
        texts->config_bytes = sizes[0];
        texts->manifest_bytes = sizes[1];
        texts->config_text = malloc(sizes[0] + 1);
        texts->manifest_text = malloc(sizes[1] + 1);
    }
    ND_TRY(nd_comm_agree(comm, ND_CHECK(texts->config_text && texts->manifest_text, ND_ENOMEM,
                                        "no memory for a manifest")));
    ND_TRY(comm->ops.broadcast(comm, texts->config_text, sizes[0], root));
    return comm->ops.broadcast(comm, texts->manifest_text, sizes[1], root);
}

/* Reads the manifest of a step on this host; step -1 if this run has none. */
static nd_status read_manifest(const nd_run *run, int64_t step, generation *g)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    g->step = -1;
    nd_status status = nd_snapshot_step_path(run, step, path);
    ND_IF_OK(nd_checkpoint_open_manifest(path, &c));
    if (status == ND_OK && c.step == step && strcmp(c.identity.run_id, run->identity.run_id) == 0) {
        g->step = step;
        strcpy(g->state, c.state_sha256);
    }
    return nd_error_tolerate(status);
}

static nd_status list_here(const nd_run *run, generation mine[GENERATIONS])
{
    char place[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    for (int i = 0; i < GENERATIONS; i++)
        mine[i].step = -1;
    if (!nd_snapshot_leads(run) || !run->identity.run_id[0] || run->saving.snapshots->copied)
        return ND_OK;
    nd_status status = nd_snapshot_place(run, place);
    ND_IF_OK(nd_checkpoint_steps_list(place, "", &steps));
    ND_TRY(nd_error_tolerate(status));
    int64_t last = steps.count;
    while (last > 0 && steps.list[last - 1] > run->saving.snapshots->limit)
        last--;
    for (int i = 0; i < GENERATIONS && i < last; i++)
        ND_TRY(read_manifest(run, steps.list[last - 1 - i], &mine[i]));
    return ND_OK;
}

/* The newest older than `before`, and a rank on whose host its manifest is. */
static const generation *newest_before(const generation *all, int count, const generation *before,
                                       int *rank)
{
    const generation *best = NULL;
    for (int i = 0; i < count; i++) {
        const generation *g = &all[i];
        const bool older = !before || g->step < before->step ||
                           (g->step == before->step && strcmp(g->state, before->state) < 0);
        if (g->step < 0 || !older)
            continue;
        if (!best || g->step > best->step ||
            (g->step == best->step && strcmp(g->state, best->state) > 0)) {
            best = g;
            *rank = i / GENERATIONS;
        }
    }
    return best;
}

static nd_status read_texts(const nd_run *run, int64_t step, nd_snapshot_found *found)
{
    char directory[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX];
    void *text;
    ND_TRY(nd_snapshot_step_path(run, step, directory));
    ND_TRY(nd_checkpoint_join(path, directory, "config.ini"));
    ND_TRY(nd_read_whole_file(path, ND_ECHECKPOINT, &text, &found->config_bytes));
    found->config_text = text;
    ND_TRY(nd_checkpoint_join(path, directory, "manifest.json"));
    ND_TRY(nd_read_whole_file(path, ND_ECHECKPOINT, &text, &found->manifest_bytes));
    found->manifest_text = text;
    return ND_OK;
}

static nd_status check_config(const nd_snapshot_found *found)
{
    char sha256[ND_SHA256_HEX_SIZE];
    ND_TRY(nd_sha256_hex(found->config_text, found->config_bytes, sha256));
    for (int64_t i = 0; i < found->c.file_count; i++)
        if (strcmp(found->c.files[i].name, "config.ini") == 0 &&
            strcmp(found->c.files[i].sha256, sha256) == 0)
            return ND_OK;
    return ND_FAIL(ND_ECHECKPOINT, "%s/config.ini is damaged: the manifest lists another",
                   found->c.directory);
}

static nd_status read_tensors(const nd_checkpoint *c, const char *file)
{
    for (int64_t t = 0; t < c->tensor_count; t++)
        if (strcmp(c->tensors[t].file, file) == 0)
            ND_TRY(nd_checkpoint_check_tensor(c, t));
    return ND_OK;
}

/* Sets *found to `part` if this part is here undamaged: every tensor has its checksum. */
static nd_status check_part(const nd_run *run, nd_checkpoint *c, int64_t file,
                            nd_snapshot_part part, int rank, unsigned char *found)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    struct stat info;
    nd_status status = nd_snapshot_part_path(run, c->step, part, rank, path);
    if (status == ND_OK && (stat(path, &info) != 0 || info.st_size != c->files[file].bytes))
        return ND_OK;
    c->files[file].path = path;
    ND_IF_OK(read_tensors(c, c->files[file].name));
    c->files[file].path = NULL;
    if (status == ND_OK)
        *found = (unsigned char)part;
    return nd_error_tolerate(status);
}

/* The ranks of a host share the files in their order. */
static nd_status check_here(const nd_run *run, nd_checkpoint *c, unsigned char *mine)
{
    const nd_hosts *hosts = &run->saving.snapshots->hosts;
    int before = 0, here = 0, turn = 0;
    for (int r = 0; r < run->comm->size; r++) {
        here += hosts->of[r] == hosts->of[run->comm->rank];
        before += r < run->comm->rank && hosts->of[r] == hosts->of[run->comm->rank];
    }
    for (int64_t i = 0; i < c->file_count; i++) {
        const int rank = nd_snapshot_rank_of(c->files[i].name);
        if (rank < 0 || turn++ % here != before)
            continue;
        ND_TRY(check_part(run, c, i, ND_PART_OWN, rank, &mine[i]));
        if (!mine[i])
            ND_TRY(check_part(run, c, i, ND_PART_COPY, rank, &mine[i]));
    }
    return ND_OK;
}

/* The first file that no rank has; -1: the snapshot is complete. */
static int64_t first_missing(const nd_snapshot_found *found, int ranks)
{
    const int64_t files = found->c.file_count;
    for (int64_t i = 0; i < files; i++) {
        int r = 0;
        while (r < ranks && !found->have[r * files + i])
            r++;
        if (r == ranks && nd_snapshot_rank_of(found->c.files[i].name) >= 0)
            return i;
    }
    return -1;
}

static nd_status gather_parts(nd_run *run, nd_snapshot_found *found)
{
    nd_comm *comm = run->comm;
    const size_t files = (size_t)found->c.file_count;
    ND_AUTOFREE unsigned char *mine = calloc(files, 1);
    found->have = calloc(files, (size_t)comm->size);
    ND_TRY(nd_comm_agree(
        comm, ND_CHECK(mine && found->have, ND_ENOMEM, "no memory for the parts of a snapshot")));
    ND_TRY(nd_comm_agree(comm, check_here(run, &found->c, mine)));
    return comm->ops.allgather(comm, found->have, mine, files);
}

/* Errors of this snapshot, on which ranks agreed, leave found->any false. */
static nd_status try_one(nd_run *run, const generation *g, int holder, nd_snapshot_found *found)
{
    nd_comm *comm = run->comm;
    nd_status status = ND_OK;
    if (comm->rank == holder)
        status = read_texts(run, g->step, found);
    ND_TRY(nd_comm_agree(comm, status));
    ND_TRY(nd_snapshot_share_texts(run, found, holder));
    status = nd_snapshot_step_path(run, g->step, found->c.directory);
    ND_IF_OK(
        nd_manifest_parse(found->manifest_text, found->manifest_bytes, "manifest.json", &found->c));
    ND_IF_OK(check_config(found));
    ND_TRY(nd_comm_agree(comm, status));
    ND_TRY(gather_parts(run, found));
    const int64_t missing = first_missing(found, comm->size);
    if (missing >= 0)
        return nd_error_mark_shared(ND_FAIL(ND_ECHECKPOINT,
                                            "no host has %s of it complete, nor a copy",
                                            found->c.files[missing].name));
    found->any = true;
    return ND_OK;
}

nd_status nd_snapshot_find(nd_run *run, nd_snapshot_found *found)
{
    const int count = run->comm->size * GENERATIONS;
    generation mine[GENERATIONS], tried;
    ND_AUTOFREE generation *all = calloc((size_t)count, sizeof *all);
    const generation *next = NULL;
    int holder = 0;
    *found = (nd_snapshot_found){0};
    ND_TRY(nd_comm_agree(run->comm, ND_CHECK(all, ND_ENOMEM, "no memory for snapshots")));
    memset(mine, 0, sizeof mine);
    ND_TRY(nd_comm_agree(run->comm, list_here(run, mine)));
    nd_status status = run->comm->ops.allgather(run->comm, all, mine, sizeof mine);
    while (status == ND_OK && !found->any &&
           (next = newest_before(all, count, next ? &tried : NULL, &holder)) != NULL) {
        tried = *next;
        status = try_one(run, &tried, holder, found);
        if (status == ND_OK)
            break;
        nd_snapshot_found_free(found);
        if (status != ND_ECHECKPOINT)
            break;
        nd_log_line(&run->log, "warning: passing over the snapshot of step %lld in memory: %s",
                    (long long)tried.step, nd_error_get()->message);
        nd_error_clear();
        status = ND_OK;
    }
    return status;
}
