#include "cli/chat.h"

#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat {
    nd_sampler *sampler;
    const nd_chat_options *options;
    bool terminal;
    bool started;
    char *rest; /* end of the last reply that is printed but not in the cache */
} chat;

/* The text fed to the model in a turn, before its reply. */
static nd_status format_turn(const chat *c, const char *line, char **text)
{
    const char *parts[] = {c->rest ? c->rest : "", c->started ? "\n" : c->options->prompt,
                           c->options->user_prefix, line, c->options->reply_prefix};
    size_t bytes = 1;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        bytes += strlen(parts[i]);
    char *at = *text = malloc(bytes);
    ND_FAIL_IF(!at, ND_ENOMEM, "no memory for a turn of %zu bytes", bytes);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        at = stpcpy(at, parts[i]);
    return ND_OK;
}

static bool context_is_full(const chat *c, size_t needed)
{
    const int64_t capacity = nd_sampler_remaining(c->sampler);
    if ((int64_t)needed <= capacity)
        return false;
    fprintf(
        stderr,
        "the context of %lld tokens is full (%lld free, %zu needed): the conversation ends here\n",
        (long long)c->sampler->loaded->config.model.max_seq_len, (long long)capacity, needed);
    return true;
}

static nd_status feed_turn(chat *c, const char *line, bool *full)
{
    const nd_tokenizer *tokenizer = c->sampler->loaded->tokenizer;
    const int32_t mark = nd_sampler_mark(c->sampler);
    ND_AUTOFREE char *text = NULL;
    ND_AUTOFREE int32_t *tokens = NULL;
    size_t count = 0;
    ND_TRY(format_turn(c, line, &text));
    ND_TRY(nd_tokenizer_encode(tokenizer, text, strlen(text), &tokens, &count));
    if (!c->started && mark >= 0)
        ND_TRY(nd_sampler_feed(c->sampler, &mark, 1));
    *full = context_is_full(c, count + 1); /* with a token of the reply */
    if (!*full && count > 0)
        ND_TRY(nd_sampler_feed(c->sampler, tokens, count));
    free(c->rest);
    c->rest = NULL;
    c->started = true;
    return ND_OK;
}

/* Omits the newline that the user has already typed. */
static void show_reply_prefix(const chat *c)
{
    const char *prefix = c->options->reply_prefix;
    if (c->terminal)
        fputs(prefix + (prefix[0] == '\n'), stdout);
}

static nd_status run_turn(chat *c, const char *line, bool *ended)
{
    nd_reply_end end;
    ND_TRY(feed_turn(c, line, ended));
    if (*ended)
        return ND_OK;
    show_reply_prefix(c);
    ND_TRY(nd_sampler_reply(c->sampler, c->options->max_tokens, &end, &c->rest));
    fputc('\n', stdout);
    ND_TRY(nd_cli_flush_output());
    *ended = end == ND_REPLY_FULL && context_is_full(c, 1);
    return ND_OK;
}

nd_status nd_chat(nd_sampler *sampler, const nd_chat_options *options)
{
    chat c = {.sampler = sampler, .options = options, .terminal = isatty(STDIN_FILENO)};
    char *line = NULL;
    size_t capacity = 0;
    long long number = 0; /* of the line */
    bool ended = false;
    nd_status status = ND_OK;
    while (status == ND_OK && !ended) {
        if (c.terminal)
            fputs(options->user_prefix, stdout);
        fflush(stdout);
        const ssize_t bytes = getline(&line, &capacity, stdin);
        if (bytes < 0) {
            status =
                ND_CHECK(!ferror(stdin), ND_EIO, "cannot read standard input: %s", strerror(errno));
            break;
        }
        number++;
        status = ND_CHECK(!memchr(line, '\0', (size_t)bytes), ND_ECONFIG,
                          "standard input, line %lld: a NUL byte, which no text has", number);
        if (bytes > 0 && line[bytes - 1] == '\n')
            line[bytes - 1 - (bytes > 1 && line[bytes - 2] == '\r')] = '\0';
        ND_IF_OK(run_turn(&c, line, &ended));
    }
    if (c.terminal && !ended)
        fputc('\n', stdout);
    free(line);
    free(c.rest);
    return status;
}
