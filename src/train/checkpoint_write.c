#include "core/durable_file.h"
#include "train/checkpoint.h"
#include "train/checkpoint_hdf5.h"
#include "train/fault_points.h"
#include "train/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A parameter's tensors: the master and the optimizer's states. */
enum { PARTS_MAX = 1 + ND_OPTIMIZER_STATES_MAX, TOKENIZER_BYTES_MAX = 1 << 28 };

/* What an owner tells everyone about a tensor it wrote. */
typedef struct written_tensor {
    char part[32]; /* empty: no such tensor */
    int dtype;
    int64_t rows, cols;
    char sha256[ND_SHA256_HEX_SIZE];
} written_tensor;

typedef struct written_file {
    int64_t bytes;
    char sha256[ND_SHA256_HEX_SIZE];
} written_file;

void nd_checkpoint_directory(const nd_config *config, char *path, size_t size)
{
    if (config->logging.checkpoint_dir[0])
        snprintf(path, size, "%s", config->logging.checkpoint_dir);
    else
        snprintf(path, size, "%s/checkpoints", config->logging.run_dir);
}

static nd_status join(char *path, size_t size, const char *directory, const char *name)
{
    if ((size_t)snprintf(path, size, "%s/%s", directory, name) >= size)
        return ND_FAIL(ND_ECHECKPOINT, "%s/%s: the path is too long", directory, name);
    return ND_OK;
}

static int parts_of(const nd_run *run, int64_t index, nd_optimizer_state *parts)
{
    parts[0] = (nd_optimizer_state){"master", run->masters[index]};
    return 1 + nd_optimizer_states(run->optimizer, index, parts + 1);
}

static nd_status write_tensor(nd_run *run, nd_checkpoint_h5 *file, const char *param,
                              nd_optimizer_state part, written_tensor *written)
{
    nd_backend *b = run->backend;
    char name[2 * ND_PARAM_NAME_MAX + 32];
    const size_t bytes = nd_view_bytes(nd_read(part.view));
    void *host = malloc(bytes);
    if (!host)
        return ND_FAIL(ND_ENOMEM, "no memory to save %s (%zu bytes)", param, bytes);
    nd_status status = ND_OK;
    if (strcmp(part.name, "master") == 0)
        snprintf(name, sizeof name, "/masters/%s", param);
    else
        snprintf(name, sizeof name, "/optimizer/%s/%s", param, part.name);
    ND_TRY_GOTO(b->ops.download(b, host, part.view.data, bytes), done);
    ND_TRY_GOTO(nd_sha256_hex(host, bytes, written->sha256), done);
    ND_TRY_GOTO(nd_checkpoint_h5_write(
                    file, name, nd_cview_of(host, part.view.dtype, part.view.rows, part.view.cols)),
                done);
    snprintf(written->part, sizeof written->part, "%s", part.name);
    written->dtype = (int)part.view.dtype;
    written->rows = part.view.rows;
    written->cols = part.view.cols;
done:
    free(host);
    return status;
}

/* This rank's file: what it owns. */
static nd_status write_own_file(nd_run *run, const char *path, written_tensor *table,
                                written_file *summary)
{
    nd_checkpoint_h5 *file = NULL;
    nd_status status = ND_OK;
    ND_TRY(nd_checkpoint_h5_create(path, &file));
    for (int64_t i = 0; i < run->model->params.count && status == ND_OK; i++) {
        nd_optimizer_state parts[PARTS_MAX];
        if (!run->masters[i].data)
            continue;
        const int count = parts_of(run, i, parts);
        for (int p = 0; p < count && status == ND_OK; p++)
            status = write_tensor(run, file, run->model->params.list[i].name, parts[p],
                                  &table[i * PARTS_MAX + p]);
    }
    nd_fault_point(run->comm, "save_close");
    const nd_status closed = nd_checkpoint_h5_close(file);
    ND_TRY(status);
    ND_TRY(closed);
    ND_TRY(nd_path_sync(path));
    return nd_file_digest(path, &summary->bytes, summary->sha256);
}

