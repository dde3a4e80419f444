#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "data/tokenizer/tokenizer.h"
#include "exchange/hf_model.h"
#include "exchange/import.h"
#include "exchange/ternary_masters.h"
#include "train/checkpoint/checkpoint_files.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/run/run_lock.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char step_name[] = "step_00000000", tensors_name[] = "rank_0000.h5";

typedef struct import {
    nd_hf_model model;
    nd_backend *backend;
    nd_tokenizer *tokenizer;
} import;

/* The values of parameter `index`, f32 [rows, cols]. */
static nd_status read_master(const import *in, int64_t index, float *values)
{
    const nd_param *p = &in->model.params.list[index];
    ND_TRY(nd_hf_model_read(&in->model, index, values));
    if (!in->model.ternary || p->role != ND_ROLE_TERNARY)
        return ND_OK;
    return nd_ternary_masters(in->backend, p->name, values, p->rows, p->cols,
                              nd_model_scale_groups(&in->model.model, p->cols),
                              nd_hf_model_scale(&in->model, index));
}

static nd_status check_new(const char *directory)
{
    nd_checkpoint_steps steps;
    ND_TRY(nd_checkpoint_steps_list(directory, "", &steps));
    free(steps.list);
    return ND_CHECK(steps.count == 0, ND_ECONFIG,
                    "%s: holds %d checkpoints already; name a new run", directory, steps.count);
}

static nd_status write_tensor(const import *in, int64_t index, nd_checkpoint_h5 *file,
                              nd_checkpoint_tensor *t)
{
    const nd_param *p = &in->model.params.list[index];
    const size_t bytes = (size_t)(p->rows * p->cols) * sizeof(float);
    char name[ND_PARAM_NAME_MAX + 16];
    ND_AUTOFREE float *values = malloc(bytes);
    ND_FAIL_IF(!values, ND_ENOMEM, "no memory for %s (%zu bytes)", p->name, bytes);
    *t =
        (nd_checkpoint_tensor){.part = "master", .dtype = ND_F32, .rows = p->rows, .cols = p->cols};
    snprintf(t->param, sizeof t->param, "%s", p->name);
    snprintf(t->file, sizeof t->file, "%s", tensors_name);
    snprintf(name, sizeof name, "/masters/%s", p->name);
    ND_TRY(read_master(in, index, values));
    ND_TRY(nd_checkpoint_h5_write(file, name, nd_cview_of(values, ND_F32, p->rows, p->cols)));
    return nd_sha256_hex(values, bytes, t->checksum);
}

static nd_status write_tensors(const import *in, const char *path, nd_checkpoint *c)
{
    nd_checkpoint_h5 *file = NULL;
    ND_TRY(nd_checkpoint_h5_create(path, &file));
    nd_status status = ND_OK;
    for (; status == ND_OK && c->tensor_count < in->model.params.count; c->tensor_count++)
        status = write_tensor(in, c->tensor_count, file, &c->tensors[c->tensor_count]);
    const nd_status closed = nd_checkpoint_h5_close(file);
    ND_TRY(status != ND_OK ? status : closed);
    return nd_path_sync(path);
}

static nd_status write_files(const import *in, const char *directory, nd_checkpoint *c)
{
    char path[PATH_MAX];
    size_t bytes = 0;
    const void *tokenizer = in->tokenizer ? nd_tokenizer_model(in->tokenizer, &bytes) : NULL;
    c->tensors = calloc((size_t)in->model.params.count, sizeof *c->tensors);
    c->files = calloc(3, sizeof *c->files);
    ND_FAIL_IF(!c->tensors || !c->files, ND_ENOMEM, "no memory for a manifest");
    nd_checkpoint_file *tensors = &c->files[c->file_count++];
    snprintf(tensors->name, sizeof tensors->name, "%s", tensors_name);
    snprintf(path, sizeof path, "%s/%s", directory, tensors_name);
    ND_TRY(write_tensors(in, path, c));
    ND_TRY(nd_file_digest(path, &tensors->bytes, tensors->sha256));
    ND_TRY(nd_checkpoint_add_config(c, directory, &in->model.config));
    if (tokenizer)
        ND_TRY(nd_checkpoint_add_file(c, directory, "tokenizer.model", tokenizer, bytes));
    ND_TRY(nd_checkpoint_add_manifest(c, directory));
    return nd_path_sync(directory);
}

/* Writes DIRECTORY/step_00000000, with masters and no optimizer state, and makes `latest` lead to
 * it, as durably as train/checkpoint/checkpoint.h says. */
static nd_status write_checkpoint(const import *in, const char *directory)
{
    char temporary[PATH_MAX - 64], final[PATH_MAX + sizeof step_name];
    nd_checkpoint c = {.step = 0};
    ND_TRY(check_new(directory));
    ND_FAIL_IF((size_t)snprintf(temporary, sizeof temporary, "%s/.tmp_%s", directory, step_name) >=
                   sizeof temporary,
               ND_EIO, "%.80s...: the path is too long", directory);
    snprintf(final, sizeof final, "%s/%s", directory, step_name);
    ND_TRY(nd_directory_remove(temporary));
    ND_TRY(nd_directory_create(temporary));
    nd_status status = write_files(in, temporary, &c);
    nd_checkpoint_close(&c);
    ND_IF_OK(nd_durable_rename(temporary, final));
    if (status != ND_OK) {
        nd_directory_remove(temporary);
        return status;
    }
    bool unsupported; /* ignored: the newest step is found without the link */
    return nd_checkpoint_latest_write(directory, 0, &unsupported);
}

