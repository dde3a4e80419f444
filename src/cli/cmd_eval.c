#include "cli/args.h"
#include "cli/cli.h"
#include "data/text/json.h"
#include "train/checkpoint/load_model.h"
#include "train/evaluate.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

typedef struct eval_arguments {
    const char *checkpoint, *data_path, *split, *precision;
    int64_t samples, threads;
    bool no_activation_quant, json;
} eval_arguments;

static nd_status open_dataset(const eval_arguments *a, const nd_loaded_model *l, nd_dataset **data)
{
    const bool synthetic = !a->data_path && l->config.data.dataset == ND_DATASET_SYNTHETIC;
    const nd_dataset_options options = {
        .synthetic = synthetic,
        .path = a->data_path ? a->data_path : l->config.data.data_path,
        .split = a->split,
        .seq_length = l->config.training.seq_length,
        .vocab_size = l->config.model.vocab_size,
        .tokenizer_sha256 = l->tokenizer ? nd_tokenizer_sha256(l->tokenizer) : NULL,
        .n_samples = l->config.data.n_samples,
        .seed = (uint64_t)l->config.training.seed,
    };
    const nd_status status = nd_dataset_open(&options, data);
    if (status != ND_EDATA || a->data_path)
        return status;
    const nd_error error = *nd_error_get();
    nd_error_clear();
    return ND_FAIL(status,
                   "%.1500s (that is data_path in %.300s/config.ini; --data-path names another)",
                   error.message, l->directory);
}

static nd_status evaluate(const eval_arguments *a, nd_comm *comm, nd_loaded_model *l,
                          nd_evaluation *result)
{
    ND_CLEANUP(nd_arena_release) nd_arena activations = {0};
    nd_dataset *data = NULL;
    ND_TRY(open_dataset(a, l, &data));
    if (!l->tokenizer)
        l->model->pieces = nd_dataset_vocab_size(data);
    nd_arena_start_sizing(&activations, "activations", l->backend);
    nd_status status = nd_model_reserve_activations(l->model, &activations, false);
    ND_IF_OK(nd_arena_commit(&activations));
    ND_IF_OK(nd_model_reserve_activations(l->model, &activations, false));
    ND_IF_OK(nd_evaluate(l->model, data, comm, a->samples, result));
    nd_dataset_close(data);
    ND_TRY(status);
    return ND_CHECK(
        isfinite(result->loss), ND_ENUMERIC,
        "%s: the loss is %g: the weights hold NaN or infinite values, or too large ones",
        l->directory, result->loss);
}

static nd_status print_json(const eval_arguments *a, const nd_loaded_model *l,
                            const nd_evaluation *e)
{
    json_error_t error;
    json_auto_t *o =
        json_pack_ex(&error, 0, "{s:s%,s:I,s:s,s:f,s:f,s:I,s:I}", "checkpoint", l->directory,
                     strlen(l->directory), "step", (json_int_t)l->step, "split", a->split,
                     "val_loss", e->loss, "val_bpb", e->bits_per_byte, "tokens",
                     (json_int_t)e->tokens, "sequences", (json_int_t)e->sequences);
    ND_FAIL_IF(!o && json_error_code(&error) == json_error_invalid_utf8, ND_ENUMERIC,
               "%s: cannot be written as JSON: the name is not UTF-8", l->directory);
    ND_AUTOFREE char *text = nd_json_text(o, JSON_COMPACT | JSON_REAL_PRECISION(17));
    ND_FAIL_IF(!text, ND_ENOMEM, "no memory for the result as JSON");
    puts(text);
    return ND_OK;
}

static nd_status print(const eval_arguments *a, const nd_loaded_model *l, const nd_evaluation *e)
{
    if (a->json)
        return print_json(a, l, e);
    printf("checkpoint  %s (step %lld)\n", l->directory, (long long)l->step);
    printf("split       %s: %lld sequences, %lld tokens\n", a->split, (long long)e->sequences,
           (long long)e->tokens);
    printf("loss        %.6f nats per token\n", e->loss);
    if (e->bits_per_byte > 0.0)
        printf("bits/byte   %.6f\n", e->bits_per_byte);
    return ND_OK;
}

nd_status nd_cli_eval(int argc, char **argv)
{
    eval_arguments a = {.split = "val"};
    const nd_arg args[] = {
        {"--checkpoint", ND_ARG_TEXT, &a.checkpoint, "DIR", "a checkpoint, or a run's directory"},
        {"--data-path", ND_ARG_TEXT, &a.data_path, "DIR", "packed shards (the run's own)"},
        {"--split", ND_ARG_TEXT, &a.split, "val|train", "which split (val)"},
        {"--samples", ND_ARG_INT, &a.samples, "N", "first N sequences (0: all)"},
        {"--precision", ND_ARG_TEXT, &a.precision, "fp32|bf16", "type of activations (the run's)"},
        {"--threads", ND_ARG_INT, &a.threads, "N", "threads (a share of the cores)"},
        {"--no-activation-quant", ND_ARG_FLAG, &a.no_activation_quant, NULL,
         "leave activations unquantized"},
        {"--json", ND_ARG_FLAG, &a.json, NULL, "print one JSON object"},
    };
    const nd_command command = {"nanochat_dist eval --checkpoint DIR [--data-path DIR] [options]",
                                "Held-out loss and bits per byte of a checkpoint.", args,
                                sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(!a.checkpoint, ND_ECONFIG, "eval needs --checkpoint DIR (see --help)");
    ND_FAIL_IF(strcmp(a.split, "val") != 0 && strcmp(a.split, "train") != 0, ND_ECONFIG,
               "--split: '%.40s' is neither val nor train", a.split);
    nd_comm *comm = NULL;
    nd_loaded_model loaded = {0};
    nd_evaluation result = {0};
    ND_TRY(nd_comm_create(&comm));
    const nd_load_options options = {.checkpoint = a.checkpoint,
                                     .precision = a.precision,
                                     .threads = a.threads,
                                     .activation_quant = !a.no_activation_quant};
    nd_status status = nd_comm_agree(comm, nd_load_model(&options, comm, &loaded));
    ND_IF_OK(nd_comm_agree(comm, evaluate(&a, comm, &loaded, &result)));
    if (comm->rank == 0)
        ND_IF_OK(print(&a, &loaded, &result));
    nd_loaded_model_release(&loaded);
    return nd_cli_shutdown(comm, status);
}
