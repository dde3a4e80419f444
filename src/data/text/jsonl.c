#include "data/text/jsonl.h"

#include "core/base/grow.h"
#include "data/text/json.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 1 << 16, LONGEST_NUMBER = 18 /* digits that always fit 64 bits */ };

typedef struct line_reader {
    nd_text_reader *reader;
    const nd_jsonl_rules *rules;
    nd_jsonl_visit visit;
    void *context;
    char *line;
    size_t bytes, capacity;
    long long number; /* of the line, from 1 */
    bool too_long;    /* the rest of the line is skipped */
} line_reader;

static const char *type_name(const json_t *value)
{
    static const char *const kinds[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return kinds[json_typeof(value)];
}

/* Length of the JSON number at `at` (RFC 8259), 0 when there is none. */
static size_t number_length(const char *at, const char *end)
{
    const char *c = at, *digits;
#define DIGITS() for (digits = c; c < end && isdigit((unsigned char)*c); c++)
    c += c < end && *c == '-';
    DIGITS();
    if (c == digits || (*digits == '0' && c - digits > 1))
        return 0;
    if (c < end && *c == '.') {
        c++;
        DIGITS();
        if (c == digits)
            return 0;
    }
    if (c < end && (*c == 'e' || *c == 'E')) {
        c++;
        c += c < end && (*c == '+' || *c == '-');
        DIGITS();
        if (c == digits)
            return 0;
    }
#undef DIGITS
    return (size_t)(c - at);
}

/* Overwrites numbers that the parser may refuse as too large, which are not needed, with 0. */
static void zero_large_numbers(char *line, size_t bytes)
{
    bool inside = false;
    for (char *c = line, *end = line + bytes; c < end; c++) {
        if (inside && *c == '\\') {
            c++;
        } else if (*c == '"') {
            inside = !inside;
        } else if (!inside && (*c == '-' || isdigit((unsigned char)*c))) {
            const size_t length = number_length(c, end);
            const bool large =
                length > LONGEST_NUMBER || memchr(c, 'e', length) || memchr(c, 'E', length);
            if (large) {
                memset(c, ' ', length);
                *c = '0';
            }
            c += length ? length - 1 : 0;
        }
    }
}

static nd_status parse(line_reader *l, json_t **object, json_error_t *error)
{
    const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_ANY;
    const char *name = nd_text_reader_name(l->reader);
    ND_TRY(nd_json_parse(l->line, l->bytes, flags, name, object, error));
    if (*object || json_error_code(error) != json_error_numeric_overflow)
        return ND_OK;
    zero_large_numbers(l->line, l->bytes);
    return nd_json_parse(l->line, l->bytes, flags, name, object, error);
}

/* The line's document; NULL, with an error raised, when the line is bad. */
static const json_t *find_document(const line_reader *l, const json_t *object,
                                   const json_error_t *error)
{
    const char *name = nd_text_reader_name(l->reader), *field = l->rules->field;
    const json_t *value = json_object_get(object, field);
    if (!object)
        ND_FAIL(ND_EDATA, "%s:%lld: byte %d of the line is not JSON: %s", name, l->number,
                error->position, error->text);
    else if (!json_is_object(object))
        ND_FAIL(ND_EDATA, "%s:%lld: this line is %s; expected a JSON object", name, l->number,
                type_name(object));
    else if (!value)
        ND_FAIL(ND_EDATA, "%s:%lld: the object has no field '%s'", name, l->number, field);
    else if (!json_is_string(value))
        ND_FAIL(ND_EDATA, "%s:%lld: field '%s' is %s; expected a string", name, l->number, field,
                type_name(value));
    return json_is_string(value) ? value : NULL;
}

/* Counts a bad line, whose error has been raised, if such lines are skipped; else fails. */
static nd_status reject_line(const line_reader *l)
{
    if (!l->rules->skip_bad)
        return ND_EDATA;
    nd_left_out_add(l->rules->left_out, ND_LEFT_LINE, "%s", nd_error_get()->message);
    nd_error_clear();
    return ND_OK;
}

static nd_status visit_line(line_reader *l)
{
    size_t blank = 0;
    json_error_t error;
    while (blank < l->bytes && memchr(" \t\r", l->line[blank], 3))
        blank++;
    if (blank == l->bytes)
        return ND_OK;
    json_auto_t *object = NULL;
    ND_TRY(parse(l, &object, &error));
    const json_t *text = find_document(l, object, &error);
    return text ? l->visit(l->context, l->reader, json_string_value(text), json_string_length(text))
                : reject_line(l);
}

static nd_status append_to_line(line_reader *l, const char *text, size_t bytes)
{
    const char *name = nd_text_reader_name(l->reader);
    if (l->too_long)
        return ND_OK;
    if (l->bytes + bytes > ND_JSONL_LINE_MAX) {
        l->too_long = true;
        l->bytes = 0;
        ND_FAIL(ND_EDATA, "%s:%lld: this line is longer than %d bytes; is it JSON Lines?", name,
                l->number, ND_JSONL_LINE_MAX);
        return reject_line(l);
    }
    char *larger = nd_grown(l->line, &l->capacity, l->bytes + bytes + 1, 1);
    ND_FAIL_IF(!larger, ND_ENOMEM, "%s:%lld: no memory for a line of %zu bytes", name, l->number,
               l->bytes + bytes);
    l->line = larger;
    memcpy(l->line + l->bytes, text, bytes);
    l->bytes += bytes;
    return ND_OK;
}

static nd_status end_line(line_reader *l)
{
    const nd_status status = visit_line(l);
    l->bytes = 0;
    l->too_long = false;
    l->number++;
    return status;
}

static nd_status read_lines(line_reader *l)
{
    char chunk[READ_BYTES];
    for (size_t got = 1; got > 0;) {
        ND_TRY(nd_text_reader_read(l->reader, chunk, sizeof chunk, &got));
        for (size_t at = 0; at < got;) {
            const char *newline = memchr(chunk + at, '\n', got - at);
            const size_t part = newline ? (size_t)(newline - chunk) - at : got - at;
            ND_TRY(append_to_line(l, chunk + at, part));
            at += part;
            if (newline) {
                ND_TRY(end_line(l));
                at++;
            }
        }
    }
    return end_line(l);
}

nd_status nd_jsonl_read(nd_text_reader *reader, const nd_jsonl_rules *rules, nd_jsonl_visit visit,
                        void *context)
{
    line_reader l = {
        .reader = reader, .rules = rules, .visit = visit, .context = context, .number = 1};
    const nd_status status = read_lines(&l);
    free(l.line);
    return status;
}
