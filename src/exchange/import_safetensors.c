#include "core/base/directory.h"
#include "data/tokenizer/tokenizer.h"
#include "exchange/checkpoint_of_masters.h"
#include "exchange/hf_model.h"
#include "exchange/import.h"
#include "exchange/ternary_masters.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct import {
    nd_hf_model model;
    nd_backend *backend;
    nd_tokenizer *tokenizer;
} import;

static nd_status read_masters(void *context, int64_t index, float *values)
{
    const import *in = context;
    const nd_param *p = &in->model.params.list[index];
    ND_TRY(nd_hf_model_read(&in->model, index, values));
    if (!in->model.ternary || p->role != ND_ROLE_TERNARY)
        return ND_OK;
    return nd_ternary_masters(in->backend, p->name, values, p->rows, p->cols,
                              nd_model_scale_groups(&in->model.model, p->cols),
                              nd_hf_model_scale(&in->model, index));
}

/* An unusable tokenizer is reported and omitted, because the weights are useful without it. */
static nd_status open_tokenizer(import *in, const char *directory, FILE *out)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/tokenizer.model", directory) >= PATH_MAX ||
        access(path, F_OK) != 0) {
        fprintf(out, "note      no tokenizer.model: the checkpoint works on token numbers only\n");
        return ND_OK;
    }
    if (nd_tokenizer_open(path, &in->tokenizer) != ND_OK) {
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
    size_t bytes = 0;
    const nd_cpu_backend_options cpu = {.threads = 0};
    const nd_masters masters = {read_masters, in};
    ND_TRY(check_no_run(options->run));
    ND_TRY(nd_cpu_backend_create(&cpu, &in->backend));
    ND_TRY(open_tokenizer(in, options->from, out));
    ND_FAIL_IF(snprintf(directory, sizeof directory, "%s/checkpoints", options->run) >= PATH_MAX,
               ND_EIO, "%.80s...: the path is too long", options->run);
    const void *tokenizer = in->tokenizer ? nd_tokenizer_model(in->tokenizer, &bytes) : NULL;
    return nd_checkpoint_of_masters(directory, &in->model.config, &in->model.params, &masters,
                                    tokenizer, bytes);
}

nd_status nd_import_safetensors(const nd_import_options *options, FILE *out)
{
    nd_config *defaults = malloc(sizeof *defaults);
    import *in = calloc(1, sizeof *in);
    nd_status status = ND_OK;
    ND_FAIL_GOTO(!defaults || !in, done, ND_ENOMEM, "no memory for an import");
    nd_config_defaults(defaults);
    ND_TRY_GOTO(nd_config_set_key(defaults, "data", "data_path", options->data_path, "--data-path"),
                done);
    ND_TRY_GOTO(nd_config_set_key(defaults, "logging", "run_dir", options->run, "--out"), done);
    ND_TRY_GOTO(nd_hf_model_open(options->from, defaults, &in->model), done);
    status = convert(in, options, out);
    if (status == ND_OK)
        describe(in, options, out);
    nd_tokenizer_close(in->tokenizer);
    nd_backend_destroy(in->backend);
    nd_hf_model_close(&in->model);
done:
    free(defaults);
    free(in);
    return status;
}
