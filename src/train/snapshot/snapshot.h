/* Snapshots: checkpoints in memory, from which a run continues within seconds after a crash.
 *
 * Every [logging] snapshot_interval steps each rank writes what it owns, with the files and
 * checksums of a checkpoint, to a directory in its host's memory, and sends a copy to a rank on
 * another host while training continues:
 *
 *   <snapshot_dir>/<run id>/<host>/step_00000120/rank_0002.h5    parts of this host's ranks
 *                                                copy_0005.h5    parts of ranks on another host
 *                                                config.ini, manifest.json
 *
 * Nothing is fsynced: the files survive the end of the process, not of the host. The manifest is
 * written once every rank has written its part. The previous snapshot stays until the next one has
 * its manifest and copies, so that there is always one complete snapshot, and never more than two.
 * The location of parts is not recorded: ranks that restart tell each other what they find and
 * verify (snapshot_find.c).
 *
 * Failures here do not end a run, except for those of the comm. All functions are collective unless
 * stated otherwise. */
#pragma once

#include "train/checkpoint/checkpoint.h"
#include "train/run/run.h"

typedef struct nd_snapshots nd_snapshots;

/* Determines who shares a host, who keeps whose copies, and which snapshots of this host must not
 * be used. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshots_create(nd_run *run);

/* Decides whether snapshots fit in memory, removes those of other runs here that nobody needs, and
 * logs both. Call it when the run has its id and memory. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshots_start(nd_run *run);

/* Removes snapshots of this run after step `after` (-1: all), which belong to an abandoned branch,
 * and abandons one in progress. Call it once the run has its directory. Hosts without ranks keep
 * theirs, and RUN/snapshot_hosts says that they must not be used. */
nd_status nd_snapshots_drop(nd_run *run, int64_t after);

/* Records in RUN/snapshot_hosts which hosts may hold snapshots of this run: those that its ranks
 * run on, and those it ran on before and lost, whose snapshots after step `after` must not be used.
 * `ended`: ranks have removed theirs; lost hosts stay in the file, which launch/run.sh uses, and
 * are logged. Failures are warnings. Rank 0; not collective. */
void nd_snapshots_list(nd_run *run, int64_t after, bool ended);

/* Waits for this rank's thread and frees everything except the snapshots themselves. Not
 * collective. */
void nd_snapshots_destroy(nd_run *run);

/* Starts a snapshot of the run; like nd_save_begin clears what a checkpoint does not contain. */
nd_status nd_snapshot_begin(nd_run *run);

/* Whether this rank has finished its part of the current stage. Not collective. */
bool nd_snapshot_ready(const nd_run *run);

/* Advances the snapshot in progress when all ranks are ready. */
nd_status nd_snapshot_advance(nd_run *run);

/* A complete snapshot that the ranks found. */
typedef struct nd_snapshot_found {
    bool any;
    /* the same on all ranks, except for its directory, which is on this rank's host */
    nd_checkpoint c;
    unsigned char *have; /* [size * c.file_count]: what each rank has, an nd_snapshot_part */
    char *config_text, *manifest_text;
    size_t config_bytes, manifest_bytes;
} nd_snapshot_found;

/* Finds the newest snapshot of this run (run->identity.run_id) of which every part exists undamaged
 * on some host; logs those it skips. The caller frees it. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshot_find(nd_run *run, nd_snapshot_found *found);
void nd_snapshot_found_free(nd_snapshot_found *found);

/* nd_checkpoint_restore from a snapshot: first fetches parts that a host lacks from a rank that has
 * them. Errors: those of nd_checkpoint_restore; ND_ECHECKPOINT when a host has no room for them,
 * with *untouched true: nothing has changed then. */
nd_status nd_snapshot_restore(nd_run *run, nd_snapshot_found *found, bool *untouched);

/* Bytes of a rank's snapshots, for `plan`: two generations of what it saves. Not collective. */
size_t nd_snapshot_share_bytes(const nd_run *run);

/* The absolute path of all runs' snapshots: [logging] snapshot_dir or its default. Not collective.
 * Errors: ND_ECHECKPOINT when it is too long. */
nd_status nd_snapshot_root(const nd_config *config, char path[ND_CHECKPOINT_PATH_MAX]);
