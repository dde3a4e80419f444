/* Training a tokenizer: sentences out of files, a model out of SentencePiece.
 *
 * A sentence is a line with its newlines, so that pieces such as ";\n" and "}\n\n" can be learned;
 * indentation comes from the runs of spaces at a line's beginning. Text that no piece can stand for
 * (invalid UTF-8, NUL, and the two characters that SentencePiece keeps for itself) ends a sentence
 * and is left out. */
#include "core/base/durable_file.h"
#include "data/sentencepiece_shim.h"
#include "data/text_sources.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SENTENCE_MAX = 4096,
    CHUNK_BYTES = 1 << 14,  /* sampling takes or leaves this much at once */
    RESERVED_PIECES = 259,  /* <unk>, <s>, </s>, 256 bytes */
    SPACE_ESCAPE = 0x2581,  /* SentencePiece's name of a space */
    UNKNOWN_ESCAPE = 0x2585 /* SentencePiece's name of a rare character */
};

typedef struct corpus {
    char *text;
    size_t bytes, capacity;
    size_t at; /* where the next sentence begins */
    int64_t seen, total,
        wanted;   /* sampling: of `total` bytes, `seen` so far, `wanted` to be taken */
    double phase; /* in [0, 1): which chunks a seed takes */
} corpus;

/* Takes a chunk when that keeps what is taken nearest to wanted/total of what was seen. */
static bool takes(corpus *c, size_t chunk)
{
    c->seen += (int64_t)chunk;
    if (c->wanted >= c->total) /* also when the total is unknown, as that of a pipe */
        return (int64_t)(c->bytes + chunk) <= c->wanted;
    const double due = (double)c->seen * (double)c->wanted / (double)c->total;
    return (double)c->bytes + (double)chunk * c->phase <= due &&
           (int64_t)(c->bytes + chunk) <= c->wanted;
}

static nd_status append(corpus *c, const char *text, size_t bytes)
{
    if (c->bytes + bytes > c->capacity) {
        const size_t capacity = 2 * (c->bytes + bytes);
        char *larger = realloc(c->text, capacity);
        if (!larger)
            return ND_FAIL(ND_ENOMEM,
                           "no memory for %zu bytes of text to train on; give a smaller "
                           "--max-bytes",
                           capacity);
        c->text = larger;
        c->capacity = capacity;
    }
    memcpy(c->text + c->bytes, text, bytes);
    c->bytes += bytes;
    return ND_OK;
}

/* Chunks end at a newline where there is one, so that sampling does not break lines. */
static nd_status take_file(void *context, const char *path, int64_t size)
{
    (void)size;
    corpus *c = context;
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    if (!file)
        return ND_FAIL(ND_EDATA, "%s: cannot open this file: %s", path, strerror(errno));
    nd_status status = ND_OK;
    char chunk[CHUNK_BYTES];
    size_t held = 0, got;
    while (status == ND_OK && (got = fread(chunk + held, 1, sizeof chunk - held, file)) > 0) {
        held += got;
        if (held < sizeof chunk)
            continue;
        const char *newline = memrchr(chunk, '\n', held);
        const size_t whole = newline ? (size_t)(newline - chunk) + 1 : held;
        if (takes(c, whole))
            status = append(c, chunk, whole);
        memmove(chunk, chunk + whole, held - whole);
        held -= whole;
    }
    if (status == ND_OK && ferror(file))
        status = ND_FAIL(ND_EDATA, "%s: cannot read this file: %s", path, strerror(errno));
    if (status == ND_OK && held > 0 && takes(c, held))
        status = append(c, chunk, held);
    if (file != stdin)
        fclose(file);
    return status;
}

/* A run of characters up to and with the newlines that end its line. */
static int next_sentence(void *context, const char **text, size_t *bytes)
{
    corpus *c = context;
    size_t start = c->at, at = c->at;
    bool newline = false;
    while (at < c->bytes) {
        uint32_t code = 0;
        const size_t length = nd_utf8_decode(c->text + at, c->bytes - at, &code);
        if (length == 0 || code == 0 || code == SPACE_ESCAPE || code == UNKNOWN_ESCAPE) {
            if (at > start)
                break;
            at += length ? length : 1;
            start = at;
            continue;
        }
        if ((newline && code != '\n') || at - start >= SENTENCE_MAX)
            break;
        newline = code == '\n';
        at += length;
    }
    c->at = at;
    *text = c->text + start;
    *bytes = at - start;
    return at > start;
}

/* SentencePiece's reasons begin with the C++ source line they come from. */
static const char *plain_reason(const char *message)
{
    const char *bracket = strstr(message, "] ");
    const char *reason = bracket ? bracket + 2 : message;
    return *reason ? reason : message;
}

static nd_status train(const nd_tokenizer_train_options *options, corpus *text)
{
    char message[1024] = "";
    void *model = NULL;
    size_t model_bytes = 0;
    if (nd_sentencepiece_train(options->vocab_size, options->threads > 0 ? options->threads : 1,
                               (uint32_t)options->seed, next_sentence, text, &model, &model_bytes,
                               message, sizeof message) != 0) {
        if (strstr(message, "ocabulary size"))
            return ND_FAIL(ND_EDATA,
                           "%s: %zu bytes of text do not fit a vocabulary of %d pieces (%s); "
                           "change --vocab-size or give more text",
                           options->output, text->bytes, options->vocab_size,
                           plain_reason(message));
        return ND_FAIL(ND_EDATA, "%s: SentencePiece could not train on %zu bytes of text: %s",
                       options->output, text->bytes, plain_reason(message));
    }
    nd_tokenizer *check = NULL; /* what is written can be read */
    nd_status status = nd_tokenizer_open_memory(model, model_bytes, options->output, &check);
    nd_tokenizer_close(check);
    if (status == ND_OK)
        status = nd_durable_write(options->output, model, model_bytes);
    free(model);
    return status;
}

nd_status nd_tokenizer_train(const nd_tokenizer_train_options *options)
{
    if (options->vocab_size <= RESERVED_PIECES)
        return ND_FAIL(ND_ECONFIG,
                       "vocabulary size %d; expected more than %d, the pieces every tokenizer has "
                       "(256 bytes and 3 marks)",
                       options->vocab_size, RESERVED_PIECES);
    nd_text_total total;
    ND_TRY(nd_text_sources_total(options->inputs, options->input_count, options->glob, &total));
    corpus text = {.total = total.bytes > 0 ? total.bytes : 1};
    text.wanted = options->max_bytes > 0 ? options->max_bytes : INT64_MAX;
    text.phase = (double)(options->seed * 0x9e3779b97f4a7c15u >> 40) * 0x1p-24;
    nd_status status;
    ND_TRY_GOTO(nd_text_sources_visit(options->inputs, options->input_count, options->glob,
                                      take_file, &text),
                done);
    if (text.bytes == 0) {
        status = ND_FAIL(ND_EDATA, "%s: the inputs (%lld files) hold no text to train on",
                         options->inputs[0], (long long)total.files);
        goto done;
    }
    ND_TRY_GOTO(train(options, &text), done);
done:
    free(text.text);
    return status;
}
