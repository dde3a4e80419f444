#include "core/base/sha256.h"
#include "exchange/gguf_read.h"
#include "exchange/mapped_file.h"

#include <inttypes.h>
#include <string.h>

enum { TEXT_SHOWN_MAX = 64, ELEMENTS_SHOWN = 4 };

/* Prints the beginning of a text on one line, with control characters escaped. Returns the columns
 * printed, counting a byte as one. */
static int print_bytes(nd_gguf_span text, FILE *out)
{
    int columns = 0;
    for (size_t i = 0; i < text.bytes && i < TEXT_SHOWN_MAX; i++) {
        const uint8_t byte = text.at[i];
        if (byte < ' ' || byte == 0x7f || byte == '"' || byte == '\\')
            columns += fprintf(out, "\\x%02x", byte);
        else
            columns += fputc(byte, out) != EOF;
    }
    if (text.bytes > TEXT_SHOWN_MAX)
        columns += fprintf(out, "...");
    return columns;
}

static void print_name(nd_gguf_span name, int width, FILE *out)
{
    const int columns = print_bytes(name, out);
    fprintf(out, "%*s ", columns < width ? width - columns : 0, "");
}

static void print_text(nd_gguf_span text, FILE *out)
{
    fputc('"', out);
    print_bytes(text, out);
    fputc('"', out);
}

static void print_element(const nd_gguf_pair *pair, const uint8_t **at, FILE *out)
{
    if (pair->kind == ND_GGUF_TEXT) {
        print_text(nd_gguf_next_text(at), out);
        return;
    }
    const nd_gguf_pair element = {.kind = pair->kind, .count = 1, .value = *at};
    const double number = nd_gguf_number(&element);
    *at += nd_gguf_kind_bytes(pair->kind);
    if (pair->kind == ND_GGUF_BOOL)
        fputs(number != 0.0 ? "true" : "false", out);
    else
        fprintf(out, "%.9g", number);
}

static void print_pair(const nd_gguf_pair *pair, FILE *out)
{
    const uint8_t *at = pair->value;
    fputs("  ", out);
    print_name(pair->key, 40, out);
    if (!pair->array) {
        print_element(pair, &at, out);
    } else {
        fprintf(out, "%" PRIu64 " x [", pair->count);
        for (uint64_t i = 0; i < pair->count && i < ELEMENTS_SHOWN; i++) {
            if (i > 0)
                fputs(", ", out);
            print_element(pair, &at, out);
        }
        fputs(pair->count > ELEMENTS_SHOWN ? ", ...]" : "]", out);
    }
    fputc('\n', out);
}

static void print_tensor(const nd_gguf_tensor *t, FILE *out)
{
    fputs("  tensor ", out);
    print_name(t->name, 28, out);
    fprintf(out, "%-7s [", t->type->name);
    for (uint32_t d = t->dimensions; d-- > 0;)
        fprintf(out, "%" PRIu64 "%s", t->lengths[d], d > 0 ? ", " : "");
    fprintf(out, "] %" PRIu64 " bytes\n", t->bytes);
}

static nd_status verify_data(const nd_gguf *g, const char *path, FILE *out)
{
    char hex[ND_SHA256_HEX_SIZE];
    const nd_gguf_pair *pair = nd_gguf_find(g, ND_GGUF_DIGEST_KEY);
    if (!pair || pair->kind != ND_GGUF_TEXT || pair->array) {
        fputs("  its shape is sound; the file has no checksum of its data\n", out);
        return ND_OK;
    }
    const uint8_t *at = pair->value;
    const nd_gguf_span stated = nd_gguf_next_text(&at);
    ND_TRY(nd_sha256_hex(g->data, g->data_bytes, hex));
    ND_FAIL_IF(stated.bytes != 64 || memcmp(stated.at, hex, 64) != 0, ND_EDATA,
               "%s: damaged: the data's SHA-256 is %.12s..., the file says %.*s...", path, hex,
               stated.bytes < 12 ? (int)stated.bytes : 12, (const char *)stated.at);
    fputs("  the data has the checksum the file states\n", out);
    return ND_OK;
}

void nd_gguf_describe(const nd_gguf *g, const char *path, size_t bytes, FILE *out)
{
    uint64_t weights = 0;
    for (size_t i = 0; i < g->tensor_count; i++) {
        const uint64_t *n = g->tensors[i].lengths;
        weights += n[0] * n[1] * n[2] * n[3];
    }
    fprintf(out,
            "GGUF %s\n  version %" PRIu32 ", %zu pairs, %zu tensors of %" PRIu64
            " weights, %zu bytes\n",
            path, g->version, g->pair_count, g->tensor_count, weights, bytes);
    for (size_t i = 0; i < g->pair_count; i++)
        print_pair(&g->pairs[i], out);
    for (size_t i = 0; i < g->tensor_count; i++)
        print_tensor(&g->tensors[i], out);
}

nd_status nd_gguf_print(const char *path, bool verify, FILE *out)
{
    ND_CLEANUP(nd_mapped_file_close) nd_mapped_file file = {0};
    ND_CLEANUP(nd_gguf_free) nd_gguf g = {0};
    ND_TRY(nd_mapped_file_open(path, &file));
    ND_TRY(nd_gguf_parse(file.bytes, file.size, path, &g));
    nd_gguf_describe(&g, path, file.size, out);
    return verify ? verify_data(&g, path, out) : ND_OK;
}
