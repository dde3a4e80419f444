/* Training a tokenizer: reads sentences from files and trains a model with SentencePiece.
 *
 * A sentence is a line with its newlines, so that pieces such as ";\n" and "}\n\n" can be learned;
 * indentation comes from the runs of spaces at a line's beginning. Text that no piece can represent
 * (invalid UTF-8, NUL, and the two characters that SentencePiece reserves) ends a sentence and is
 * left out. */
#include "core/base/durable_file.h"
#include "core/base/grow.h"
#include "data/text/jsonl.h"
#include "data/text/text_input.h"
#include "data/text/text_sources.h"
#include "data/tokenizer/model_file.h"
#include "data/tokenizer/sentencepiece_shim.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SENTENCE_MAX = 4096,
    CHUNK_BYTES = 1 << 14,  /* unit of sampling */
    THREADS_MAX = 127,      /* SentencePiece allows 128; a recorded 127 fits one byte */
    RESERVED_PIECES = 259,  /* <unk>, <s>, </s>, 256 bytes */
    SPACE_ESCAPE = 0x2581,  /* SentencePiece's space */
    UNKNOWN_ESCAPE = 0x2585 /* SentencePiece's rare character */
};

typedef struct corpus {
    char *text;
    size_t bytes, capacity;
    size_t at;                   /* where the next sentence begins */
    int64_t seen, total, wanted; /* bytes read so far, of all inputs, and to be sampled */
    double phase;                /* in [0, 1), from the seed: selects the chunks */
    const nd_tokenizer_train_options *options;
    nd_left_out *left_out;
} corpus;

/* Text of one file, on its way into the corpus. */
typedef struct sampler {
    corpus *corpus;
    char chunk[CHUNK_BYTES];
    size_t held;
    bool has_document;
} sampler;

/* Selects chunks so that the sampled bytes stay close to wanted/total of the bytes seen. */
static bool select_chunk(corpus *c, size_t chunk)
{
    c->seen += (int64_t)chunk;
    if (c->wanted >= c->total) /* also with an unknown total, as for a pipe */
        return (int64_t)(c->bytes + chunk) <= c->wanted;
    const double expected = (double)c->seen * (double)c->wanted / (double)c->total;
    return (double)c->bytes + (double)chunk * c->phase <= expected &&
           (int64_t)(c->bytes + chunk) <= c->wanted;
}

static nd_status append(corpus *c, const char *text, size_t bytes)
{
    char *larger = nd_grown(c->text, &c->capacity, c->bytes + bytes + 1, 1);
    ND_FAIL_IF(!larger, ND_ENOMEM,
               "no memory for %zu bytes of text to train on; give a smaller --max-bytes",
               c->bytes + bytes);
    c->text = larger;
    memcpy(c->text + c->bytes, text, bytes);
    c->bytes += bytes;
    return ND_OK;
}

static nd_status open_text(const corpus *c, const char *path, int named, nd_left_out *left_out,
                           nd_text_reader **reader)
{
    const nd_text_rules rules = {.binary = c->options->binary,
                                 .refuse_jsonl = !c->options->jsonl_field};
    return nd_text_input_open(path, named, &rules, left_out, reader);
}

static nd_status read_lines(const corpus *c, nd_text_reader *reader, nd_jsonl_visit visit,
                            void *context, nd_left_out *left_out)
{
    const nd_jsonl_rules rules = {c->options->jsonl_field, c->options->skip_bad, left_out};
    return nd_jsonl_read(reader, &rules, visit, context);
}

static nd_status count_line(void *context, const nd_text_reader *reader, const char *text,
                            size_t bytes)
{
    (void)reader, (void)text;
    ((corpus *)context)->total += (int64_t)bytes;
    return ND_OK;
}

/* Compressed files and JSON Lines are read to count their text, which sampling is based on. */
static nd_status add_size(void *context, const char *path, int64_t size, int named)
{
    static _Thread_local nd_left_out ignored; /* sample_file counts them */
    corpus *c = context;
    nd_text_reader *reader = NULL;
    char chunk[CHUNK_BYTES];
    if (size < 0) /* a pipe can be read only once */
        return ND_OK;
    ND_TRY(open_text(c, path, named, &ignored, &reader));
    nd_status status = ND_OK;
    const bool lines = reader && c->options->jsonl_field;
    if (lines)
        status = read_lines(c, reader, count_line, c, &ignored);
    else if (reader && !nd_text_reader_is_compressed(reader))
        c->total += size;
    for (size_t got = reader && !lines && nd_text_reader_is_compressed(reader);
         status == ND_OK && got > 0;) {
        status = nd_text_reader_read(reader, chunk, sizeof chunk, &got);
        c->total += (int64_t)got;
    }
    nd_text_reader_close(reader);
    return status;
}

