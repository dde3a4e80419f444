/* Parameters owned by rows. Each rank writes its rows, by parameter and part, to a file next to its
 * rank file; when all have, rank 0 assembles each tensor, writes it to its own file and removes the
 * others. So checkpoints do not depend on the distribution of rows. */
#include "core/base/close.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/checkpoint/checkpoint_parts.h"
#include "train/fault_points.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nd_status path_of(const nd_save *s, int rank, const char *suffix, char *path)
{
    char name[32];
    snprintf(name, sizeof name, "rank_%04d.%s", rank, suffix);
    return nd_checkpoint_join(path, s->temporary, name);
}

static nd_status io_error(const char *path, const char *what)
{
    return ND_FAIL(ND_EIO, "%s: cannot be %s: %s", path, what, errno ? strerror(errno) : "short");
}

nd_status nd_save_append_rows(const nd_save *s, const void *bytes, size_t size)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(path_of(s, s->run->comm->rank, "rows", path));
    errno = 0;
    FILE *file = fopen(path, "ab");
    if (!file)
        return io_error(path, "opened");
    const bool whole = fwrite(bytes, 1, size, file) == size;
    return (fclose(file) == 0) && whole ? ND_OK : io_error(path, "written");
}

/* State of joining rows. */
typedef struct joining {
    nd_save *s;
    nd_checkpoint_h5 *file;
    size_t *used; /* [ranks] bytes read of each rank's rows */
} joining;

static nd_status read_rows(const joining *j, int rank, char *into, size_t bytes)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(path_of(j->s, rank, "rows", path));
    errno = 0;
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "rb");
    if (!file)
        return io_error(path, "opened");
    if (fseek(file, (long)j->used[rank], SEEK_SET) != 0 || fread(into, 1, bytes, file) != bytes)
        return io_error(path, "read");
    j->used[rank] += bytes;
    return ND_OK;
}

static nd_status join_part(const joining *j, int64_t index, const nd_optimizer_state *part,
                           nd_written_tensor *written)
{
    const nd_run *run = j->s->run;
    const nd_param *param = &run->model->params.list[index];
    const size_t bytes = nd_view_bytes(nd_as_const(part->view));
    ND_AUTOFREE char *whole = malloc(bytes);
    ND_FAIL_IF(!whole, ND_ENOMEM, "no memory to save %s (%zu bytes)", param->name, bytes);
    for (int r = -1; (r = nd_ownership_next(&run->own, index, r)) >= 0;) {
        const nd_row_span span = nd_ownership_span(&run->own, index, r, param->rows);
        const size_t from = nd_checkpoint_row_at(param, part->view, span.first);
        const size_t end = nd_checkpoint_row_at(param, part->view, span.first + span.count);
        ND_TRY(read_rows(j, r, whole + from, end - from));
    }
    return nd_save_write_values(j->file, true, param->name, part, whole, written);
}

static nd_status join_all(const joining *j)
{
    const nd_run *run = j->s->run;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX];
        int count = 0;
        if (!run->own.rows[i])
            continue;
        ND_TRY(nd_checkpoint_whole_parts(run, i, parts, &count));
        for (int p = 0; p < count; p++) {
            ND_TRY(join_part(j, i, &parts[p], &nd_save_row(j->s, 0, i)[p]));
            nd_fault_point_of(0, j->s->c.step, "save_join");
        }
    }
    return ND_OK;
}

static nd_status remove_rows(const nd_save *s)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    for (int r = 0; r < s->run->comm->size; r++) {
        ND_TRY(path_of(s, r, "rows", path));
        if (unlink(path) != 0 && errno != ENOENT)
            return io_error(path, "removed");
    }
    return ND_OK;
}

nd_status nd_save_join_rows(nd_save *s)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    bool any = false;
    for (int64_t i = 0; i < s->run->model->params.count; i++)
        any |= s->run->own.rows[i] != NULL;
    if (!any)
        return ND_OK;
    joining j = {.s = s, .used = calloc((size_t)s->run->comm->size, sizeof *j.used)};
    ND_FAIL_IF(!j.used, ND_ENOMEM, "no memory for the rows of %d ranks", s->run->comm->size);
    nd_status status = path_of(s, 0, "h5", path);
    ND_IF_OK(nd_checkpoint_h5_append(path, &j.file));
    if (status == ND_OK) {
        status = join_all(&j);
        const nd_status closed = nd_checkpoint_h5_close(j.file);
        status = status == ND_OK ? closed : status;
    }
    free(j.used);
    ND_TRY(status);
    ND_TRY(nd_path_sync(path));
    ND_TRY(remove_rows(s));
    return nd_file_digest(path, &s->summaries[0].bytes, s->summaries[0].sha256);
}
