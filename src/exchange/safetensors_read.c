#include "exchange/safetensors_read.h"

#include "core/base/float_formats.h"
#include "core/base/sha256.h"
#include "data/text/json.h"
#include "exchange/safetensors_write.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Names and sizes of the format's types. */
static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
    {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8},
};

static size_t dtype_bytes(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bytes;
    return 0;
}

/* Reads the shape and its product, *weights; false when it is invalid or the product overflows. */
static bool read_shape(json_t *shape, nd_safetensors_tensor *t, int64_t *weights)
{
    *weights = 1;
    if (!json_is_array(shape) || json_array_size(shape) > ND_SAFETENSORS_DIMENSIONS_MAX)
        return false;
    t->dimensions = (int)json_array_size(shape);
    for (int d = 0; d < t->dimensions; d++) {
        const json_t *length = json_array_get(shape, (size_t)d);
        t->shape[d] = json_integer_value(length);
        if (!json_is_integer(length) || t->shape[d] < 0 ||
            __builtin_mul_overflow(*weights, t->shape[d], weights))
            return false;
    }
    return true;
}

static nd_status read_tensor(const char *name, json_t *entry, nd_safetensors *f,
                             nd_safetensors_tensor *t, const char *file)
{
    json_t *shape;
    json_int_t start, end;
    int64_t weights;
    ND_FAIL_IF(json_unpack(entry, "{s:s,s:o,s:[I,I]}", "dtype", &t->dtype, "shape", &shape,
                           "data_offsets", &start, &end) != 0,
               ND_EDATA, "%s: damaged: the entry of '%.80s' lacks dtype, shape or data_offsets",
               file, name);
    t->name = name;
    const size_t width = dtype_bytes(t->dtype);
    ND_FAIL_IF(width == 0, ND_EDATA,
               "%s: tensor '%.80s' has type '%.20s', which this program does not know", file, name,
               t->dtype);
    ND_FAIL_IF(!read_shape(shape, t, &weights) || weights > INT64_MAX / (int64_t)width, ND_EDATA,
               "%s: damaged: '%.80s' has no valid shape", file, name);
    ND_FAIL_IF(start < 0 || end < start || (uint64_t)end > f->data_bytes, ND_EDATA,
               "%s: damaged or cut short: '%.80s' lies at %" JSON_INTEGER_FORMAT
               " to %" JSON_INTEGER_FORMAT " of %zu bytes",
               file, name, start, end, f->data_bytes);
    ND_FAIL_IF(end - start != weights * (int64_t)width, ND_EDATA,
               "%s: damaged: '%.80s' has %" JSON_INTEGER_FORMAT
               " bytes, its shape asks for %" PRId64,
               file, name, end - start, weights * (int64_t)width);
    t->data = f->data + start;
    t->bytes = (size_t)(end - start);
    return ND_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const nd_safetensors_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static nd_status check_coverage(const nd_safetensors *f, const char *file)
{
    const uint8_t *expected = f->data;
    for (size_t i = 0; i < f->count; i++) {
        const nd_safetensors_tensor *t = &f->tensors[i];
        ND_FAIL_IF(t->data != expected, ND_EDATA,
                   "%s: damaged: '%.80s' starts at byte %td of the data, expected %td", file,
                   t->name, t->data - f->data, expected - f->data);
        expected += t->bytes;
    }
    return ND_CHECK(expected == f->data + f->data_bytes, ND_EDATA,
                    "%s: damaged: %zu bytes of data, its tensors have %td", file, f->data_bytes,
                    expected - f->data);
}

static nd_status check_metadata(const json_t *metadata, const char *file)
{
    const char *key;
    json_t *value;
    ND_FAIL_IF(metadata && !json_is_object(metadata), ND_EDATA,
               "%s: damaged: __metadata__ is not an object", file);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        ND_FAIL_IF(!json_is_string(value), ND_EDATA,
                   "%s: damaged: '%.80s' in __metadata__ is not a string", file, key);
    }
    return ND_OK;
}