static nd_status collect(nd_run *run, const written_tensor *all, const written_file *files,
                         nd_checkpoint *c)
{
    const int64_t params = run->model->params.count;
    c->tensors = calloc((size_t)(params * PARTS_MAX), sizeof *c->tensors);
    c->files = calloc((size_t)run->comm->size + 2, sizeof *c->files);
    if (!c->tensors || !c->files)
        return ND_FAIL(ND_ENOMEM, "no memory for a manifest of %lld tensors", (long long)params);
    char *hashes = calloc((size_t)(params * PARTS_MAX) + 1, 64);
    if (!hashes)
        return ND_FAIL(ND_ENOMEM, "no memory for %lld checksums", (long long)params);
    for (int64_t i = 0; i < params; i++) {
        const nd_param *param = &run->model->params.list[i];
        const int owner = run->own.owner[i];
        for (int p = 0; p < PARTS_MAX; p++) {
            const written_tensor *w = &all[(owner * params + i) * PARTS_MAX + p];
            if (!w->part[0])
                continue;
            nd_checkpoint_tensor *t = &c->tensors[c->tensor_count];
            *t = (nd_checkpoint_tensor){
                .dtype = (nd_dtype)w->dtype, .rows = w->rows, .cols = w->cols};
            strcpy(t->param, param->name);
            strcpy(t->part, w->part);
            strcpy(t->sha256, w->sha256);
            snprintf(t->file, sizeof t->file, "rank_%04d.h5", owner);
            memcpy(hashes + 64 * c->tensor_count++, w->sha256, 64);
        }
    }
    const nd_status status = nd_sha256_hex(hashes, 64 * (size_t)c->tensor_count, c->state_sha256);
    free(hashes);
    for (int r = 0; r < run->comm->size; r++) {
        nd_checkpoint_file *f = &c->files[c->file_count++];
        snprintf(f->name, sizeof f->name, "rank_%04d.h5", r);
        f->bytes = files[r].bytes;
        strcpy(f->sha256, files[r].sha256);
    }
    return status;
}

static nd_status add_file(nd_checkpoint *c, const char *directory, const char *name,
                          const void *bytes, size_t size)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(join(path, sizeof path, directory, name));
    ND_TRY(nd_file_write_synced(path, bytes, size));
    nd_checkpoint_file *f = &c->files[c->file_count++];
    snprintf(f->name, sizeof f->name, "%s", name);
    f->bytes = (int64_t)size;
    return nd_sha256_hex(bytes, size, f->sha256);
}

static nd_status add_config(nd_run *run, nd_checkpoint *c, const char *directory)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (!memory)
        return ND_FAIL(ND_ENOMEM, "no memory for the configuration's text");
    nd_status status = nd_config_write(&run->config, memory);
    fclose(memory);
    if (status == ND_OK)
        status = add_file(c, directory, "config.ini", text, size);
    free(text);
    return status;
}

static nd_status add_tokenizer(nd_run *run, nd_checkpoint *c, const char *directory)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    void *bytes = NULL;
    size_t size = 0;
    if (run->config.data.dataset == ND_DATASET_SYNTHETIC)
        return ND_OK;
    ND_TRY(join(path, sizeof path, run->config.data.data_path, "tokenizer.model"));
    if (access(path, R_OK) != 0)
        return ND_OK;
    ND_TRY(nd_read_whole_file(path, TOKENIZER_BYTES_MAX, ND_ECHECKPOINT, &bytes, &size));
    const nd_status status = add_file(c, directory, "tokenizer.model", bytes, size);
    free(bytes);
    return status;
}

