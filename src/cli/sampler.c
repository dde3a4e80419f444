#include "cli/sampler.h"

#include "cli/cli.h"
#include "cli/text_stream.h"
#include "core/base/grow.h"

#include <stdlib.h>
#include <string.h>

enum { RESERVED_MIN = 128 /* tokens: the chunk in which a prompt is computed */ };

static int64_t context_length(const nd_sampler *s)
{
    return s->loaded->config.model.max_seq_len;
}

nd_status nd_sampler_open(nd_sampler *s)
{
    s->logits = malloc((size_t)s->loaded->config.model.vocab_size * sizeof *s->logits);
    return ND_CHECK(s->logits, ND_ENOMEM, "no memory for logits");
}

static nd_status copy_cache(nd_backend *b, const nd_generator *from, nd_generator *to)
{
    for (int64_t l = 0; from->length > 0 && l < from->model->config.num_layers; l++) {
        const size_t bytes =
            nd_view_bytes(nd_cview_rows(nd_as_const(from->keys[l]), 0, from->length));
        ND_TRY(b->ops.copy(b, to->keys[l].data, from->keys[l].data, bytes));
        ND_TRY(b->ops.copy(b, to->values[l].data, from->values[l].data, bytes));
    }
    to->length = from->length;
    return ND_OK;
}

nd_status nd_sampler_reserve(nd_sampler *s, int64_t tokens)
{
    nd_model *model = s->loaded->model;
    ND_CLEANUP(nd_generator_destroy) nd_generator generator = {0};
    ND_CLEANUP(nd_arena_release) nd_arena arena = {0};
    tokens = tokens > RESERVED_MIN ? tokens : RESERVED_MIN;
    tokens = tokens < context_length(s) ? tokens : context_length(s);
    if (tokens <= s->generator.max_tokens)
        return ND_OK;
    nd_arena_start_sizing(&arena, "activations", s->loaded->backend);
    ND_TRY(nd_generator_reserve(&generator, model, tokens, &arena));
    ND_TRY(nd_arena_commit(&arena));
    ND_TRY(nd_generator_reserve(&generator, model, tokens, &arena));
    ND_TRY(copy_cache(s->loaded->backend, &s->generator, &generator));
    const nd_generator before = s->generator;
    const nd_arena memory = s->arena;
    s->generator = generator;
    s->arena = arena;
    generator = before; /* to be released */
    arena = memory;
    return ND_OK;
}

void nd_sampler_close(nd_sampler *s)
{
    nd_generator_destroy(&s->generator);
    nd_arena_release(&s->arena);
    free(s->logits);
    s->logits = NULL;
}

int32_t nd_sampler_mark(const nd_sampler *s)
{
    return s->loaded->tokenizer ? nd_tokenizer_eos(s->loaded->tokenizer) : -1;
}

int64_t nd_sampler_remaining(const nd_sampler *s)
{
    return context_length(s) - s->generator.length;
}

nd_status nd_sampler_feed(nd_sampler *s, const int32_t *tokens, size_t count)
{
    const int64_t held = s->generator.length, all = held + (int64_t)count;
    const long long context = context_length(s);
    ND_FAIL_IF(all > context && held == 0, ND_EDATA,
               "the prompt has %zu tokens, the model's context %lld: shorten the prompt", count,
               context);
    ND_FAIL_IF(all > context, ND_EDATA,
               "%zu further tokens do not fit: %lld of the context's %lld are in use", count,
               (long long)held, context);
    if (all > s->generator.max_tokens)
        ND_TRY(nd_sampler_reserve(s, all > 2 * held ? all : 2 * held));
    if (!s->logits_out)
        return nd_generator_feed(&s->generator, tokens, (int64_t)count, s->logits);
    const size_t row = (size_t)s->loaded->config.model.vocab_size;
    for (size_t i = 0; i < count; i++) {
        ND_TRY(nd_generator_feed(&s->generator, &tokens[i], 1, s->logits));
        ND_TRY(nd_out_file_write(s->logits_out, s->logits, row * sizeof *s->logits));
    }
    return ND_OK;
}

/* A reply's text. Token i ends at byte ends[i] and is number `before` + i of the cache. */
typedef struct reply {
    nd_text_stream stream;
    int64_t before; /* tokens in the cache before the reply */
    size_t *ends;
    char *text;
    size_t bytes, capacity;
} reply;

static nd_status print_token(const nd_sampler *s, reply *r, int64_t index, int32_t token,
                             bool *stopped)
{
    ND_AUTOFREE char *text = NULL;
    size_t bytes = 0;
    *stopped = false;
    if (s->ids || !s->loaded->tokenizer) {
        printf("%d ", token);
        r->ends[index] = 0;
        return nd_cli_flush_output();
    }
    ND_TRY(nd_tokenizer_decode(s->loaded->tokenizer, &token, 1, &text, &bytes));
    ND_TRY(nd_text_stream_put(&r->stream, text, bytes, stopped));
    char *grown = nd_grown(r->text, &r->capacity, r->bytes + bytes + 1, 1);
    ND_FAIL_IF(!grown, ND_ENOMEM, "no memory for generated text");
    r->text = grown;
    memcpy(r->text + r->bytes, text, bytes);
    r->ends[index] = r->bytes += bytes;
    return ND_OK;
}

/* Removes the stop text and what follows it from the cache. */
static nd_status rewind_to_stop(nd_sampler *s, const reply *r, int64_t count, char **rest)
{
    int64_t kept = 0;
    while (kept < count && r->ends[kept] <= r->stream.printed)
        kept++;
    const size_t from = kept > 0 ? r->ends[kept - 1] : 0;
    s->generator.length = r->before + kept;
    if (from == r->stream.printed)
        return ND_OK;
    *rest = strndup(r->text + from, r->stream.printed - from);
    return ND_CHECK(*rest, ND_ENOMEM, "no memory for generated text");
}

static nd_status draw_tokens(nd_sampler *s, reply *r, int64_t max_tokens, nd_reply_end *end,
                             char **rest)
{
    const int32_t mark = nd_sampler_mark(s);
    *end = ND_REPLY_LENGTH;
    for (int64_t i = 0; i < max_tokens; i++) {
        bool stopped = false;
        if (nd_sampler_remaining(s) == 0) {
            *end = ND_REPLY_FULL;
            return ND_OK;
        }
        const int32_t next =
            nd_sample_token(&s->sampling, s->draws++, s->logits, nd_model_pieces(s->loaded->model));
        if (next == mark) {
            *end = ND_REPLY_MARK;
            return ND_OK;
        }
        ND_TRY(print_token(s, r, i, next, &stopped));
        if (stopped) {
            *end = ND_REPLY_STOP;
            return rewind_to_stop(s, r, i + 1, rest);
        }
        ND_TRY(nd_sampler_feed(s, &next, 1));
    }
    return ND_OK;
}

nd_status nd_sampler_reply(nd_sampler *s, int64_t max_tokens, nd_reply_end *end, char **rest)
{
    const int64_t limit =
        max_tokens < nd_sampler_remaining(s) ? max_tokens : nd_sampler_remaining(s);
    reply r = {.stream = {.out = stdout, .stop = s->stop}, .before = s->generator.length};
    *rest = NULL;
    r.ends = calloc((size_t)limit + 1, sizeof *r.ends);
    ND_FAIL_IF(!r.ends, ND_ENOMEM, "no memory for a reply of %lld tokens", (long long)limit);
    const nd_status status = draw_tokens(s, &r, max_tokens, end, rest);
    nd_text_stream_end(&r.stream);
    free(r.ends);
    free(r.text);
    return status;
}
