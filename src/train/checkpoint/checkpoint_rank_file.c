#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/checkpoint/checkpoint_parts.h"
#include "train/fault_points.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Writes whole tensors to the rank's file, rows next to it; in snapshots both to the former. */
static nd_status write_part(nd_save *s, nd_checkpoint_h5 *file, int64_t index,
                            const nd_optimizer_state *part, const void *host,
                            nd_written_tensor *written)
{
    if (s->run->own.rows[index] && s->durable)
        return nd_save_append_rows(s, host, nd_view_bytes(nd_as_const(part->view)));
    return nd_save_write_values(file, s->durable, s->run->model->params.list[index].name, part,
                                host, written);
}

/* Reads it in place, from the copy at *copied (advanced), or by download. */
static nd_status write_tensor(nd_save *s, nd_checkpoint_h5 *file, int64_t index,
                              const nd_optimizer_state *part, const char **copied,
                              nd_written_tensor *written)
{
    nd_backend *b = s->run->backend;
    const size_t bytes = nd_view_bytes(nd_as_const(part->view));
    if (b->ops.host_memory)
        return write_part(s, file, index, part, part->view.data, written);
    if (s->copy) {
        ND_TRY(write_part(s, file, index, part, *copied, written));
        *copied += bytes;
        return ND_OK;
    }
    ND_AUTOFREE void *host = malloc(bytes);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory to save %s (%zu bytes)",
               s->run->model->params.list[index].name, bytes);
    ND_TRY(b->ops.download(b, host, part->view.data, bytes));
    return write_part(s, file, index, part, host, written);
}

static nd_status write_unit(nd_save *s, nd_checkpoint_h5 *file, int64_t unit, int64_t index,
                            const char **copied)
{
    const nd_run *run = s->run;
    nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX];
    const int count = nd_checkpoint_parts(run, unit, index, parts);
    for (int p = 0; p < count; p++) {
        ND_FAIL_IF(atomic_load(&s->abandoned), ND_ECHECKPOINT, "%s: given up", s->temporary);
        ND_TRY(write_tensor(s, file, index, &parts[p], copied, &nd_save_row(s, unit, index)[p]));
        nd_fault_point_of(run->comm->rank, s->c.step, "save_tensor");
    }
    return ND_OK;
}

static nd_status write_tensors(nd_save *s, nd_checkpoint_h5 *file)
{
    const nd_run *run = s->run;
    const int64_t units = nd_checkpoint_units(run);
    const char *copied = s->copy;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        for (int64_t unit = 0; unit < units; unit++)
            if (nd_checkpoint_writes(run, unit, i))
                ND_TRY(write_unit(s, file, unit, i, &copied));
        nd_save_release(s, i + 1);
    }
    return ND_OK;
}

/* Snapshots have checksums of tensors only: another pass over all bytes would double the cost. */
static nd_status measure(const char *path, int64_t *bytes)
{
    struct stat info;
    ND_FAIL_IF(stat(path, &info) != 0, ND_EIO, "cannot stat %s: %s", path, strerror(errno));
    *bytes = info.st_size;
    return ND_OK;
}

/* A snapshot's may be one of an older generation, whose memory is then used again. */
static nd_status open_rank_file(const nd_save *s, const char *path, nd_checkpoint_h5 **file)
{
    bool exists = false;
    if (!s->durable)
        ND_TRY(nd_path_exists(path, &exists));
    return exists ? nd_checkpoint_h5_append(path, file) : nd_checkpoint_h5_create(path, file);
}

static nd_status write_rank_file(nd_save *s)
{
    const int rank = s->run->comm->rank;
    char path[ND_CHECKPOINT_PATH_MAX], name[32];
    nd_checkpoint_h5 *file = NULL;
    snprintf(name, sizeof name, "rank_%04d.h5", rank);
    ND_TRY(nd_checkpoint_join(path, s->temporary, name));
    nd_fault_point_of(rank, s->c.step, "save_files");
    ND_TRY(open_rank_file(s, path, &file));
    const nd_status status = write_tensors(s, file);
    nd_fault_point_of(rank, s->c.step, "save_close");
    const nd_status closed = nd_checkpoint_h5_close(file);
    ND_TRY(status);
    ND_TRY(closed);
    nd_fault_point_of(rank, s->c.step, "save_sync");
    if (!s->durable)
        return measure(path, &s->summary.bytes);
    ND_TRY(nd_path_sync(path));
    nd_fault_point_of(rank, s->c.step, "save_digest");
    return nd_file_digest(path, &s->summary.bytes, s->summary.sha256);
}

nd_status nd_save_write_and_release(void *save)
{
    const nd_status status = write_rank_file(save);
    nd_save_release(save, INT64_MAX);
    return status;
}