/* Removes the oldest step_* directories beyond the newest `keep`, and what crashes left. */
static void remove_old(const char *directory, int64_t keep, nd_log *log)
{
    struct dirent **entries;
    const int count = scandir(directory, &entries, NULL, alphasort);
    int64_t whole = 0;
    for (int i = count - 1; i >= 0; i--) { /* newest first: names sort by step */
        char path[ND_CHECKPOINT_PATH_MAX];
        const char *name = entries[i]->d_name;
        const bool step = strncmp(name, "step_", 5) == 0;
        whole += step;
        const bool old = step && keep > 0 && whole > keep;
        const bool left = strncmp(name, ".tmp_step_", 10) == 0;
        if ((old || left) && join(path, sizeof path, directory, name) == ND_OK &&
            nd_directory_remove(path) != ND_OK) {
            nd_log_line(log, "warning: %s", nd_error_get()->message);
            nd_error_clear();
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* Makes the directory `temporary` appear as `final`. Where `final` exists (the same step saved before a
 * restart) the two are exchanged in one call, so that a whole one stands there at any moment. */
static nd_status take_place(const char *temporary, const char *final)
{
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, final, RENAME_EXCHANGE) == 0)
        return nd_directory_remove(temporary);
    if (rename(temporary, final) != 0)
        return ND_FAIL(ND_ECHECKPOINT, "cannot rename %s to %s: %s", temporary, final,
                       strerror(errno));
    return ND_OK;
}

/* Rank 0, after every rank's file is on disk. */
static nd_status publish(nd_run *run, nd_checkpoint *c, const char *parent, const char *temporary)
{
    char name[64], final[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX], *text = NULL;
    nd_fault_point(run->comm, "save_config");
    ND_TRY(add_config(run, c, temporary));
    ND_TRY(add_tokenizer(run, c, temporary));
    ND_TRY(join(path, sizeof path, temporary, "manifest.json"));
    ND_TRY(nd_manifest_format(c, &text));
    const nd_status wrote = nd_file_write_synced(path, text, strlen(text));
    free(text);
    ND_TRY(wrote);
    ND_TRY(nd_path_sync(temporary));
    nd_fault_point(run->comm, "save_rename");
    snprintf(name, sizeof name, "step_%08lld", (long long)run->step);
    ND_TRY(join(final, sizeof final, parent, name));
    ND_TRY(take_place(temporary, final));
    ND_TRY(nd_path_sync(parent));
    nd_fault_point(run->comm, "save_link");
    ND_TRY(nd_durable_link(parent, "latest", name));
    nd_fault_point(run->comm, "save_remove");
    remove_old(parent, run->config.logging.checkpoint_keep, &run->log);
    return ND_OK;
}

static nd_status start_directory(const char *parent, const char *temporary)
{
    ND_TRY(nd_directory_create(parent));
    ND_TRY(nd_directory_remove(temporary));
    return nd_directory_create(temporary);
}

/* Errors of files and memory while saving are errors of the checkpoint to the caller. */
static nd_status as_checkpoint_error(nd_status status)
{
    return status == ND_EIO || status == ND_ENOMEM ? ND_ECHECKPOINT : status;
}

nd_status nd_checkpoint_write(nd_run *run, char out[ND_CHECKPOINT_PATH_MAX])
{
    nd_comm *comm = run->comm;
    const size_t entries = (size_t)run->model->params.count * PARTS_MAX;
    char parent[ND_CHECKPOINT_PATH_MAX], temporary[ND_CHECKPOINT_PATH_MAX + 64];
    char path[ND_CHECKPOINT_PATH_MAX], name[64];
    nd_checkpoint c = {.step = run->step,
                       .tokens = run->tokens,
                       .restarts = run->restarts,
                       .next_sample = run->next_sample,
                       .health = run->health};
    written_file summary = {0}, *summaries = calloc((size_t)comm->size, sizeof *summaries);
    written_tensor *mine = calloc(entries, sizeof *mine);
    written_tensor *all = calloc(entries * (size_t)comm->size, sizeof *all);
    nd_status status = ND_OK;
    nd_checkpoint_directory(&run->config, parent, sizeof parent);
    snprintf(temporary, sizeof temporary, "%s/.tmp_step_%08lld", parent, (long long)run->step);
    snprintf(name, sizeof name, "rank_%04d.h5", comm->rank);
    if (!summaries || !mine || !all)
        status = ND_FAIL(ND_ENOMEM, "no memory for the checkpoint's tables");
    else if (comm->rank == 0)
        status = start_directory(parent, temporary);
    ND_TRY_GOTO(nd_run_agree(comm, as_checkpoint_error(status)), done);

    nd_fault_point(comm, "save_files");
    status = join(path, sizeof path, temporary, name);
    if (status == ND_OK)
        status = write_own_file(run, path, mine, &summary);
    ND_TRY_GOTO(nd_run_agree(comm, as_checkpoint_error(status)), done);
    nd_fault_point(comm, "save_gather");
    ND_TRY_GOTO(comm->ops.allgather(comm, all, mine, entries * sizeof *mine), done);
    ND_TRY_GOTO(comm->ops.allgather(comm, summaries, &summary, sizeof summary), done);

    if (comm->rank == 0) {
        status = collect(run, all, summaries, &c);
        if (status == ND_OK)
            status = publish(run, &c, parent, temporary);
        strcpy(run->state_sha256, c.state_sha256);
    }
    ND_TRY_GOTO(nd_run_agree(comm, as_checkpoint_error(status)), done);
    snprintf(name, sizeof name, "step_%08lld", (long long)run->step);
    if (out)
        status = join(out, ND_CHECKPOINT_PATH_MAX, parent, name);
done:
    nd_checkpoint_close(&c);
    free(summaries);
    free(mine);
    free(all);
    return status;
}
