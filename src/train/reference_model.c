#include "train/reference_model.h"

#include "train/checkpoint/load_model.h"
#include "train/resume_check.h"

#include <stdlib.h>
#include <string.h>

struct nd_reference_model {
    nd_loaded_model loaded;
    nd_arena activations;
    float *transfer; /* [tokens] */
    double *losses;  /* [tokens] */
};

/* Losses can be compared only if both models use the same tokens. */
static nd_status check_tokens(const nd_config *config, const nd_dataset *data,
                              const nd_loaded_model *l)
{
    ND_FAIL_IF(l->config.model.vocab_size != config->model.vocab_size, ND_ECONFIG,
               "[training] collider_reference: %s has a vocabulary of %lld and the model of this "
               "run one of %lld; the reference must read the same tokens",
               l->directory, (long long)l->config.model.vocab_size,
               (long long)config->model.vocab_size);
    ND_FAIL_IF(l->config.model.max_seq_len < config->training.seq_length, ND_ECONFIG,
               "[training] collider_reference: %s is a model for at most %lld tokens ([model] "
               "max_seq_len) and seq_length = %lld here; the reference must read whole sequences",
               l->directory, (long long)l->config.model.max_seq_len,
               (long long)config->training.seq_length);
    const char *sha = nd_dataset_tokenizer_sha256(data);
    ND_FAIL_IF(l->tokenizer && sha[0] != '\0' &&
                   strcmp(nd_tokenizer_sha256(l->tokenizer), sha) != 0,
               ND_ECONFIG,
               "[training] collider_reference: %s was trained with tokenizer %.12s... and %s is "
               "packed with %.12s...; the reference must read the same tokens",
               l->directory, nd_tokenizer_sha256(l->tokenizer), config->data.data_path, sha);
    return ND_OK;
}

static nd_status prepare(nd_reference_model *r, const nd_config *config, const nd_dataset *data)
{
    nd_model *model = r->loaded.model;
    ND_FAIL_IF(
        nd_resume_is_own(config, r->loaded.directory), ND_ECONFIG,
        "[training] collider_reference: %s lies where this run has its own checkpoints, which "
        "a resumed run would take for the reference; give another --run-dir, or move it away",
        r->loaded.directory);
    ND_TRY(check_tokens(config, data, &r->loaded));
    model->pieces = nd_dataset_vocab_size(data);
    r->transfer = calloc((size_t)model->tokens, sizeof *r->transfer);
    r->losses = calloc((size_t)model->tokens, sizeof *r->losses);
    ND_FAIL_IF(!r->transfer || !r->losses, ND_ENOMEM, "no memory for %lld losses",
               (long long)model->tokens);
    nd_arena_start_sizing(&r->activations, "reference model", r->loaded.backend);
    ND_TRY(nd_model_reserve_activations(model, &r->activations, false));
    ND_TRY(nd_arena_commit(&r->activations));
    return nd_model_reserve_activations(model, &r->activations, false);
}

nd_status nd_reference_model_open(const nd_config *config, nd_comm *comm, const nd_dataset *data,
                                  nd_reference_model **reference)
{
    static const char *const targets[] = {
        [ND_TARGET_AUTO] = "auto", [ND_TARGET_CPU] = "cpu", [ND_TARGET_CUDA] = "cuda"};
    const nd_load_options options = {
        .checkpoint = config->training.collider_reference,
        .target = targets[config->hardware.target],
        .precision = config->hardware.precision == ND_PRECISION_BF16 ? "bf16" : "fp32",
        .threads = config->hardware.threads,
        .activation_quant = true,
        .micro_batch = nd_config_micro_batch(config),
        .seq_length = config->training.seq_length};
    nd_reference_model *r = calloc(1, sizeof *r);
    ND_FAIL_IF(!r, ND_ENOMEM, "no memory for a reference model");
    nd_status status = nd_load_model(&options, comm, &r->loaded);
    ND_IF_OK(prepare(r, config, data));
    ND_RETURN_MADE(status, r, nd_reference_model_close, reference);
}

void nd_reference_model_close(nd_reference_model *r)
{
    if (!r)
        return;
    nd_arena_release(&r->activations);
    nd_loaded_model_release(&r->loaded);
    free(r->transfer);
    free(r->losses);
    free(r);
}

nd_status nd_reference_model_losses(nd_reference_model *r, const int32_t *tokens,
                                    const double **losses)
{
    nd_model *model = r->loaded.model;
    nd_backend *b = r->loaded.backend;
    nd_loss whole;
    ND_TRY(nd_model_evaluate(model, tokens, model->config.micro_batch, &whole));
    ND_TRY(
        b->ops.download(b, r->transfer, model->nll.data, nd_view_bytes(nd_as_const(model->nll))));
    for (int64_t t = 0; t < model->tokens; t++)
        r->losses[t] = (double)r->transfer[t];
    *losses = r->losses;
    return ND_OK;
}

const char *nd_reference_model_directory(const nd_reference_model *r)
{
    return r->loaded.directory;
}
