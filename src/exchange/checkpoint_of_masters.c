#include "exchange/checkpoint_of_masters.h"

#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_files.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/run/run_lock.h"

#include <limits.h>
#include <stdlib.h>

static const char step_name[] = "step_00000000", tensors_name[] = "rank_0000.h5";

static nd_status check_new(const char *directory)
{
    nd_checkpoint_steps steps;
    ND_TRY(nd_checkpoint_steps_list(directory, "", &steps));
    free(steps.list);
    return ND_CHECK(steps.count == 0, ND_ECONFIG,
                    "%s: holds %d checkpoints already; name a new run", directory, steps.count);
}

static nd_status write_tensor(const nd_param *p, const nd_masters *masters, int64_t index,
                              nd_checkpoint_h5 *file, nd_checkpoint_tensor *t)
{
    const size_t bytes = (size_t)(p->rows * p->cols) * sizeof(float);
    char name[ND_PARAM_NAME_MAX + 16];
    float *values = malloc(bytes);
    *t =
        (nd_checkpoint_tensor){.part = "master", .dtype = ND_F32, .rows = p->rows, .cols = p->cols};
    snprintf(t->param, sizeof t->param, "%s", p->name);
    snprintf(t->file, sizeof t->file, "%s", tensors_name);
    snprintf(name, sizeof name, "/masters/%s", p->name);
    nd_status status = values ? masters->read(masters->context, index, values)
                              : ND_FAIL(ND_ENOMEM, "no memory for %s (%zu bytes)", p->name, bytes);
    ND_IF_OK(nd_checkpoint_h5_write(file, name, nd_cview_of(values, ND_F32, p->rows, p->cols)));
    ND_IF_OK(nd_sha256_hex(values, bytes, t->checksum));
    free(values);
    return status;
}

static nd_status write_tensors(const char *path, const nd_params *params, const nd_masters *masters,
                               nd_checkpoint *c)
{
    nd_checkpoint_h5 *file = NULL;
    ND_TRY(nd_checkpoint_h5_create(path, &file));
    nd_status status = ND_OK;
    for (; status == ND_OK && c->tensor_count < params->count; c->tensor_count++)
        status = write_tensor(&params->list[c->tensor_count], masters, c->tensor_count, file,
                              &c->tensors[c->tensor_count]);
    const nd_status closed = nd_checkpoint_h5_close(file);
    ND_TRY(status != ND_OK ? status : closed);
    return nd_path_sync(path);
}

static nd_status write_files(const char *directory, const nd_config *config,
                             const nd_params *params, const nd_masters *masters,
                             const void *tokenizer, size_t tokenizer_bytes, nd_checkpoint *c)
{
    char path[PATH_MAX];
    c->tensors = calloc((size_t)params->count, sizeof *c->tensors);
    c->files = calloc(3, sizeof *c->files);
    ND_FAIL_IF(!c->tensors || !c->files, ND_ENOMEM, "no memory for a manifest");
    nd_checkpoint_file *tensors = &c->files[c->file_count++];
    snprintf(tensors->name, sizeof tensors->name, "%s", tensors_name);
    snprintf(path, sizeof path, "%s/%s", directory, tensors_name);
    ND_TRY(write_tensors(path, params, masters, c));
    ND_TRY(nd_file_digest(path, &tensors->bytes, tensors->sha256));
    ND_TRY(nd_checkpoint_add_config(c, directory, config));
    if (tokenizer)
        ND_TRY(nd_checkpoint_add_file(c, directory, "tokenizer.model", tokenizer, tokenizer_bytes));
    ND_TRY(nd_checkpoint_add_manifest(c, directory));
    return nd_path_sync(directory);
}

static nd_status write_checkpoint(const char *directory, const nd_config *config,
                                  const nd_params *params, const nd_masters *masters,
                                  const void *tokenizer, size_t tokenizer_bytes)
{
    char temporary[PATH_MAX - 64], final[PATH_MAX];
    nd_checkpoint c = {.step = 0};
    nd_status status = ND_OK;
    ND_TRY(check_new(directory));
    if ((size_t)snprintf(temporary, sizeof temporary, "%s/.tmp_%s", directory, step_name) >=
        sizeof temporary)
        return ND_FAIL(ND_EIO, "%.80s...: the path is too long", directory);
    snprintf(final, sizeof final, "%s/%s", directory, step_name);
    ND_TRY(nd_directory_remove(temporary));
    ND_TRY(nd_directory_create(temporary));
    status = write_files(temporary, config, params, masters, tokenizer, tokenizer_bytes, &c);
    nd_checkpoint_close(&c);
    ND_IF_OK(nd_durable_rename(temporary, final));
    if (status != ND_OK) {
        nd_directory_remove(temporary);
        return status;
    }
    bool unsupported; /* ignored: the newest step is found without the link */
    return nd_checkpoint_latest_write(directory, 0, &unsupported);
}

nd_status nd_checkpoint_of_masters(const char *directory, const nd_config *config,
                                   const nd_params *params, const nd_masters *masters,
                                   const void *tokenizer, size_t tokenizer_bytes)
{
    nd_run_lock *lock;
    ND_TRY(nd_run_lock_acquire(directory, &lock));
    const nd_status status =
        write_checkpoint(directory, config, params, masters, tokenizer, tokenizer_bytes);
    nd_run_lock_release(lock);
    return status;
}
