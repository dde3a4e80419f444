#include "data/jsonl.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 1 << 16 };

typedef struct reader {
    const char *name, *field;
    nd_jsonl_visit visit;
    void *context;
    char *line;
    size_t bytes, capacity;
    long long number; /* of the line, from 1 */
} reader;

static const char *kind_of(const json_t *value)
{
    static const char *const kinds[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return kinds[json_typeof(value)];
}

static nd_status visit_value(reader *r, const json_t *object)
{
    if (!json_is_object(object))
        return ND_FAIL(ND_EDATA, "%s:%lld: this line is %s; expected a JSON object", r->name,
                       r->number, kind_of(object));
    const json_t *value = json_object_get(object, r->field);
    if (!value)
        return ND_FAIL(ND_EDATA, "%s:%lld: the object has no field '%s'", r->name, r->number,
                       r->field);
    if (!json_is_string(value))
        return ND_FAIL(ND_EDATA, "%s:%lld: field '%s' is %s; expected a string", r->name, r->number,
                       r->field, kind_of(value));
    return r->visit(r->context, json_string_value(value), json_string_length(value), r->bytes + 1);
}

static nd_status visit_line(reader *r)
{
    size_t blank = 0;
    r->number++;
    while (blank < r->bytes && memchr(" \t\r", r->line[blank], 3))
        blank++;
    if (blank == r->bytes)
        return ND_OK;
    json_error_t error;
    json_t *object = json_loadb(r->line, r->bytes, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (!object)
        return ND_FAIL(ND_EDATA, "%s:%lld: byte %d of the line is not JSON: %s", r->name, r->number,
                       error.position, error.text);
    const nd_status status = visit_value(r, object);
    json_decref(object);
    return status;
}

static nd_status hold(reader *r, const char *text, size_t bytes)
{
    if (r->bytes + bytes > ND_JSONL_LINE_MAX)
        return ND_FAIL(ND_EDATA, "%s:%lld: this line is longer than %d bytes; is it JSON Lines?",
                       r->name, r->number + 1, ND_JSONL_LINE_MAX);
    if (r->bytes + bytes > r->capacity) {
        const size_t capacity = 2 * (r->bytes + bytes);
        char *larger = realloc(r->line, capacity);
        if (!larger)
            return ND_FAIL(ND_ENOMEM, "%s:%lld: no memory for a line of %zu bytes", r->name,
                           r->number + 1, capacity);
        r->line = larger;
        r->capacity = capacity;
    }
    memcpy(r->line + r->bytes, text, bytes);
    r->bytes += bytes;
    return ND_OK;
}

static nd_status read_lines(reader *r, FILE *file)
{
    char chunk[READ_BYTES];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, file)) > 0) {
        for (size_t at = 0; at < got;) {
            const char *newline = memchr(chunk + at, '\n', got - at);
            const size_t part = newline ? (size_t)(newline - chunk) - at : got - at;
            ND_TRY(hold(r, chunk + at, part));
            at += part;
            if (newline) {
                ND_TRY(visit_line(r));
                r->bytes = 0;
                at++;
            }
        }
    }
    if (ferror(file))
        return ND_FAIL(ND_EDATA, "%s: cannot read this file: %s", r->name, strerror(errno));
    return r->bytes > 0 ? visit_line(r) : ND_OK;
}

nd_status nd_jsonl_read(FILE *file, const char *name, const char *field, nd_jsonl_visit visit,
                        void *context)
{
    reader r = {.name = name, .field = field, .visit = visit, .context = context};
    const nd_status status = read_lines(&r, file);
    free(r.line);
    return status;
}
