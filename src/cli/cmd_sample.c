#include "cli/args.h"
#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/sampler.h"
#include "core/base/close.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct sample_arguments {
    const char *checkpoint, *prompt, *precision, *stop, *user_prefix, *reply_prefix, *logits;
    int64_t max_tokens, top_k, seed, threads;
    double temperature;
    bool ids, chat, no_activation_quant;
} sample_arguments;

/* The prompt's tokens after the document separator. */
static nd_status encode_prompt(const sample_arguments *a, const nd_loaded_model *l,
                               int32_t **tokens, size_t *count)
{
    ND_AUTOFREE int32_t *encoded = NULL;
    size_t length = 0;
    const int start = l->tokenizer ? nd_tokenizer_eos(l->tokenizer) : 0;
    if (l->tokenizer)
        ND_TRY(nd_tokenizer_encode(l->tokenizer, a->prompt, strlen(a->prompt), &encoded, &length));
    else if (a->prompt[0])
        return ND_FAIL(ND_EDATA, "%s holds no tokenizer, so --prompt cannot be encoded",
                       l->directory);
    *tokens = malloc((length + 1) * sizeof **tokens);
    ND_FAIL_IF(!*tokens, ND_ENOMEM, "no memory for a prompt of %zu tokens", length);
    const size_t offset = start >= 0 ? 1 : 0;
    (*tokens)[0] = start;
    if (length > 0)
        memcpy(*tokens + offset, encoded, length * sizeof **tokens);
    *count = length + offset;
    return ND_CHECK(*count > 0, ND_EDATA, "the prompt is empty and the tokenizer has no EOS");
}

static nd_status generate(const sample_arguments *a, nd_sampler *s)
{
    ND_AUTOFREE int32_t *tokens = NULL;
    ND_AUTOFREE char *rest = NULL;
    size_t count = 0;
    nd_reply_end end;
    ND_TRY(encode_prompt(a, s->loaded, &tokens, &count));
    const int64_t limit = INT64_MAX - (int64_t)count;
    ND_TRY(nd_sampler_reserve(s, (int64_t)count + (a->max_tokens < limit ? a->max_tokens : limit)));
    ND_TRY(nd_sampler_feed(s, tokens, count));
    if (s->loaded->tokenizer && !a->ids)
        fputs(a->prompt, stdout);
    const nd_status replied = nd_sampler_reply(s, a->max_tokens, &end, &rest);
    fputc('\n', stdout);
    return replied;
}

/* The default stop text is the user prefix: there the model would begin the user's next turn. */
static nd_status run_chat(const sample_arguments *a, nd_sampler *s)
{
    const nd_chat_options options = {a->prompt, a->user_prefix, a->reply_prefix, a->max_tokens};
    ND_AUTOFREE char *stop = NULL;
    ND_FAIL_IF(!s->loaded->tokenizer || a->ids, ND_ECONFIG, "--chat needs text: %s",
               a->ids ? "leave --ids out" : "the checkpoint holds no tokenizer");
    if (!s->stop) {
        size_t bytes = strlen(a->user_prefix);
        while (bytes > 0 && a->user_prefix[bytes - 1] == ' ')
            bytes--;
        if (bytes > 0 && asprintf(&stop, "\n%.*s", (int)bytes, a->user_prefix) < 0) {
            stop = NULL;
            return ND_FAIL(ND_ENOMEM, "no memory for the text that ends a reply");
        }
        s->stop = stop;
    }
    return nd_chat(s, &options);
}

/* Whether these may be logits: numbers of an ordinary size, or minus infinity for no piece, that
 * are not all the same. */
static bool is_row_of_logits(const float *row, int64_t count)
{
    bool same = true;
    for (int64_t i = 0; i < count; i++) {
        const float size = fabsf(row[i]);
        if (!(size < 1e5F || row[i] == -INFINITY) || (size > 0 && size < 1e-25F))
            return false;
        same &= row[i] == row[0];
    }
    return !same;
}

/* The file has no mark of its own: its size and its numbers tell it from others. */
static nd_status check_logits(const char *path, int64_t vocabulary)
{
    const size_t bytes = (size_t)vocabulary * sizeof(float);
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0)
        return ND_OK;
    bool ours = (size_t)info.st_size % bytes == 0;
    ND_AUTOFREE float *row = malloc(bytes);
    ND_FAIL_IF(!row, ND_ENOMEM, "no memory for %lld logits", (long long)vocabulary);
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "rbe");
    ND_FAIL_IF(!file, ND_EIO, "%s: cannot read this file, which may hold logits to replace: %s",
               path, strerror(errno));
    for (int64_t left = info.st_size / (int64_t)bytes; ours && left > 0; left--)
        ours = fread(row, 1, bytes, file) == bytes && is_row_of_logits(row, vocabulary);
    return ND_CHECK(ours, ND_ECONFIG,
                    "%s: this file holds no logits of %lld tokens and is not replaced; move it "
                    "elsewhere, or give another name",
                    path, (long long)vocabulary);
}