/* An unusable tokenizer is reported and omitted, because the weights are useful without it. */
static nd_status open_tokenizer(import *in, const char *directory, FILE *out)
{
    nd_status status;
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/tokenizer.model", directory) >= PATH_MAX ||
        access(path, F_OK) != 0) {
        fprintf(out, "note      no tokenizer.model: the checkpoint works on token numbers only\n");
        return ND_OK;
    }
    status = nd_tokenizer_open(path, &in->tokenizer);
    if (status != ND_EDATA)
        ND_TRY(status);
    if (status != ND_OK) {
        fprintf(out, "note      the tokenizer is left out: %s\n", nd_error_get()->message);
        nd_error_clear();
        return ND_OK;
    }
    const int pieces = nd_tokenizer_vocab_size(in->tokenizer);
    return ND_CHECK(pieces <= in->model.config.model.vocab_size, ND_EDATA,
                    "%s: %d pieces, but config.json says vocab_size = %lld", path, pieces,
                    (long long)in->model.config.model.vocab_size);
}

/* A word of a shell's command, in quotes if it needs them. */
static void print_word(FILE *out, const char *before, const char *path, const char *after)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    const bool quoted = path[strspn(path, plain)] != '\0';
    fprintf(out, "%s%s", before, quoted ? "'" : "");
    for (const char *c = path; *c; c++)
        fputs(*c == '\'' ? "'\\''" : (char[]){*c, '\0'}, out);
    fprintf(out, "%s%s", after, quoted ? "'" : "");
}

static void describe(const import *in, const nd_import_options *options, FILE *out)
{
    const nd_model_config *m = &in->model.model;
    fprintf(out, "imported  %s: %s, %lld layer%s x %lld, %.2fM parameters\n", options->from,
            m->arch == ND_ARCH_BITNET ? "bitnet" : "llama", (long long)m->num_layers,
            nd_s(m->num_layers), (long long)m->hidden_dim,
            (double)nd_params_total(&in->model.params) * 1e-6);
    fprintf(out, "weights   %s\n",
            in->model.ternary
                ? "ternary: codes and scales are those of the export"
                : "full precision: they are the masters, and the first step makes them ternary");
    if (fabs(in->model.epsilon - 1e-5) > 1e-12)
        fprintf(out, "note      its norms add %g under the root; here it is 1e-05\n",
                in->model.epsilon);
    fprintf(out, "saved     %s/checkpoints/step_00000000\n", options->run);
    print_word(out, "next      nanochat_dist train --config ", options->run,
               "/checkpoints/latest/config.ini");
    print_word(out, " --data-path DIR --run-dir ", options->run, "");
    fprintf(out, " --resume auto\n");
}

/* An earlier run whose checkpoints are elsewhere, and which the import's would be taken for. */
static nd_status check_no_run(const char *run)
{
    static const char *const names[] = {"config.ini", "metrics.jsonl"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bool exists;
        ND_FAIL_IF(snprintf(path, sizeof path, "%s/%s", run, names[i]) >= PATH_MAX, ND_EIO,
                   "%.80s...: the path is too long", run);
        ND_TRY(nd_path_exists(path, &exists));
        ND_FAIL_IF(exists, ND_ECONFIG, "%s: there is a run already; name a new one", path);
    }
    return ND_OK;
}

static nd_status convert(import *in, const nd_import_options *options, FILE *out)
{
    char directory[PATH_MAX];
    nd_run_lock *lock;
    const nd_cpu_backend_options cpu = {.threads = 0};
    ND_TRY(check_no_run(options->run));
    ND_TRY(nd_cpu_backend_create(&cpu, &in->backend));
    ND_TRY(open_tokenizer(in, options->from, out));
    ND_FAIL_IF(snprintf(directory, sizeof directory, "%s/checkpoints", options->run) >= PATH_MAX,
               ND_EIO, "%.80s...: the path is too long", options->run);
    ND_TRY(nd_run_lock_acquire(directory, &lock));
    const nd_status status = write_checkpoint(in, directory);
    nd_run_lock_release(lock);
    return status;
}

nd_status nd_import_safetensors(const nd_import_options *options, FILE *out)
{
    nd_config defaults;
    struct import in = {.tokenizer = NULL};
    nd_config_defaults(&defaults);
    ND_TRY(nd_config_set_key(&defaults, "data", "data_path", options->data_path, "--data-path"));
    ND_TRY(nd_config_set_key(&defaults, "logging", "run_dir", options->run, "--out"));
    ND_TRY(nd_hf_model_open(options->from, &defaults, &in.model));
    const nd_status status = convert(&in, options, out);
    if (status == ND_OK)
        describe(&in, options, out);
    nd_tokenizer_close(in.tokenizer);
    nd_backend_destroy(in.backend);
    nd_hf_model_close(&in.model);
    return status;
}
