#include "cli/args.h"
#include "cli/cli.h"
#include "core/generate.h"
#include "train/load_model.h"

#include <stdlib.h>
#include <string.h>

typedef struct sample_arguments {
    const char *checkpoint, *prompt, *precision;
    int64_t max_tokens, top_k, seed, threads;
    double temperature;
    bool ids;
} sample_arguments;

static nd_status print_token(const sample_arguments *a, const nd_loaded_model *l, int32_t token)
{
    char *text = NULL;
    size_t bytes = 0;
    if (a->ids || !l->tokenizer) {
        printf("%d ", token);
    } else {
        ND_TRY(nd_tokenizer_decode(l->tokenizer, &token, 1, &text, &bytes));
        fwrite(text, 1, bytes, stdout);
        free(text);
    }
    fflush(stdout);
    return ND_OK;
}

/* The prompt's tokens, after the mark that documents are separated by. */
static nd_status encode_prompt(const sample_arguments *a, const nd_loaded_model *l,
                               int32_t **tokens, size_t *count)
{
    int32_t *encoded = NULL;
    size_t length = 0;
    const int start = l->tokenizer ? nd_tokenizer_eos(l->tokenizer) : 0;
    if (l->tokenizer)
        ND_TRY(nd_tokenizer_encode(l->tokenizer, a->prompt, strlen(a->prompt), &encoded, &length));
    else if (a->prompt[0])
        return ND_FAIL(ND_EDATA, "%s holds no tokenizer, so --prompt cannot be encoded",
                       l->directory);
    int32_t *all = malloc((length + 1) * sizeof *all);
    if (!all) {
        free(encoded);
        return ND_FAIL(ND_ENOMEM, "no memory for a prompt of %zu tokens", length);
    }
    const size_t offset = start >= 0 ? 1 : 0;
    all[0] = start;
    if (length > 0)
        memcpy(all + offset, encoded, length * sizeof *all);
    free(encoded);
    *tokens = all;
    *count = length + offset;
    return *count > 0 ? ND_OK
                      : ND_FAIL(ND_EDATA, "the prompt is empty and the tokenizer has no EOS");
}

static nd_status generate(const sample_arguments *a, const nd_loaded_model *l, nd_generator *g,
                          float *logits)
{
    const nd_sampling sampling = {a->temperature, a->top_k, (uint64_t)a->seed};
    const int end = l->tokenizer ? nd_tokenizer_eos(l->tokenizer) : -1;
    int32_t *tokens = NULL;
    size_t count = 0;
    ND_TRY(encode_prompt(a, l, &tokens, &count));
    nd_status status = nd_generator_feed(g, tokens, (int64_t)count, logits);
    free(tokens);
    if (status != ND_OK)
        return status;
    if (l->tokenizer && !a->ids)
        fputs(a->prompt, stdout);
    for (int64_t i = 0; status == ND_OK && i < a->max_tokens; i++) {
        const int32_t next = nd_sample_token(&sampling, i, logits, l->model->config.vocab_size);
        if (next == end)
            break;
        status = print_token(a, l, next);
        if (status == ND_OK && i + 1 < a->max_tokens && g->length < g->max_tokens)
            status = nd_generator_feed(g, &next, 1, logits);
        else
            break;
    }
    fputc('\n', stdout);
    return status;
}

static nd_status sample(const sample_arguments *a, nd_loaded_model *l)
{
    nd_arena arena = {0};
    nd_generator g = {0};
    nd_status status = ND_OK;
    const int64_t context = l->config.model.max_seq_len;
    float *logits = malloc((size_t)l->config.model.vocab_size * sizeof *logits);
    if (!logits)
        return ND_FAIL(ND_ENOMEM, "no memory for logits");
    nd_arena_start_measuring(&arena, "activations", l->backend);
    ND_TRY_GOTO(nd_generator_take(&g, l->model, context, &arena), done);
    ND_TRY_GOTO(nd_arena_commit(&arena), done);
    ND_TRY_GOTO(nd_generator_take(&g, l->model, context, &arena), done);
    ND_TRY_GOTO(generate(a, l, &g, logits), done);
done:
    nd_generator_destroy(&g);
    nd_arena_release(&arena);
    free(logits);
    return status;
}

nd_status nd_cli_sample(int argc, char **argv)
{
    sample_arguments a = {.prompt = "", .max_tokens = 128, .temperature = 0.8, .top_k = 40};
    const nd_arg args[] = {
        {"--checkpoint", ND_ARG_TEXT, &a.checkpoint, "DIR", "a checkpoint, or a run's directory"},
        {"--prompt", ND_ARG_TEXT, &a.prompt, "TEXT", "what to continue"},
        {"--max-tokens", ND_ARG_INT, &a.max_tokens, "N", "longest continuation (128)"},
        {"--temperature", ND_ARG_DOUBLE, &a.temperature, "T", "0 takes the likeliest token (0.8)"},
        {"--top-k", ND_ARG_INT, &a.top_k, "K", "draw among the K likeliest; 0: all (40)"},
        {"--seed", ND_ARG_INT, &a.seed, "S", "of the draws (0)"},
        {"--precision", ND_ARG_TEXT, &a.precision, "fp32|bf16", "of activations (the run's)"},
        {"--threads", ND_ARG_INT, &a.threads, "N", "threads (all cores)"},
        {"--ids", ND_ARG_FLAG, &a.ids, NULL, "print token numbers instead of text"},
    };
    const nd_command command = {"nanochat_dist sample --checkpoint DIR --prompt TEXT [options]",
                                "Generates text from a checkpoint.", args,
                                sizeof args / sizeof args[0]};
    bool helped;
    ND_TRY(nd_args_parse(&command, argc, argv, NULL, &helped));
    if (helped)
        return ND_OK;
    if (!a.checkpoint)
        return ND_FAIL(ND_ECONFIG, "sample needs --checkpoint DIR (see --help)");
    if (a.temperature < 0.0 || a.top_k < 0 || a.max_tokens < 1)
        return ND_FAIL(ND_ECONFIG,
                       "--temperature and --top-k are not negative, --max-tokens is 1 or "
                       "more; found %g, %lld, %lld",
                       a.temperature, (long long)a.top_k, (long long)a.max_tokens);
    nd_comm *comm = NULL;
    nd_loaded_model *loaded = calloc(1, sizeof *loaded);
    if (!loaded)
        return ND_FAIL(ND_ENOMEM, "no memory for a model");
    nd_status status = nd_comm_create_solo(&comm);
    const nd_load_options options = {.checkpoint = a.checkpoint,
                                     .precision = a.precision,
                                     .threads = a.threads,
                                     .activation_quant = true};
    if (status == ND_OK)
        status = nd_load_model(&options, comm, loaded);
    if (status == ND_OK) {
        status = sample(&a, loaded);
        nd_loaded_model_release(loaded);
    }
    nd_comm_destroy(comm);
    free(loaded);
    return status;
}
