/* Snapshots between the files that make them (snapshot.h says how). */
#pragma once

#include "train/checkpoint/checkpoint_parts.h"
#include "train/snapshot/snapshot.h"

enum { ND_HOST_NAME_MAX = 65 }; /* Linux allows 64 bytes */

/* What a rank found of a file of a snapshot. */
typedef enum nd_snapshot_part { ND_PART_NONE, ND_PART_OWN, ND_PART_COPY } nd_snapshot_part;

/* Which ranks share a host. */
typedef struct nd_hosts {
    int count;
    int *of; /* [size]: the host of a rank, numbered by their lowest ranks */
    char (*names)[ND_HOST_NAME_MAX]; /* [size] of ranks */
} nd_hosts;

/* The exchange of copies: in pieces, one a step. */
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
    int leader; /* the lowest rank of this rank's host, which makes and removes directories there */
    int to, from; /* who keeps this rank's copy, and whose this rank keeps; -1: nobody's */
    bool off;     /* they do not fit, or */
    bool copied;  /* those here are of another directory that holds this run */
    int64_t
        limit; /* those on this host after this step are of a branch that was given up while it was away */
    nd_snapshot_stage stage;
    int64_t step;  /* of the one under way */
    int64_t whole; /* of the newest whole one; -1: none */
    nd_snapshot_copy copy;
    void *host_copy; /* of device memory, for the writer */
    size_t host_copy_bytes;
    bool warned, warned_of_copies, announced;
};

/* The hosts of all ranks. Collective. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_hosts_find(nd_comm *comm, nd_hosts *hosts);
void nd_hosts_free(nd_hosts *hosts);

/* The rank that keeps the copy of `rank`: on another host where hosts allow it, -1 without one. The
 * assignment is a permutation. */
int nd_hosts_buddy(const nd_hosts *hosts, int ranks, int rank, nd_snapshot_buddy_choice choice);

/* <root>/<run id>/<host>, and below it. Errors: ND_ECHECKPOINT when a path is too long. */
nd_status nd_snapshot_place(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX]);
nd_status nd_snapshot_step_path(const nd_run *run, int64_t step, char path[ND_CHECKPOINT_PATH_MAX]);
nd_status nd_snapshot_part_path(const nd_run *run, int64_t step, nd_snapshot_part part, int rank,
                                char path[ND_CHECKPOINT_PATH_MAX]);

/* Whether what is written there stays in memory: a tmpfs or a ramfs, or no file system that can be asked. */
bool nd_snapshot_in_memory(const char *path);

/* The rank of "rank_0002.h5", -1 of other names. */
int nd_snapshot_rank_of(const char *file);

bool nd_snapshot_leads(const nd_run *run);

/* Sets s->copied where a host has snapshots of a directory that holds this run too, as one of the two is a copy of the
 * other and each goes on by itself: they are not this one's to use or to remove. The log names it. Collective. Errors:
 * ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshot_find_copy(nd_run *run);

/* Leaders: removes all snapshots of this run on this host, but step `keep` (-1: none kept) and those up to
 * step `up_to` (-1: none of them either); then directories that are empty. Not collective. */
nd_status nd_snapshot_remove(const nd_run *run, int64_t keep, int64_t up_to);

/* Leaders: removes other runs' snapshots from this host where their run's directory can be seen from here, is locked by
 * nobody and has a whole checkpoint that is as new, so that nobody can want them. Not collective. */
void nd_snapshot_remove_others(nd_run *run);

/* Names other runs whose snapshots lie on this host: "ID (12.3 MiB), ..."; "" when there are none. */
void nd_snapshot_others(const nd_run *run, char *text, size_t size);

/* Sets s->limit by RUN/snapshot_hosts, which rank 0 reads where the run there is the one that goes on. Collective. Errors:
 * ND_ENOMEM, ND_EPEER; a file that cannot be read is a warning. */
nd_status nd_snapshot_find_limit(nd_run *run);

/* Leaders: writes config.ini and manifest.json of a snapshot, the manifest last and at once. */
nd_status nd_snapshot_write_texts(const nd_run *run, int64_t step, const char *config,
                                  size_t config_bytes, const char *manifest, size_t manifest_bytes);

/* Collective. Both texts from `root` to everyone. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshot_share_texts(nd_run *run, nd_snapshot_found *texts, int root);

/* A whole file for reading, or a new one with room for `bytes` for writing. Empty files map to NULL. Errors:
 * ND_ECHECKPOINT. */
nd_status nd_snapshot_map(const char *path, void **data, size_t *bytes);
nd_status nd_snapshot_map_new(const char *path, size_t bytes, void **data);
void nd_snapshot_unmap(void *data, size_t bytes);

/* The exchange of copies, from the manifest on. All collective; errors on all ranks: ND_ECHECKPOINT, after
 * which there are no copies of this snapshot. */
nd_status nd_snapshot_copy_begin(nd_run *run);
nd_status nd_snapshot_copy_advance(nd_run *run, bool *done);
void nd_snapshot_copy_abandon(nd_run *run);
