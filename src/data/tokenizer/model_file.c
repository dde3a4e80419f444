#include "data/tokenizer/model_file.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char space_escape[] = "\xe2\x96\x81"; /* U+2581, how SentencePiece writes a space */

enum { MODEL_TYPE_UNIGRAM = 1, MODEL_TYPE_BPE = 2, MAX_PIECES = 1 << 24, SCORE_BYTES = 4 };
enum {
    TRAINER_SPEC = 2,
    NUM_THREADS = 16,
    DEFAULT_THREADS = 2
}; /* field numbers; the default of `tokenizer train` */

/* A protobuf message being read. */
typedef struct wire {
    const uint8_t *at, *end;
} wire;

typedef struct field {
    uint32_t number;
    uint64_t varint; /* wire types 0, 1 and 5 */
    wire bytes;      /* wire type 2 */
} field;

static bool read_varint(wire *message, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && message->at < message->end; shift += 7) {
        const uint8_t byte = *message->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool read_fixed(wire *message, int bytes, uint64_t *value)
{
    if (message->end - message->at < bytes)
        return false;
    *value = 0;
    for (int i = 0; i < bytes; i++)
        *value |= (uint64_t)*message->at++ << (8 * i);
    return true;
}

/* False if the message is damaged. The caller checks for its end. */
static bool read_field(wire *message, field *f)
{
    uint64_t key;
    if (!read_varint(message, &key) || key >> 3 == 0 || key >> 3 > 1u << 29)
        return false;
    f->number = (uint32_t)(key >> 3);
    f->varint = 0;
    f->bytes = (wire){message->end, message->end};
    uint64_t length;
    switch (key & 7) {
    case 0:
        return read_varint(message, &f->varint);
    case 1:
        return read_fixed(message, 8, &f->varint);
    case 5:
        return read_fixed(message, 4, &f->varint);
    case 2:
        if (!read_varint(message, &length) || length > (uint64_t)(message->end - message->at))
            return false;
        f->bytes = (wire){message->at, message->at + length};
        message->at += length;
        return true;
    default:
        return false;
    }
}

static nd_status damaged(const char *name, const char *part)
{
    return ND_FAIL(ND_EDATA,
                   "%s: not a SentencePiece model, or a damaged one: its %s cannot be read", name,
                   part);
}

/* Value of the last varint field `number`, or `fallback`. */
static nd_status read_number(wire message, uint32_t number, uint64_t fallback, const char *name,
                             const char *part, uint64_t *value)
{
    *value = fallback;
    while (message.at < message.end) {
        field f;
        if (!read_field(&message, &f))
            return damaged(name, part);
        if (f.number == number)
            *value = f.varint;
    }
    return ND_OK;
}

static nd_status check_trainer(wire message, const char *name)
{
    uint64_t type;
    ND_TRY(read_number(message, 3, MODEL_TYPE_UNIGRAM, name, "trainer_spec", &type));
    return ND_CHECK(type == MODEL_TYPE_BPE, ND_EDATA,
                    "%s: a SentencePiece model of type %s; expected type BPE (train one with "
                    "`nanochat_dist tokenizer train`)",
                    name, type == MODEL_TYPE_UNIGRAM ? "unigram" : "word or char");
}

static nd_status check_normalizer(wire message, const char *name)
{
    while (message.at < message.end) {
        field f;
        if (!read_field(&message, &f))
            return damaged(name, "normalizer_spec");
        ND_FAIL_IF(
            f.number == 2 && f.bytes.at < f.bytes.end, ND_EDATA,
            "%s: this model rewrites text before it splits it (precompiled_charsmap of %td bytes), "
            "so decoding would not give the text back; expected identity normalization",
            name, f.bytes.end - f.bytes.at);
    }
    return ND_OK;
}

/* The byte that a name such as "<0x0A>" stands for, or -1. */
static int byte_from_name(const uint8_t *text, size_t bytes)
{
    unsigned value;
    char copy[7] = {0};
    if (bytes != 6)
        return -1;
    memcpy(copy, text, 6);
    return sscanf(copy, "<0x%2X>", &value) == 1 && copy[5] == '>' ? (int)value : -1;
}

/* Writes the text of a piece to `text`, which is as long as its name; returns its length. */
static uint32_t decode_piece_name(const wire *text_field, char *text)
{
    uint32_t bytes = 0;
    for (const uint8_t *c = text_field->at; c < text_field->end;) {
        if (text_field->end - c >= 3 && memcmp(c, space_escape, 3) == 0) {
            text[bytes++] = ' ';
            c += 3;
        } else {
            text[bytes++] = (char)*c++;
        }
    }
    return bytes;
}

typedef struct piece_fields {
    wire text;
    uint64_t type;
    float score;
} piece_fields;

static nd_status read_piece(wire message, const char *name, piece_fields *p)
{
    *p = (piece_fields){.text = {message.end, message.end}, .type = ND_PIECE_NORMAL};
    while (message.at < message.end) {
        field f;
        if (!read_field(&message, &f))
            return damaged(name, "list of pieces");
        if (f.number == 1) {
            p->text = f.bytes;
        } else if (f.number == 2) {
            const uint32_t bits = (uint32_t)f.varint;
            memcpy(&p->score, &bits, SCORE_BYTES);
        } else if (f.number == 3) {
            p->type = f.varint;
        }
    }
    return ND_OK;
}

static nd_status parse_piece(wire message, const char *name, nd_model_file *model, char **storage)
{
    const int token = model->count;
    piece_fields read;
    ND_TRY(read_piece(message, name, &read));
    const wire text = read.text;
    const uint64_t type = read.type;
    const float score = read.score;
    ND_FAIL_IF(text.at == text.end || isnan(score), ND_EDATA,
               "%s: piece %d has %s; the file is damaged", name, token,
               isnan(score) ? "a score that is not a number" : "no text");
    nd_piece *piece = &model->pieces[token];
    const size_t length = (size_t)(text.end - text.at);
    *piece = (nd_piece){.text = *storage,
                        .name = (const char *)text.at,
                        .name_bytes = (uint32_t)length,
                        .score = score,
                        .type = (nd_piece_type)type};
    switch (type) {
    case ND_PIECE_BYTE: {
        const int byte = byte_from_name(text.at, length);
        ND_FAIL_IF(byte < 0, ND_EDATA,
                   "%s: byte piece %d is named '%.*s'; expected a name like <0x0A>", name, token,
                   (int)length, (const char *)text.at);
        piece->text[0] = (char)byte;
        piece->bytes = 1;
        model->byte_pieces[byte] = token;
        break;
    }
    case ND_PIECE_CONTROL:
        if (length == 3 && memcmp(text.at, "<s>", 3) == 0)
            model->bos = token;
        if (length == 4 && memcmp(text.at, "</s>", 4) == 0)
            model->eos = token;
        break;
    case ND_PIECE_UNKNOWN:
        break;
    case ND_PIECE_NORMAL:
        piece->bytes = decode_piece_name(&text, piece->text);
        break;
    default:
        return ND_FAIL(ND_EDATA,
                       "%s: piece %d has type %llu; expected normal (1), unknown (2), control (3) "
                       "or byte (6)",
                       name, token, (unsigned long long)type);
    }
    *storage += piece->bytes;
    model->count++;
    return ND_OK;
}

/* Counts the pieces and checks the settings, so that the second pass can allocate once. */
static nd_status scan(wire message, const char *name, int *pieces)
{
    wire trainer = {NULL, NULL}, normalizer = {NULL, NULL};
    *pieces = 0;
    while (message.at < message.end) {
        field f;
        if (!read_field(&message, &f) || *pieces == MAX_PIECES)
            return damaged(name, "outer message");
        if (f.number == 1)
            ++*pieces;
        else if (f.number == 2)
            trainer = f.bytes;
        else if (f.number == 3)
            normalizer = f.bytes;
    }
    ND_FAIL_IF(*pieces == 0 || !trainer.at || !normalizer.at, ND_EDATA,
               "%s: not a SentencePiece model, or a truncated one: it holds no %s", name,
               *pieces == 0  ? "pieces"
               : !trainer.at ? "trainer_spec"
                             : "normalizer_spec");
    ND_TRY(check_trainer(trainer, name));
    return check_normalizer(normalizer, name);
}

/* What `message` holds, scanned before; `storage` has room for all texts. */
static nd_status parse_pieces(wire message, const char *name, nd_model_file *model, char *storage)
{
    while (message.at < message.end) {
        field f;
        if (!read_field(&message, &f))
            break; /* not reached: scan() has read it all */
        if (f.number == 1)
            ND_TRY(parse_piece(f.bytes, name, model, &storage));
    }
    for (int i = 0; i < 256; i++)
        ND_FAIL_IF(model->byte_pieces[i] < 0, ND_EDATA,
                   "%s: byte piece <0x%02X> is missing; expected a model with byte fallback, which "
                   "all 256 make possible",
                   name, i);
    return ND_OK;
}

nd_status nd_model_file_parse(const void *bytes, size_t size, const char *name,
                              nd_model_file *model)
{
    *model = (nd_model_file){.bos = -1, .eos = -1};
    for (int i = 0; i < 256; i++)
        model->byte_pieces[i] = -1;
    ND_FAIL_IF(size == 0, ND_EDATA, "%s: the file is empty; expected a SentencePiece model", name);
    wire message = {bytes, (const uint8_t *)bytes + size};
    int pieces;
    ND_TRY(scan(message, name, &pieces));
    model->pieces = calloc((size_t)pieces, sizeof *model->pieces);
    model->text = malloc(size);
    nd_status status = ND_CHECK(model->pieces && model->text, ND_ENOMEM,
                                "%s: no memory for %d pieces", name, pieces);
    ND_IF_OK(parse_pieces(message, name, model, model->text));
    if (status != ND_OK)
        nd_model_file_free(model);
    return status;
}

void nd_model_file_free(nd_model_file *model)
{
    free(model->pieces);
    free(model->text);
    *model = (nd_model_file){.bos = -1, .eos = -1};
}

void nd_model_file_normalize_threads(void *bytes, size_t size)
{
    wire model = {bytes, (const uint8_t *)bytes + size};
    field outer, inner;
    while (model.at < model.end && read_field(&model, &outer)) {
        wire trainer = outer.bytes;
        while (outer.number == TRAINER_SPEC && trainer.at < trainer.end &&
               read_field(&trainer, &inner))
            if (inner.number == NUM_THREADS && inner.varint < 0x80) /* one byte, the last read */
                ((uint8_t *)bytes)[trainer.at - 1 - (const uint8_t *)bytes] = DEFAULT_THREADS;
    }
}
