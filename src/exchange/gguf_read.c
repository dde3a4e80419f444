#include "exchange/gguf_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_BYTES = 24,
    PAIR_BYTES_MIN = 8 + 4 + 1,
    TENSOR_BYTES_MIN = 8 + 4 + 8 + 4 + 8,
    NAME_MAX_BYTES = 63 /* ggml's limit for tensors */
};

/* The position in the file. */
typedef struct cursor {
    const uint8_t *at, *start, *end;
    const char *name;
} cursor;

static size_t remaining(const cursor *c)
{
    return (size_t)(c->end - c->at);
}

static nd_status fail_truncated(const cursor *c, const char *what)
{
    return ND_FAIL(ND_EDATA,
                   "%s: damaged or cut short: the file ends in %s, which starts at byte %zu",
                   c->name, what, (size_t)(c->at - c->start));
}

static nd_status read_bytes(cursor *c, void *value, size_t bytes, const char *what)
{
    if (remaining(c) < bytes)
        return fail_truncated(c, what);
    memcpy(value, c->at, bytes);
    c->at += bytes;
    return ND_OK;
}

static nd_status read_text(cursor *c, nd_gguf_span *text, const char *what)
{
    uint64_t bytes = 0;
    ND_TRY(read_bytes(c, &bytes, sizeof bytes, what));
    if (bytes > remaining(c))
        return fail_truncated(c, what);
    *text = (nd_gguf_span){c->at, (size_t)bytes};
    c->at += bytes;
    return ND_OK;
}

