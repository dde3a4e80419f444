#include "data/text/json.h"
#include "exchange/mapped_file.h"
#include "exchange/safetensors_read.h"

#include <string.h>

enum { TEXT_SHOWN_MAX = 64 };

/* Prints text as a JSON string, whose escapes neutralise control characters. */
static nd_status print_text(const char *text, FILE *out)
{
    char shown[TEXT_SHOWN_MAX + 1];
    size_t bytes = strlen(text) < TEXT_SHOWN_MAX ? strlen(text) : TEXT_SHOWN_MAX;
    while (bytes > 0 && bytes < strlen(text) && ((unsigned char)text[bytes] & 0xc0) == 0x80)
        bytes--;
    memcpy(shown, text, bytes);
    shown[bytes] = '\0';
    json_auto_t *string = json_string(shown);
    ND_AUTOFREE char *quoted = nd_json_text(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    ND_FAIL_IF(!quoted, ND_ENOMEM, "no memory to print %s", shown);
    fprintf(out, "%s%s", quoted, bytes < strlen(text) ? "..." : "");
    return ND_OK;
}

nd_status nd_safetensors_describe(const nd_safetensors *f, const char *path, size_t bytes,
                                  FILE *out)
{
    const char *key;
    json_t *value;
    fprintf(out, "safetensors %s\n  %zu tensors, %zu bytes\n", path, f->count, bytes);
    json_object_foreach(json_object_get(f->header, "__metadata__"), key, value)
    {
        fputs("  ", out);
        ND_TRY(print_text(key, out));
        fputc(' ', out);
        ND_TRY(print_text(json_string_value(value), out));
        fputc('\n', out);
    }
    for (size_t i = 0; i < f->count; i++) {
        const nd_safetensors_tensor *t = &f->tensors[i];
        fputs("  tensor ", out);
        ND_TRY(print_text(t->name, out));
        fprintf(out, " %s [", t->dtype);
        for (int d = 0; d < t->dimensions; d++)
            fprintf(out, "%s%lld", d ? ", " : "", (long long)t->shape[d]);
        fprintf(out, "] %zu bytes\n", t->bytes);
    }
    return ND_OK;
}

nd_status nd_safetensors_print(const char *path, bool verify, FILE *out)
{
    ND_CLEANUP(nd_mapped_file_close) nd_mapped_file file = {0};
    ND_CLEANUP(nd_safetensors_free) nd_safetensors f = {0};
    bool has_digest;
    ND_TRY(nd_mapped_file_open(path, &file));
    ND_TRY(nd_safetensors_parse(file.bytes, file.size, path, &f));
    ND_TRY(nd_safetensors_describe(&f, path, file.size, out));
    if (!verify)
        return ND_OK;
    ND_TRY(nd_safetensors_verify(&f, path, &has_digest));
    fputs(has_digest ? "  the data has the checksum the file states\n"
                     : "  its shape is sound; the file has no checksum of its data\n",
          out);
    return ND_OK;
}
