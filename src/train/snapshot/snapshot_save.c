#include "core/base/clock.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_files.h"
#include "train/fault_points.h"
#include "train/run/run_directory.h"
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>

static const double mib = 1024.0 * 1024.0;

nd_status nd_snapshots_create(nd_run *run)
{
    const nd_comm *comm = run->comm;
    nd_snapshots *s = run->saving.snapshots = calloc(1, sizeof *s);
    ND_TRY(nd_comm_agree(run->comm, ND_CHECK(s, ND_ENOMEM, "no memory for snapshots")));
    s->whole = s->spare = -1;
    ND_TRY(nd_comm_agree(run->comm, nd_snapshot_root(&run->config, s->root)));
    ND_TRY(nd_hosts_find(run->comm, (nd_snapshot_buddy_choice)run->config.logging.snapshot_buddy,
                         &s->hosts));
    strcpy(s->host, s->hosts.names[comm->rank]);
    s->leader = nd_hosts_leader(&s->hosts, s->hosts.of[comm->rank]);
    s->to = s->hosts.buddy[comm->rank];
    s->from = -1;
    for (int r = 0; r < comm->size; r++)
        if (s->hosts.buddy[r] == comm->rank)
            s->from = r;
    ND_TRY(nd_snapshot_find_copy(run));
    return nd_snapshot_find_limit(run);
}

size_t nd_snapshot_share_bytes(const nd_run *run)
{
    return 2 * nd_save_copy_bytes(run);
}

/* Bytes that snapshots take on the fullest host. */
static double most_bytes(const nd_run *run, const int64_t *shares, int *fullest)
{
    const nd_hosts *hosts = &run->saving.snapshots->hosts;
    const int ranks = run->comm->size;
    double most = -1.0;
    for (int host = 0; host < hosts->count; host++) {
        double here = 0.0;
        for (int r = 0; r < ranks; r++) {
            const int buddy = hosts->buddy[r];
            here += hosts->of[r] == host ? (double)shares[r] : 0.0;
            here += buddy >= 0 && hosts->of[buddy] == host ? (double)shares[r] : 0.0;
        }
        if (here > most) {
            most = here;
            *fullest = host;
        }
    }
    return most;
}

static int copies_on_same_host(const nd_run *run)
{
    const nd_hosts *hosts = &run->saving.snapshots->hosts;
    int same = 0;
    for (int r = 0; r < run->comm->size; r++)
        same += hosts->buddy[r] >= 0 && hosts->of[hosts->buddy[r]] == hosts->of[r];
    return same;
}

static void describe(nd_run *run, double bytes)
{
    const nd_snapshots *s = run->saving.snapshots;
    const int same = copies_on_same_host(run);
    nd_log_line(&run->log, "snapshot a snapshot every %lld steps in %s, up to %.1f MiB of a host%s",
                (long long)run->config.logging.snapshot_interval, s->root, bytes / mib,
                s->to >= 0 ? ", with a copy of each rank's part on another rank" : "");
    if (s->to < 0 && run->comm->size > 1 &&
        run->config.logging.snapshot_buddy == ND_SNAPSHOT_BUDDY_OTHER_HOST)
        nd_log_line(&run->log,
                    "snapshot all ranks are on host %s, so no rank keeps a copy: snapshots "
                    "outlive lost processes, not the host",
                    s->host);
    if (same > 0)
        nd_log_line(&run->log,
                    "snapshot %d of %d ranks have their copy on their own host, which does not "
                    "outlive it",
                    same, run->comm->size);
}

/* Training goes on with snapshots on a disk: nobody has to have the memory. Collective. */
static nd_status warn_of_disks(nd_run *run)
{
    const nd_snapshots *s = run->saving.snapshots;
    const bool here = !nd_snapshot_in_memory(s->root);
    ND_AUTOFREE bool *disk = calloc((size_t)run->comm->size, sizeof *disk);
    ND_TRY(nd_comm_agree(run->comm, ND_CHECK(disk, ND_ENOMEM, "no memory for snapshots")));
    ND_TRY(run->comm->ops.allgather(run->comm, disk, &here, sizeof here));
    int rank = 0;
    while (rank < run->comm->size && !disk[rank])
        rank++;
    if (rank < run->comm->size)
        nd_log_line(&run->log,
                    "warning: snapshots go to a disk: [logging] snapshot_dir = %s on host %s is "
                    "not in memory, so they take as long as the disk does and may not outlive the "
                    "host any better; use a tmpfs such as /dev/shm",
                    s->root, s->hosts.names[rank]);
    return ND_OK;
}

