#include "exchange/safetensors_write.h"

#include "data/text/json.h"
#include "exchange/out_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors files are little-endian");

struct nd_safetensors_writer {
    json_t *metadata, *tensors;
    int64_t declared, written; /* bytes of tensors */
    int64_t digest_offset;
    nd_out_file *out;
};

nd_status nd_safetensors_writer_create(nd_safetensors_writer **writer)
{
    nd_safetensors_writer *w = calloc(1, sizeof *w);
    if (w) {
        w->metadata = json_object();
        w->tensors = json_object();
    }
    *writer = w;
    if (w && w->metadata && w->tensors)
        return ND_OK;
    nd_safetensors_writer_close(w);
    *writer = NULL;
    return ND_FAIL(ND_ENOMEM, "no memory for a safetensors header");
}

nd_status nd_safetensors_put_text(nd_safetensors_writer *w, const char *key, const char *value)
{
    return ND_CHECK(json_object_set_new(w->metadata, key, json_string(value)) == 0, ND_ENOMEM,
                    "no memory for the metadata %s", key);
}

nd_status nd_safetensors_put_tensor(nd_safetensors_writer *w, const char *name, bool bf16,
                                    int64_t rows, int64_t cols, bool vector)
{
    const json_int_t start = w->declared, end = start + rows * cols * (bf16 ? 2 : 4);
    json_t *shape = vector ? json_pack("[I]", (json_int_t)cols)
                           : json_pack("[I,I]", (json_int_t)rows, (json_int_t)cols);
    json_t *entry = json_pack("{s:s,s:o,s:[I,I]}", "dtype", bf16 ? "BF16" : "F32", "shape", shape,
                              "data_offsets", start, end);
    w->declared = end;
    return ND_CHECK(json_object_set_new(w->tensors, name, entry) == 0, ND_ENOMEM,
                    "no memory for the entry of %s", name);
}

/* The header's text, padded with blanks so that the tensors start at a multiple of 8. */
static nd_status header_text(const nd_safetensors_writer *w, char **text, size_t *bytes)
{
    json_auto_t *header = json_object();
    ND_AUTOFREE char *compact = NULL;
    *text = NULL;
    if (json_object_set(header, "__metadata__", w->metadata) == 0 &&
        json_object_update(header, w->tensors) == 0)
        compact = nd_json_text(header, JSON_COMPACT);
    *bytes = compact ? (strlen(compact) + 7) / 8 * 8 : 0;
    if (compact && asprintf(text, "%-*s", (int)*bytes, compact) < 0)
        *text = NULL;
    return ND_CHECK(*text, ND_ENOMEM, "no memory for a safetensors header");
}

nd_status nd_safetensors_writer_start(nd_safetensors_writer *w, const char *path)
{
    char digits[65];
    ND_AUTOFREE char *text = NULL;
    size_t bytes = 0;
    snprintf(digits, sizeof digits, "%064d", 0);
    ND_TRY(nd_safetensors_put_text(w, ND_SAFETENSORS_DIGEST_KEY, digits));
    ND_TRY(header_text(w, &text, &bytes));
    const uint64_t length = bytes;
    /* Only metadata has this key: no tensor's name begins like it. */
    const char *key = strstr(text, "\"" ND_SAFETENSORS_DIGEST_KEY "\":\"");
    w->digest_offset = (int64_t)(sizeof length + (size_t)(strstr(key, digits) - text));
    ND_TRY(nd_out_file_create(path, &w->out));
    ND_TRY(nd_out_file_write(w->out, &length, sizeof length));
    ND_TRY(nd_out_file_write(w->out, text, bytes));
    return nd_out_file_start_digest(w->out);
}

nd_status nd_safetensors_write(nd_safetensors_writer *w, const void *bytes, size_t size)
{
    w->written += (int64_t)size;
    return nd_out_file_write(w->out, bytes, size);
}

nd_status nd_safetensors_writer_finish(nd_safetensors_writer *w)
{
    ND_FAIL_IF(w->written != w->declared, ND_EINTERNAL, "a safetensors file got %lld of %lld bytes",
               (long long)w->written, (long long)w->declared);
    nd_out_file *out = w->out;
    w->out = NULL;
    return nd_out_file_finish(out, w->digest_offset);
}

void nd_safetensors_writer_close(nd_safetensors_writer *w)
{
    if (!w)
        return;
    nd_out_file_discard(w->out);
    json_decref(w->metadata);
    json_decref(w->tensors);
    free(w);
}
