/* Snapshots: checkpoints in memory, from which a run goes on within seconds after a crash.
 *
 * Every [logging] snapshot_interval steps each rank writes what it owns, with the files and checksums of a
 * checkpoint, into a directory of its host's memory, and sends a copy to a rank of another host while
 * training continues:
 *
 *   <snapshot_dir>/<run id>/<host>/step_00000120/rank_0002.h5    this host's ranks' parts
 *                                                copy_0005.h5    parts of ranks of another host
 *                                                config.ini, manifest.json
 *
 * Nothing is fsynced: a process that dies takes nothing of it along. The manifest is written when every rank
 * has its part. The one before stays until the next one has its manifest and its copies, so that one whole
 * generation is there at any moment; there are never more than two. Which parts are where is not written
 * anywhere: the ranks that start again tell each other what they find and check (snapshot_find.c).
 *
 * No failure here ends a run, but for those of the comm. All functions are collective. */
#pragma once

#include "train/checkpoint/checkpoint.h"
#include "train/run.h"

typedef struct nd_snapshots nd_snapshots;

/* Finds out which ranks share a host, who keeps whose copies, and what of this host is not to be used:
 * run->saving.snapshots. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_snapshots_create(nd_run *run);

/* Once the run has its id and its memory: logs what is planned and whose else snapshots lie there. */
nd_status nd_snapshots_start(nd_run *run);

/* Removes those after step `after` (-1: all) of this run, once the run's directory is its own: they are of a
 * branch that was given up. What is being written is abandoned. Hosts without ranks keep theirs, and
 * RUN/snapshot_hosts says that they are not to be used. */
nd_status nd_snapshots_drop(nd_run *run, int64_t after);

/* Rank 0: notes in RUN/snapshot_hosts which hosts may hold snapshots of this run: those that ranks run on, and
 * those that it was on before and has lost, of which those after step `after` are not to be used. `ended`: ranks
 * have removed theirs; the lost ones stay in the file, which launch/run.sh goes by, and are named in the log. What
 * fails is a warning. Not collective. */
void nd_snapshots_list(nd_run *run, int64_t after, bool ended);

/* Waits for this rank's thread; leaves what lies in memory. NULL is fine. Not collective. */
void nd_snapshots_destroy(nd_run *run);

/* Begins one of the run as it is now; as nd_save_begin drops what a checkpoint does not hold. */
nd_status nd_snapshot_begin(nd_run *run);

/* Whether this rank has done its part of the present stage. Not collective. */
bool nd_snapshot_ready(const nd_run *run);

/* Goes on with the present one, when all ranks are ready. */
nd_status nd_snapshot_advance(nd_run *run);

/* What ranks found of a whole snapshot. */
typedef struct nd_snapshot_found {
    bool any;
    nd_checkpoint c; /* the same on all ranks, but for its directory: that of this rank's host */
    unsigned char *have; /* [size * c.file_count]: what each rank found, an nd_snapshot_part */
    char *config_text, *manifest_text;
    size_t config_bytes, manifest_bytes;
} nd_snapshot_found;

/* The newest of this run (run->identity.run_id) of which every part lies whole somewhere. Those that are
 * passed over are named in the log. */
nd_status nd_snapshot_find(nd_run *run, nd_snapshot_found *found);
void nd_snapshot_found_free(nd_snapshot_found *found);

/* nd_checkpoint_restore from there: brings parts that a host lacks from a rank that has them. Errors: as
 * nd_checkpoint_restore; ND_ECHECKPOINT where a host has no room for them, before anything has changed:
 * *untouched then. */
nd_status nd_snapshot_restore(nd_run *run, nd_snapshot_found *found, bool *untouched);

/* Bytes that a rank's share takes, for `plan`: two generations of what it owns. */
size_t nd_snapshot_share_bytes(const nd_run *run);

/* The directory that holds those of all runs: [logging] snapshot_dir or its default. */
void nd_snapshot_root(const nd_config *config, char path[ND_CHECKPOINT_PATH_MAX]);