/* Chunks end at a newline where there is one, so that sampling does not break lines. */
static nd_status sample_text(sampler *s, const char *text, size_t bytes)
{
    while (bytes > 0) {
        const size_t room = sizeof s->chunk - s->held, part = bytes < room ? bytes : room;
        memcpy(s->chunk + s->held, text, part);
        s->held += part;
        text += part;
        bytes -= part;
        if (part < room)
            continue;
        const char *newline = memrchr(s->chunk, '\n', s->held);
        const size_t whole = newline ? (size_t)(newline - s->chunk) + 1 : s->held;
        if (select_chunk(s->corpus, whole))
            ND_TRY(append(s->corpus, s->chunk, whole));
        memmove(s->chunk, s->chunk + whole, s->held - whole);
        s->held -= whole;
    }
    return ND_OK;
}

/* NUL ends a sentence, so no piece reaches from one document into the next. */
static nd_status sample_line(void *context, const nd_text_reader *reader, const char *text,
                             size_t bytes)
{
    (void)reader;
    sampler *s = context;
    if (s->has_document)
        ND_TRY(sample_text(s, "", 1));
    s->has_document = true;
    return sample_text(s, text, bytes);
}

static nd_status sample_document(sampler *s, nd_text_reader *reader)
{
    char part[CHUNK_BYTES];
    for (size_t got = 1; got > 0;) {
        ND_TRY(nd_text_reader_read(reader, part, sizeof part, &got));
        ND_TRY(sample_text(s, part, got));
    }
    return ND_OK;
}

static nd_status sample_file(void *context, const char *path, int64_t size, int named)
{
    (void)size;
    corpus *c = context;
    nd_text_reader *reader;
    ND_TRY(open_text(c, path, named, c->left_out, &reader));
    if (!reader)
        return ND_OK;
    sampler s = {.corpus = c};
    nd_status status = c->options->jsonl_field ? read_lines(c, reader, sample_line, &s, c->left_out)
                                               : sample_document(&s, reader);
    if (status == ND_OK && s.held > 0 && select_chunk(c, s.held))
        status = append(c, s.chunk, s.held);
    nd_text_reader_close(reader);
    return status;
}

/* The next sentence: characters up to and including the newlines that end the line. */
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

/* Removes the C++ source line with which SentencePiece's messages begin. */
static const char *strip_source_line(const char *message)
{
    const char *bracket = strstr(message, "] ");
    const char *reason = bracket ? bracket + 2 : message;
    return *reason ? reason : message;
}

static const char nothing_usable[] = "they hold no character that can be learned (NUL, U+2581, "
                                     "U+2585 and bytes that are not UTF-8 cannot)";

static nd_status train(const nd_tokenizer_train_options *options, corpus *text)
{
    char message[1024] = "";
    ND_AUTOFREE void *model = NULL;
    size_t model_bytes = 0;
    const int limit = options->threads < THREADS_MAX ? options->threads : THREADS_MAX;
    const int threads = limit > 0 ? limit : 1;
    const int trained =
        nd_sentencepiece_train(options->vocab_size, threads, (uint32_t)options->seed, next_sentence,
                               text, &model, &model_bytes, message, sizeof message);
    ND_FAIL_IF(trained == ND_SENTENCEPIECE_NO_MEMORY, ND_ENOMEM,
               "%s: SentencePiece has no memory to train on %zu bytes of text; give a smaller "
               "--max-bytes",
               options->output, text->bytes);
    if (trained != 0) {
        const char *few = strstr(message, " vs "), *many = strstr(message, "a value <= ");
        int pieces = 0;
        ND_FAIL_IF(few && sscanf(few, " vs %d", &pieces) == 1, ND_EDATA,
                   "%s: the text has too many different characters for a vocabulary of %d pieces; "
                   "give --vocab-size %d or more",
                   options->output, options->vocab_size, pieces);
        ND_FAIL_IF(many && sscanf(many, "a value <= %d", &pieces) == 1, ND_EDATA,
                   "%s: %zu bytes of text do not fill a vocabulary of %d pieces; give --vocab-size "
                   "%d or less, or more text",
                   options->output, text->bytes, options->vocab_size, pieces);
        return ND_FAIL(ND_EDATA, "%s: SentencePiece could not train on %zu bytes of text: %s",
                       options->output, text->bytes,
                       strstr(message, "sentences_.empty()") ? nothing_usable
                                                             : strip_source_line(message));
    }
    nd_model_file_normalize_threads(model, model_bytes);
    nd_tokenizer *check = NULL; /* the model must be readable before it is written */
    ND_TRY(nd_tokenizer_open_memory(model, model_bytes, options->output, &check));
    nd_tokenizer_close(check);
    return nd_durable_write(options->output, model, model_bytes);
}