size_t nd_gguf_kind_bytes(nd_gguf_kind kind)
{
    static const uint8_t sizes[ND_GGUF_KIND_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[kind];
}

static nd_status read_kind(cursor *c, nd_gguf_kind *kind)
{
    uint32_t number = 0;
    ND_TRY(read_bytes(c, &number, sizeof number, "a value's type"));
    ND_FAIL_IF(number >= ND_GGUF_KIND_COUNT, ND_EDATA,
               "%s: damaged: a value's type is %" PRIu32 " at byte %zu; expected 0 to 12", c->name,
               number, (size_t)(c->at - c->start) - sizeof number);
    *kind = (nd_gguf_kind)number;
    return ND_OK;
}

static nd_status skip_values(cursor *c, nd_gguf_pair *pair)
{
    pair->value = c->at;
    ND_FAIL_IF(pair->kind == ND_GGUF_ARRAY, ND_EDATA,
               "%s: '%.*s' is an array of arrays, which GGUF does not have", c->name,
               (int)pair->key.bytes, (const char *)pair->key.at);
    if (pair->kind != ND_GGUF_TEXT) {
        if (pair->count > remaining(c) / nd_gguf_kind_bytes(pair->kind))
            return fail_truncated(c, "a value");
        c->at += pair->count * nd_gguf_kind_bytes(pair->kind);
        return ND_OK;
    }
    if (pair->count > remaining(c) / sizeof(uint64_t))
        return fail_truncated(c, "an array of texts");
    for (uint64_t i = 0; i < pair->count; i++) {
        nd_gguf_span text;
        ND_TRY(read_text(c, &text, "a text"));
    }
    return ND_OK;
}

static nd_status read_pair(cursor *c, nd_gguf_pair *pair)
{
    ND_TRY(read_text(c, &pair->key, "a key"));
    ND_FAIL_IF(pair->key.bytes == 0 || pair->key.bytes > UINT16_MAX, ND_EDATA,
               "%s: damaged: a key of %zu bytes before byte %zu; expected 1 to 65535", c->name,
               pair->key.bytes, (size_t)(c->at - c->start));
    ND_TRY(read_kind(c, &pair->kind));
    pair->count = 1;
    pair->array = pair->kind == ND_GGUF_ARRAY;
    if (pair->array) {
        ND_TRY(read_kind(c, &pair->kind));
        ND_TRY(read_bytes(c, &pair->count, sizeof pair->count, "the length of an array"));
    }
    return skip_values(c, pair);
}

/* Sets t->bytes from its lengths; false on overflow or if rows are not whole blocks. */
static bool tensor_bytes(nd_gguf_tensor *t)
{
    uint64_t rows = 1, bytes;
    if (t->lengths[0] % t->type->block_weights != 0)
        return false;
    for (uint32_t d = 1; d < t->dimensions; d++)
        if (__builtin_mul_overflow(rows, t->lengths[d], &rows))
            return false;
    if (__builtin_mul_overflow(t->lengths[0] / t->type->block_weights, t->type->block_bytes,
                               &bytes) ||
        __builtin_mul_overflow(bytes, rows, &bytes) || bytes > INT64_MAX)
        return false;
    t->bytes = bytes;
    return true;
}

/* `*offset` is the expected start of the tensor, advanced past it and its padding. */
static nd_status read_tensor(cursor *c, uint64_t alignment, uint64_t *offset, nd_gguf_tensor *t)
{
    uint32_t type = 0;
    uint64_t stated = 0;
    ND_TRY(read_text(c, &t->name, "a tensor's name"));
    ND_FAIL_IF(t->name.bytes == 0 || t->name.bytes > NAME_MAX_BYTES, ND_EDATA,
               "%s: damaged: a tensor's name has %zu bytes; expected 1 to %d", c->name,
               t->name.bytes, (int)NAME_MAX_BYTES);
    const int width = (int)t->name.bytes;
    const char *text = (const char *)t->name.at;
    ND_TRY(read_bytes(c, &t->dimensions, sizeof t->dimensions, "a tensor's dimensions"));
    ND_FAIL_IF(t->dimensions == 0 || t->dimensions > ND_GGUF_DIMENSIONS_MAX, ND_EDATA,
               "%s: damaged: tensor %.*s has %" PRIu32 " dimensions; expected 1 to %d", c->name,
               width, text, t->dimensions, (int)ND_GGUF_DIMENSIONS_MAX);
    for (uint32_t d = 0; d < ND_GGUF_DIMENSIONS_MAX; d++)
        t->lengths[d] = 1;
    ND_TRY(read_bytes(c, t->lengths, t->dimensions * sizeof *t->lengths, "a tensor's shape"));
    ND_TRY(read_bytes(c, &type, sizeof type, "a tensor's type"));
    ND_TRY(read_bytes(c, &stated, sizeof stated, "a tensor's offset"));
    t->type = nd_ggml_type_find(type);
    ND_FAIL_IF(!t->type, ND_EDATA, "%s: tensor %.*s has type %" PRIu32 ", which ggml does not know",
               c->name, width, text, type);
    ND_FAIL_IF(!tensor_bytes(t), ND_EDATA,
               "%s: damaged: tensor %.*s has rows of %" PRIu64
               " weights, which do not fill blocks of %s (%" PRIu32
               "), or more bytes than there can be",
               c->name, width, text, t->lengths[0], t->type->name, t->type->block_weights);
    ND_FAIL_IF(stated != *offset, ND_EDATA,
               "%s: damaged: tensor %.*s starts at offset %" PRIu64 ", expected %" PRIu64, c->name,
               width, text, stated, *offset);
    /* All operands fit 63 bits and are only subtracted, so nothing overflows. */
    ND_FAIL_IF(alignment > INT64_MAX - *offset || t->bytes > INT64_MAX - *offset - alignment,
               ND_EDATA, "%s: damaged: tensor %.*s has more bytes than there can be", c->name,
               width, text);
    *offset += (t->bytes + alignment - 1) / alignment * alignment;
    return ND_OK;
}

static int compare_spans(nd_gguf_span a, nd_gguf_span b)
{
    const size_t shared = a.bytes < b.bytes ? a.bytes : b.bytes;
    const int order = memcmp(a.at, b.at, shared);
    return order != 0 ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static int compare_span_pointers(const void *a, const void *b)
{
    return compare_spans(*(const nd_gguf_span *)a, *(const nd_gguf_span *)b);
}

/* Sorts `names` and refuses duplicates. */
static nd_status check_unique(nd_gguf_span *names, size_t count, const char *name, const char *what)
{
    qsort(names, count, sizeof *names, compare_span_pointers);
    for (size_t i = 1; i < count; i++)
        ND_FAIL_IF(compare_spans(names[i - 1], names[i]) == 0, ND_EDATA,
                   "%s: damaged: %s '%.*s' appears twice", name, what, (int)names[i].bytes,
                   (const char *)names[i].at);
    return ND_OK;
}

static nd_status check_names(const nd_gguf *g, const char *name)
{
    const size_t capacity = g->pair_count > g->tensor_count ? g->pair_count : g->tensor_count;
    ND_AUTOFREE nd_gguf_span *names = malloc((capacity + 1) * sizeof *names);
    ND_FAIL_IF(!names, ND_ENOMEM, "%s: no memory for %zu names", name, capacity);
    for (size_t i = 0; i < g->pair_count; i++)
        names[i] = g->pairs[i].key;
    ND_TRY(check_unique(names, g->pair_count, name, "key"));
    for (size_t i = 0; i < g->tensor_count; i++)
        names[i] = g->tensors[i].name;
    return check_unique(names, g->tensor_count, name, "tensor");
}

static nd_status find_alignment(nd_gguf *g, const char *name)
{
    const nd_gguf_pair *pair = nd_gguf_find(g, "general.alignment");
    uint32_t alignment = ND_GGUF_ALIGNMENT;
    ND_FAIL_IF(pair && (pair->kind != ND_GGUF_U32 || pair->array), ND_EDATA,
               "%s: damaged: general.alignment is not a number of 32 bits", name);
    if (pair)
        memcpy(&alignment, pair->value, sizeof alignment);
    ND_FAIL_IF(alignment == 0 || (alignment & (alignment - 1)) != 0, ND_EDATA,
               "%s: damaged: general.alignment is %" PRIu32 "; expected a power of two", name,
               alignment);
    g->alignment = alignment;
    return ND_OK;
}

static nd_status read_header(cursor *c, nd_gguf *g)
{
    uint64_t counts[2] = {0, 0};
    char magic[4];
    ND_FAIL_IF(remaining(c) < HEADER_BYTES || memcmp(c->at, "GGUF", 4) != 0, ND_EDATA,
               "%s: not a GGUF file: it does not begin with GGUF and a header", c->name);
    ND_TRY(read_bytes(c, magic, 4, "the header"));
    ND_TRY(read_bytes(c, &g->version, sizeof g->version, "the header"));
    ND_FAIL_IF(g->version != 2 && g->version != ND_GGUF_VERSION, ND_EDATA,
               "%s: GGUF version %" PRIu32 "%s; this program reads 2 and 3", c->name, g->version,
               (g->version & 0xffff) == 0 ? " (a big-endian file?)" : "");
    ND_TRY(read_bytes(c, counts, sizeof counts, "the header"));
    ND_FAIL_IF(counts[0] > remaining(c) / TENSOR_BYTES_MIN ||
                   counts[1] > remaining(c) / PAIR_BYTES_MIN,
               ND_EDATA,
               "%s: damaged or cut short: it declares %" PRIu64 " tensors and %" PRIu64
               " pairs, more than its %zu bytes can hold",
               c->name, counts[0], counts[1], (size_t)(c->end - c->start));
    g->tensor_count = (size_t)counts[0];
    g->pair_count = (size_t)counts[1];
    g->pairs = calloc(g->pair_count + 1, sizeof *g->pairs);
    g->tensors = calloc(g->tensor_count + 1, sizeof *g->tensors);
    return ND_CHECK(g->pairs && g->tensors, ND_ENOMEM,
                    "%s: no memory for %zu pairs and %zu tensors", c->name, g->pair_count,
                    g->tensor_count);
}

/* Sets the address of each tensor's data. The header ends at c->at. */
static nd_status locate_data(const cursor *c, uint64_t end, nd_gguf *g)
{
    const size_t header = (size_t)(c->at - c->start), size = (size_t)(c->end - c->start);
    const uint64_t start = (header + g->alignment - 1) / g->alignment * g->alignment;
    const uint64_t last = g->tensor_count ? g->tensors[g->tensor_count - 1].bytes : 0;
    /* The padding behind the last tensor may be missing. */
    const uint64_t min_size =
        start + end - (last ? (g->alignment - last % g->alignment) % g->alignment : 0);
    ND_FAIL_IF(g->tensor_count > 0 && (start > size || size < min_size || size > start + end),
               ND_EDATA, "%s: damaged or cut short: %zu bytes, expected %" PRIu64, c->name, size,
               start + end);
    g->data = c->start + (start < size ? start : size);
    g->data_bytes = (size_t)(c->end - g->data);
    uint64_t offset = 0;
    for (size_t i = 0; i < g->tensor_count; i++) {
        g->tensors[i].data = g->data + offset;
        offset += (g->tensors[i].bytes + g->alignment - 1) / g->alignment * g->alignment;
    }
    return ND_OK;
}

static nd_status parse(cursor *c, nd_gguf *g)
{
    uint64_t end = 0;
    ND_TRY(read_header(c, g));
    for (size_t i = 0; i < g->pair_count; i++)
        ND_TRY(read_pair(c, &g->pairs[i]));
    ND_TRY(find_alignment(g, c->name));
    for (size_t i = 0; i < g->tensor_count; i++)
        ND_TRY(read_tensor(c, g->alignment, &end, &g->tensors[i]));
    ND_TRY(check_names(g, c->name));
    return locate_data(c, end, g);
}

nd_status nd_gguf_parse(const void *bytes, size_t size, const char *name, nd_gguf *g)
{
    cursor c = {bytes, bytes, (const uint8_t *)bytes + size, name};
    memset(g, 0, sizeof *g);
    const nd_status status = parse(&c, g);
    if (status != ND_OK)
        nd_gguf_free(g);
    return status;
}

void nd_gguf_free(nd_gguf *g)
{
    free(g->pairs);
    free(g->tensors);
    memset(g, 0, sizeof *g);
}

const nd_gguf_pair *nd_gguf_find(const nd_gguf *g, const char *key)
{
    const size_t bytes = strlen(key);
    for (size_t i = 0; i < g->pair_count; i++)
        if (g->pairs[i].key.bytes == bytes && memcmp(g->pairs[i].key.at, key, bytes) == 0)
            return &g->pairs[i];
    return NULL;
}

#define ND_READ(type)                                                                              \
    do {                                                                                           \
        type number;                                                                               \
        memcpy(&number, pair->value, sizeof number);                                               \
        return (double)number;                                                                     \
    } while (0)

double nd_gguf_number(const nd_gguf_pair *pair)
{
    switch (pair->count > 0 ? pair->kind : ND_GGUF_ARRAY) {
    case ND_GGUF_U8:
    case ND_GGUF_BOOL:
        return pair->value[0];
    case ND_GGUF_I8:
        ND_READ(int8_t);
    case ND_GGUF_U16:
        ND_READ(uint16_t);
    case ND_GGUF_I16:
        ND_READ(int16_t);
    case ND_GGUF_U32:
        ND_READ(uint32_t);
    case ND_GGUF_I32:
        ND_READ(int32_t);
    case ND_GGUF_F32:
        ND_READ(float);
    case ND_GGUF_U64:
        ND_READ(uint64_t);
    case ND_GGUF_I64:
        ND_READ(int64_t);
    case ND_GGUF_F64:
        ND_READ(double);
    default:
        return 0.0;
    }
}

nd_gguf_span nd_gguf_next_text(const uint8_t **at)
{
    uint64_t bytes;
    memcpy(&bytes, *at, sizeof bytes);
    const nd_gguf_span text = {*at + sizeof bytes, (size_t)bytes};
    *at += sizeof bytes + bytes;
    return text;
}