static nd_status sample(const sample_arguments *a, const nd_loaded_model *l)
{
    ND_FAIL_IF(a->ids && a->stop && a->stop[0], ND_ECONFIG,
               "--stop ends text, and --ids prints none: leave --ids out, or --stop");
    nd_sampler s = {.loaded = l,
                    .sampling = {a->temperature, a->top_k, (uint64_t)a->seed},
                    .ids = a->ids,
                    .stop = a->stop};
    if (a->logits) {
        ND_TRY(check_logits(a->logits, l->config.model.vocab_size));
        ND_TRY(nd_out_file_create(a->logits, &s.logits_out));
    }
    nd_status status = nd_sampler_open(&s);
    ND_IF_OK(a->chat ? run_chat(a, &s) : generate(a, &s));
    nd_sampler_close(&s);
    if (s.logits_out && status == ND_OK)
        return nd_out_file_finish(s.logits_out, 0);
    nd_out_file_discard(s.logits_out);
    return status;
}

static nd_status load_and_sample(const sample_arguments *a)
{
    nd_comm *comm = NULL;
    nd_loaded_model loaded = {0};
    nd_status status = nd_comm_create_solo(&comm);
    const nd_load_options options = {.checkpoint = a->checkpoint,
                                     .precision = a->precision,
                                     .threads = a->threads,
                                     .activation_quant = !a->no_activation_quant};
    ND_IF_OK(nd_load_model(&options, comm, &loaded));
    ND_IF_OK(sample(a, &loaded));
    nd_loaded_model_release(&loaded);
    nd_comm_destroy(comm);
    return status;
}

nd_status nd_cli_sample(int argc, char **argv)
{
    sample_arguments a = {.prompt = "",
                          .user_prefix = "User: ",
                          .reply_prefix = "\nAssistant:",
                          .max_tokens = 128,
                          .temperature = 0.8,
                          .top_k = 40};
    const nd_arg args[] = {
        {"--checkpoint", ND_ARG_TEXT, &a.checkpoint, "DIR", "a checkpoint, or a run's directory"},
        {"--prompt", ND_ARG_TEXT_OR_EMPTY, &a.prompt, "TEXT", "what to continue"},
        {"--max-tokens", ND_ARG_INT, &a.max_tokens, "N", "longest continuation (128)"},
        {"--temperature", ND_ARG_DOUBLE, &a.temperature, "T",
         "0 always takes the most likely token (0.8)"},
        {"--top-k", ND_ARG_INT, &a.top_k, "K", "draw among the K most likely tokens; 0: all (40)"},
        {"--seed", ND_ARG_INT, &a.seed, "S", "seed of the draws (0)"},
        {"--precision", ND_ARG_TEXT, &a.precision, "fp32|bf16", "type of activations (the run's)"},
        {"--threads", ND_ARG_INT, &a.threads, "N", "threads (all cores)"},
        {"--stop", ND_ARG_TEXT_OR_EMPTY, &a.stop, "TEXT",
         "stop before this text (--chat: a new line and the user's prefix)"},
        {"--chat", ND_ARG_FLAG, &a.chat, NULL,
         "hold a conversation: reply to each line of standard input; --prompt precedes it"},
        {"--user-prefix", ND_ARG_TEXT_OR_EMPTY, &a.user_prefix, "TEXT",
         "--chat: precedes your line ('User: ')"},
        {"--reply-prefix", ND_ARG_TEXT_OR_EMPTY, &a.reply_prefix, "TEXT",
         "--chat: precedes the reply (a new line and 'Assistant:')"},
        {"--no-activation-quant", ND_ARG_FLAG, &a.no_activation_quant, NULL,
         "leave activations unquantized"},
        {"--logits", ND_ARG_TEXT, &a.logits, "FILE",
         "write the logits after each token, the prompt's too: float32 [tokens, vocab_size]"},
        {"--ids", ND_ARG_FLAG, &a.ids, NULL, "print token numbers instead of text"},
    };
    const nd_command command = {"nanochat_dist sample --checkpoint DIR --prompt TEXT [options]",
                                "Generates text from a checkpoint.", args,
                                sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(!a.checkpoint, ND_ECONFIG, "sample needs --checkpoint DIR (see --help)");
    ND_FAIL_IF(a.temperature < 0.0 || a.top_k < 0 || a.max_tokens < 1, ND_ECONFIG,
               "--temperature and --top-k are not negative, --max-tokens is 1 or more; found %g, "
               "%lld, %lld",
               a.temperature, (long long)a.top_k, (long long)a.max_tokens);
    return load_and_sample(&a);
}