/* An input with its sort key. */
typedef struct input {
    const char *given;
    char *real; /* its resolved path, or the given one where that fails */
} input;

/* The order of a directory walk: '/' sorts before all other characters. */
static int compare_paths(const void *a, const void *b)
{
    const unsigned char *x = (const unsigned char *)((const input *)a)->real;
    const unsigned char *y = (const unsigned char *)((const input *)b)->real;
    while (*x && *x == *y)
        x++, y++;
    const int left = *x == '/' && *y ? 1 : *x, right = *y == '/' && *x ? 1 : *y;
    return left - right;
}

/* Sorts inputs, so that their order and spelling do not matter. The caller frees *sorted. */
static nd_status sort_inputs(const nd_tokenizer_train_options *options, const char ***sorted)
{
    const size_t count = (size_t)options->input_count;
    input *inputs = calloc(count, sizeof *inputs);
    *sorted = calloc(count, sizeof **sorted);
    bool ok = inputs && *sorted;
    for (size_t i = 0; ok && i < count; i++) {
        inputs[i].given = options->inputs[i];
        inputs[i].real = realpath(inputs[i].given, NULL);
        if (!inputs[i].real) /* standard input, or refused later */
            inputs[i].real = strdup(inputs[i].given);
        ok = inputs[i].real != NULL;
    }
    if (ok)
        qsort(inputs, count, sizeof *inputs, compare_paths);
    for (size_t i = 0; inputs && i < count; i++) {
        if (ok)
            (*sorted)[i] = inputs[i].given;
        free(inputs[i].real);
    }
    free(inputs);
    return ND_CHECK(ok, ND_ENOMEM, "no memory for a list of %zu inputs", count);
}

static nd_status read_corpus(const nd_tokenizer_train_options *options, corpus *text)
{
    ND_AUTOFREE const char **sorted = NULL;
    ND_TRY(sort_inputs(options, &sorted));
    const nd_text_sources sources = {sorted, options->input_count, options->glob, NULL};
    ND_TRY(nd_text_sources_visit(&sources, add_size, text, NULL));
    text->total = text->total > 0 ? text->total : 1;
    ND_TRY(nd_text_sources_visit(&sources, sample_file, text, text->left_out));
    ND_FAIL_IF(text->bytes == 0 && options->max_bytes > 0 && text->total > options->max_bytes,
               ND_EDATA, "%s: nothing of this text fits the %lld bytes of --max-bytes; give more",
               sorted[0], (long long)options->max_bytes);
    return text->bytes == 0 ? nd_text_sources_fail_empty(&sources, "train on") : ND_OK;
}

/* Refuses to overwrite other files: --output may name the corpus by mistake. */
static nd_status prepare_output_file(const char *path)
{
    struct stat info;
    nd_tokenizer *existing;
    ND_TRY(nd_durable_check(path, NULL, NULL));
    ND_TRY(nd_durable_prepare(path));
    if (stat(path, &info) != 0 || info.st_size == 0)
        return ND_OK;
    const nd_status opened = nd_tokenizer_open(path, &existing);
    if (opened != ND_OK) {
        ND_TRY(nd_error_tolerate(opened));
        return ND_FAIL(ND_ECONFIG,
                       "%s: this file is not a tokenizer and is not replaced by one; move it "
                       "elsewhere, or give --output another name",
                       path);
    }
    nd_tokenizer_close(existing);
    return ND_OK;
}

nd_status nd_tokenizer_train(const nd_tokenizer_train_options *options, nd_left_out *left_out)
{
    static _Thread_local nd_left_out ignored;
    ND_FAIL_IF(options->vocab_size <= RESERVED_PIECES, ND_ECONFIG,
               "vocabulary size %d; expected more than %d, the pieces every tokenizer has (256 "
               "bytes and 3 marks)",
               options->vocab_size, RESERVED_PIECES);
    ND_TRY(prepare_output_file(options->output));
    corpus text = {.options = options, .left_out = left_out ? left_out : &ignored};
    text.wanted = options->max_bytes > 0 ? options->max_bytes : INT64_MAX;
    text.phase = (double)(options->seed * 0x9e3779b97f4a7c15u >> 40) * 0x1p-24;
    nd_status status = read_corpus(options, &text);
    ND_IF_OK(train(options, &text));
    free(text.text);
    return status;
}