nd_status nd_snapshots_start(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    char others[1024];
    int fullest = 0;
    s->copied &= run->restored.any; /* else the run has another id now */
    s->off = s->copied;
    if (run->config.logging.snapshot_interval == 0 || s->off)
        return ND_OK;
    ND_AUTOFREE int64_t *shares = calloc((size_t)run->comm->size, sizeof *shares);
    ND_TRY(nd_comm_agree(run->comm, ND_CHECK(shares, ND_ENOMEM, "no memory for snapshots")));
    const int64_t mine = (int64_t)nd_snapshot_share_bytes(run);
    ND_TRY(run->comm->ops.allgather(run->comm, shares, &mine, sizeof mine));
    const double bytes = most_bytes(run, shares, &fullest);
    const double limit = (double)run->config.logging.snapshot_memory * mib;
    s->off = limit > 0.0 && bytes > limit;
    if (s->off)
        nd_log_line(&run->log,
                    "warning: no snapshots: they need %.1f MiB on host %s, [logging] "
                    "snapshot_memory allows %lld; fewer ranks on a host, snapshot_buddy = off or a "
                    "smaller state_bits need less",
                    bytes / mib, s->hosts.names[nd_hosts_leader(&s->hosts, fullest)],
                    (long long)run->config.logging.snapshot_memory);
    else
        describe(run, bytes);
    if (!s->off)
        ND_TRY(warn_of_disks(run));
    if (nd_snapshot_leads(run))
        nd_snapshot_remove_others(run);
    nd_snapshot_others(run, others, sizeof others);
    if (others[0])
        nd_log_line(&run->log, "snapshot snapshots of other runs lie in %s and stay there: %s",
                    s->root, others);
    return ND_OK;
}

bool nd_snapshot_ready(const nd_run *run)
{
    return run->saving.snapshots &&
           (!run->saving.snapshot || nd_background_done(&run->saving.snapshot->job));
}

static void abandon(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    nd_snapshot_copy_abandon(run);
    s->stage = ND_SNAPSHOT_IDLE;
    nd_save_stop(&run->saving.snapshot);
}

/* All ranks know the error and none writes any more. Returns only errors of the comm. */
static nd_status fail(nd_run *run, nd_status status)
{
    nd_snapshots *s = run->saving.snapshots;
    const nd_error error = *nd_error_get();
    abandon(run);
    if (status != ND_ECHECKPOINT) {
        nd_error_set(&error);
        return status;
    }
    if (!s->warned)
        nd_log_line(&run->log,
                    "warning: no snapshot of step %lld: %s; training continues, and the next one "
                    "is tried when it is due; this warning appears once",
                    (long long)s->step, error.message);
    s->warned = true;
    s->spare = -1;
    if (nd_snapshot_leads(run))
        nd_snapshot_remove(run, s->whole, -1);
    nd_error_clear();
    return ND_OK;
}

/* The leader first makes room, so that there are never more than two generations. */
static nd_status prepare(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    ND_TRY(nd_save_create(run, true, &run->saving.snapshot));
    nd_save *save = run->saving.snapshot;
    ND_TRY(nd_snapshot_place(run, save->parent));
    ND_TRY(nd_snapshot_step_path(run, s->step, save->temporary));
    if (!run->backend->ops.host_memory) {
        ND_TRY(nd_save_copy_owned(run, &s->host_copy, &s->host_copy_bytes));
        save->copy = s->host_copy;
    }
    if (!nd_snapshot_leads(run))
        return ND_OK;
    ND_TRY(nd_snapshot_remove(run, s->whole, s->spare));
    ND_TRY(nd_snapshot_reuse(run));
    return nd_directory_create(save->temporary);
}

static nd_status finish(nd_run *run)
{
    while (run->saving.snapshots->stage != ND_SNAPSHOT_IDLE)
        ND_TRY(nd_snapshot_advance(run));
    return ND_OK;
}

static nd_status begin(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    ND_TRY(finish(run));
    nd_comm_set_phase(run->comm, run->position.step, "snapshot");
    s->step = run->position.step;
    const nd_status status = nd_comm_agree(run->comm, nd_save_error(prepare(run)));
    if (status != ND_OK)
        return fail(run, status);
    s->stage = ND_SNAPSHOT_WRITING;
    nd_background_start(&run->saving.snapshot->job, nd_save_write_and_release, run->saving.snapshot,
                        true);
    return ND_OK;
}

nd_status nd_snapshot_begin(nd_run *run)
{
    const double start = nd_seconds();
    if (run->saving.snapshots->off)
        return ND_OK;
    ND_TRY(begin(run));
    const nd_status status = nd_run_reset_error_feedback(run);
    run->saving.ms += 1e3 * (nd_seconds() - start);
    return status;
}