static nd_status read_header(nd_safetensors *f, const char *file)
{
    const char *key;
    json_t *entry;
    ND_FAIL_IF(!json_is_object(f->header), ND_EDATA, "%s: damaged: its header is not an object",
               file);
    f->tensors = calloc(json_object_size(f->header) + 1, sizeof *f->tensors);
    ND_FAIL_IF(!f->tensors, ND_ENOMEM, "%s: no memory for %zu tensors", file,
               json_object_size(f->header));
    ND_TRY(check_metadata(json_object_get(f->header, "__metadata__"), file));
    json_object_foreach(f->header, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        ND_TRY(read_tensor(key, entry, f, &f->tensors[f->count], file));
        f->count++;
    }
    qsort(f->tensors, f->count, sizeof *f->tensors, compare_offsets);
    return check_coverage(f, file);
}

nd_status nd_safetensors_parse(const void *bytes, size_t size, const char *name, nd_safetensors *f)
{
    const uint8_t *at = bytes;
    uint64_t length = 0;
    json_error_t error;
    memset(f, 0, sizeof *f);
    if (size > sizeof length)
        memcpy(&length, at, sizeof length);
    ND_FAIL_IF(size <= sizeof length || at[sizeof length] != '{', ND_EDATA,
               "%s: not a safetensors file: no header follows its first 8 bytes", name);
    ND_FAIL_IF(length > size - sizeof length || length > ND_SAFETENSORS_HEADER_MAX, ND_EDATA,
               "%s: not a safetensors file, or cut short: a header of %" PRIu64
               " bytes in %zu (at most %d)",
               name, length, size, (int)ND_SAFETENSORS_HEADER_MAX);
    f->data = at + sizeof length + length;
    f->data_bytes = size - sizeof length - (size_t)length;
    ND_TRY(nd_json_parse(at + sizeof length, (size_t)length, JSON_REJECT_DUPLICATES, name,
                         &f->header, &error));
    ND_FAIL_IF(!f->header, ND_EDATA, "%s: damaged: its header is not JSON: %s", name, error.text);
    const nd_status status = nd_json_status(read_header(f, name), name);
    if (status != ND_OK)
        nd_safetensors_free(f);
    return status;
}

void nd_safetensors_free(nd_safetensors *f)
{
    json_decref(f->header);
    free(f->tensors);
    memset(f, 0, sizeof *f);
}

const nd_safetensors_tensor *nd_safetensors_find(const nd_safetensors *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->tensors[i].name, name) == 0)
            return &f->tensors[i];
    return NULL;
}

const char *nd_safetensors_text(const nd_safetensors *f, const char *key)
{
    return json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), key));
}

bool nd_safetensors_has_floats(const nd_safetensors_tensor *t)
{
    static const char *const types[] = {"F32", "BF16", "F16", "F64"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(t->dtype, types[i]) == 0)
            return true;
    return false;
}

nd_status nd_safetensors_floats(const nd_safetensors_tensor *t, int64_t first, int64_t count,
                                float *values)
{
    if (strcmp(t->dtype, "F32") == 0) {
        memcpy(values, t->data + 4 * first, (size_t)count * sizeof *values);
        return ND_OK;
    }
    const bool bf16 = strcmp(t->dtype, "BF16") == 0, f16 = strcmp(t->dtype, "F16") == 0;
    if (bf16 || f16) {
        for (int64_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, t->data + 2 * (first + i), sizeof half);
            values[i] = bf16 ? nd_bf16_to_float(half) : nd_f16_to_float(half);
        }
        return ND_OK;
    }
    ND_FAIL_IF(strcmp(t->dtype, "F64") != 0, ND_EDATA,
               "tensor %.80s has type %s; expected F32, BF16, F16 or F64", t->name, t->dtype);
    for (int64_t i = 0; i < count; i++) {
        double wide;
        memcpy(&wide, t->data + 8 * (first + i), sizeof wide);
        values[i] = (float)wide;
    }
    return ND_OK;
}

nd_status nd_safetensors_verify(const nd_safetensors *f, const char *name, bool *has_digest)
{
    char hex[ND_SHA256_HEX_SIZE];
    const char *stated = nd_safetensors_text(f, ND_SAFETENSORS_DIGEST_KEY);
    *has_digest = stated != NULL;
    if (!stated)
        return ND_OK;
    ND_TRY(nd_sha256_hex(f->data, f->data_bytes, hex));
    return ND_CHECK(strcmp(stated, hex) == 0, ND_EDATA,
                    "%s: damaged: the data's SHA-256 is %.12s..., the file says %.12s...", name,
                    hex, stated);
}
