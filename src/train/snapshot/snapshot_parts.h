/* The state of snapshots, shared by the files that implement them (snapshot.h). */
#pragma once

#include "train/checkpoint/checkpoint_parts.h"
#include "train/snapshot/snapshot.h"

enum { ND_HOST_NAME_MAX = 65 }; /* Linux allows 64 bytes */

/* What a rank has of a file of a snapshot. */
typedef enum nd_snapshot_part { ND_PART_NONE, ND_PART_OWN, ND_PART_COPY } nd_snapshot_part;

/* Which ranks share a host, and who keeps whose copies. */
typedef struct nd_hosts {
    int count;
    int *of; /* [size] the host of each rank, numbered in the order of their lowest ranks */
    /* [size] the rank that keeps a rank's copy, on another host if possible; -1: none */
    int *buddy;
    char (*names)[ND_HOST_NAME_MAX]; /* [size] per rank */
} nd_hosts;

/* The exchange of copies, one piece per step. */
typedef struct nd_snapshot_copy {
    void *out, *in; /* mapped files */
    size_t out_bytes, in_bytes;
    int64_t pieces, begun;
} nd_snapshot_copy;

typedef enum nd_snapshot_stage {
    ND_SNAPSHOT_IDLE,
    ND_SNAPSHOT_WRITING,
    ND_SNAPSHOT_COPYING
} nd_snapshot_stage;

struct nd_snapshots {
    char root[ND_CHECKPOINT_PATH_MAX]; /* of all runs */
    char host[ND_HOST_NAME_MAX];
    nd_hosts hosts;
    int leader; /* the lowest rank on this host, which creates and removes directories there */
    /* the rank that keeps this rank's copy, and the rank whose copy this one keeps; -1: none */
    int to, from;
    bool off;    /* disabled, because they do not fit */
    bool copied; /* disabled, because those here belong to another directory with this run */
    /* those on this host after this step belong to a branch abandoned while the host was away */
    int64_t limit;
    nd_snapshot_stage stage;
    int64_t step;  /* of the one in progress */
    int64_t whole; /* of the newest complete one; -1: none */
    int64_t spare; /* the one before it, if these processes wrote it; -1: none */
    nd_snapshot_copy copy;
    void *host_copy; /* of device memory, for the writer */
    size_t host_copy_bytes;
    bool warned, warned_of_copies, announced;
};

/* Determines all ranks' hosts; nd_hosts_free frees it. Collective. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_hosts_find(nd_comm *comm, nd_snapshot_buddy_choice choice, nd_hosts *hosts);
void nd_hosts_free(nd_hosts *hosts);

/* The lowest rank on a host. */
int nd_hosts_leader(const nd_hosts *hosts, int host);

/* The paths <root>/<run id>/<host> and below. Errors: ND_ECHECKPOINT when a path is too long. */
nd_status nd_snapshot_place(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX]);
nd_status nd_snapshot_step_path(const nd_run *run, int64_t step, char path[ND_CHECKPOINT_PATH_MAX]);
nd_status nd_snapshot_part_path(const nd_run *run, int64_t step, nd_snapshot_part part, int rank,
                                char path[ND_CHECKPOINT_PATH_MAX]);

/* Whether files there stay in memory: a tmpfs or ramfs, or the file system is unknown. */
bool nd_snapshot_in_memory(const char *path);

/* The rank in a file name like "rank_0002.h5", -1 for other names. */
int nd_snapshot_rank_of(const char *file);

bool nd_snapshot_leads(const nd_run *run);

/* Whether `directory` is not the run's own but holds a run of the same id. */
bool nd_snapshot_is_copy(const nd_run *run, const char *directory);

/* Sets s->copied where a host has snapshots of another directory with this run's id, since one is a
 * copy of the other and both continue: this run must neither use nor remove them. Logs the
 * directory. Collective. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshot_find_copy(nd_run *run);

/* On leaders: removes all snapshots of this run on this host except step `keep` (-1: keep none) and
 * those up to step `up_to` (-1: none), then empty directories. Not collective. */
nd_status nd_snapshot_remove(const nd_run *run, int64_t keep, int64_t up_to);

/* On leaders: renames the files of step s->spare, which is then no snapshot any more, to those of
 * step s->step, to be overwritten: memory that is freed and allocated again costs more than the
 * copy into it. Does nothing where there is none. Not collective. Errors: ND_ECHECKPOINT. */
nd_status nd_snapshot_reuse(const nd_run *run);

/* On leaders: removes snapshots of other runs from this host if their run's directory is visible
 * here, is not locked and has a complete checkpoint that is as new, so that nobody needs them. Not
 * collective. */
void nd_snapshot_remove_others(nd_run *run);

/* Lists other runs with snapshots on this host: "ID (12.3 MiB), ..."; "" when there are none. */
void nd_snapshot_others(const nd_run *run, char *text, size_t size);

/* Sets s->limit from RUN/snapshot_hosts, which rank 0 reads if that directory's run is the one that
 * continues. Collective. Errors: ND_ENOMEM, ND_EPEER; a file that cannot be read is a warning. */
nd_status nd_snapshot_find_limit(nd_run *run);

/* On leaders: writes config.ini and then, atomically, manifest.json of a snapshot. */
nd_status nd_snapshot_write_texts(const nd_run *run, int64_t step, const nd_snapshot_found *texts);

/* Broadcasts both texts from `root`. Collective. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshot_share_texts(nd_run *run, nd_snapshot_found *texts, int root);

/* Map a whole file for reading; or a file for writing, created or resized to `bytes` bytes. *data
 * is NULL for an empty file. nd_snapshot_unmap ends either. Errors: ND_ECHECKPOINT. */
nd_status nd_snapshot_map(const char *path, void **data, size_t *bytes);
nd_status nd_snapshot_map_new(const char *path, size_t bytes, void **data);
void nd_snapshot_unmap(void *data, size_t bytes);

/* The exchange of copies, after the manifest is written. Collective. Errors: ND_ECHECKPOINT on all
 * ranks, after which there are no copies of this snapshot. */
nd_status nd_snapshot_copy_begin(nd_run *run);
nd_status nd_snapshot_copy_advance(nd_run *run, bool *done);
void nd_snapshot_copy_abandon(nd_run *run);