/* Rank 0's texts, once the tables are gathered. */
static nd_status make_texts(nd_run *run, nd_snapshot_found *texts)
{
    nd_save *save = run->saving.snapshot;
    nd_config config = run->config;
    nd_run_directory_make_absolute(&config, "run_dir",
                                   config.logging.run_dir); /* for copies of it */
    ND_TRY(nd_save_collect(save));
    ND_TRY(nd_checkpoint_config_text(&save->c, &config, &texts->config_text, &texts->config_bytes));
    ND_TRY(
        nd_checkpoint_list_file(&save->c, "config.ini", texts->config_text, texts->config_bytes));
    ND_TRY(nd_checkpoint_manifest_text(&save->c, &texts->manifest_text));
    texts->manifest_bytes = strlen(texts->manifest_text);
    return ND_OK;
}

static nd_status publish(nd_run *run)
{
    ND_CLEANUP(nd_snapshot_found_free) nd_snapshot_found texts = {0};
    nd_status status = nd_save_gather_slices(run->saving.snapshot);
    ND_IF_OK(nd_save_gather(run->saving.snapshot));
    if (status == ND_OK && run->comm->rank == 0)
        status = make_texts(run, &texts);
    status = nd_comm_agree(run->comm, nd_save_error(status));
    ND_IF_OK(nd_snapshot_share_texts(run, &texts, 0));
    if (status == ND_OK && nd_snapshot_leads(run))
        status = nd_snapshot_write_texts(run, run->saving.snapshots->step, &texts);
    return nd_comm_agree(run->comm, nd_save_error(status));
}

static void complete(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    s->spare = s->announced ? s->whole : -1;
    s->whole = s->step;
    if (!s->announced)
        nd_log_line(&run->log,
                    "snapshot the snapshot of step %lld is complete: --resume auto resumes the "
                    "newest one",
                    (long long)s->step);
    s->announced = true;
    abandon(run);
}

/* Without copies the snapshot is complete as long as all hosts live. */
static nd_status begin_copies(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    const nd_status status = nd_save_error(nd_snapshot_copy_begin(run));
    if (status == ND_OK) {
        bool done;
        s->stage = ND_SNAPSHOT_COPYING;
        return nd_snapshot_copy_advance(run, &done); /* the first piece */
    }
    if (status != ND_ECHECKPOINT)
        return status;
    if (!s->warned_of_copies)
        nd_log_line(&run->log, "warning: snapshots have no copies: %s; this warning appears once",
                    nd_error_get()->message);
    s->warned_of_copies = true;
    nd_error_clear();
    complete(run);
    return ND_OK;
}

static nd_status advance(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    bool done = false;
    nd_comm_set_phase(run->comm, run->position.step, "snapshot");
    if (s->stage == ND_SNAPSHOT_COPYING) {
        ND_TRY(nd_snapshot_copy_advance(run, &done));
        if (done)
            complete(run);
        return ND_OK;
    }
    nd_fault_point_of(run->comm->rank, s->step, "snapshot_written");
    nd_status status = nd_save_error(nd_background_wait(&run->saving.snapshot->job));
    status = nd_comm_agree(run->comm, status);
    ND_IF_OK(publish(run));
    if (status != ND_OK)
        return fail(run, status);
    nd_fault_point_of(run->comm->rank, s->step, "snapshot_published");
    if (s->to < 0) {
        complete(run);
        return ND_OK;
    }
    return begin_copies(run);
}

nd_status nd_snapshot_advance(nd_run *run)
{
    const double start = nd_seconds();
    const nd_snapshots *s = run->saving.snapshots;
    if (!s || s->stage == ND_SNAPSHOT_IDLE)
        return ND_OK;
    const nd_status status = advance(run);
    run->saving.ms += 1e3 * (nd_seconds() - start);
    return status;
}

nd_status nd_snapshots_drop(nd_run *run, int64_t after)
{
    nd_snapshots *s = run->saving.snapshots;
    nd_status status = ND_OK;
    if (!s)
        return ND_OK;
    abandon(run);
    nd_snapshots_list(run, after, false);
    ND_TRY(nd_comm_agree(run->comm, ND_OK)); /* nobody writes any more */
    s->spare = -1;
    if (s->whole > after)
        s->whole = -1;
    if (nd_snapshot_leads(run))
        status = nd_save_error(nd_snapshot_remove(run, -1, after < s->limit ? after : s->limit));
    s->limit = INT64_MAX;
    if (status != ND_OK)
        nd_log_line(&run->log, "warning: %s", nd_error_get()->message);
    nd_error_clear();
    return nd_comm_agree(run->comm, ND_OK);
}

void nd_snapshots_destroy(nd_run *run)
{
    nd_snapshots *s = run->saving.snapshots;
    if (!s)
        return;
    nd_save_stop(&run->saving.snapshot);
    nd_snapshot_unmap(s->copy.out, s->copy.out_bytes);
    nd_snapshot_unmap(s->copy.in, s->copy.in_bytes);
    nd_hosts_free(&s->hosts);
    free(s->host_copy);
    free(s);
    run->saving.snapshots = NULL;
}
