#include "data/shards/shard_index.h"

#include "data/text/json.h"
#include "data/tokenizer/utf8.h"

#include <fnmatch.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int nd_shard_name_matches(const char *name, const char *suffix)
{
    char train[32], val[32];
    snprintf(train, sizeof train, "train_*.h5%s", suffix);
    snprintf(val, sizeof val, "val_*.h5%s", suffix);
    return fnmatch(train, name, 0) == 0 || fnmatch(val, name, 0) == 0;
}

/* `where` names the object: the file, or the shard in it. */
static nd_status read_text(const json_t *object, const char *where, const char *key, char *text,
                           size_t size)
{
    const json_t *value = json_object_get(object, key);
    ND_FAIL_IF(!json_is_string(value) || json_string_length(value) >= size, ND_EDATA,
               "%s: %s is %s; expected text of at most %zu characters", where, key,
               value ? "something else or longer" : "missing", size - 1);
    memcpy(text, json_string_value(value), json_string_length(value) + 1);
    return ND_OK;
}

static nd_status read_number(const json_t *object, const char *where, const char *key, int64_t max,
                             int64_t *number)
{
    const json_t *value = json_object_get(object, key);
    ND_FAIL_IF(!json_is_integer(value), ND_EDATA, "%s: %s is %s; expected a whole number", where,
               key, value ? "something else" : "missing");
    *number = (int64_t)json_integer_value(value);
    return ND_CHECK(*number >= 0 && *number <= max, ND_EDATA,
                    "%s: %s is %lld; expected a number from 0 to %lld", where, key,
                    (long long)*number, (long long)max);
}

static nd_status read_digest(const json_t *object, const char *where, const char *key,
                             char hex[ND_SHA256_HEX_SIZE])
{
    ND_TRY(read_text(object, where, key, hex, ND_SHA256_HEX_SIZE));
    ND_FAIL_IF(strlen(hex) != ND_SHA256_HEX_SIZE - 1 ||
                   strspn(hex, "0123456789abcdef") != strlen(hex),
               ND_EDATA, "%s: %s is '%s'; expected 64 hex digits", where, key, hex);
    return ND_OK;
}

bool nd_shard_index_names(const nd_indexed_shard *shard)
{
    const size_t split = strlen(shard->split);
    bool valid = nd_shard_name_matches(shard->name, "") && shard->name[split] == '_' &&
                 strncmp(shard->name, shard->split, split) == 0;
    uint32_t code;
    size_t length;
    for (const char *c = shard->name; valid && *c; c += length) {
        length = nd_utf8_decode(c, strlen(c), &code);
        valid = length > 0 && code != '/' && code >= ' ' && code != 0x7f;
    }
    return valid;
}

static nd_status parse_shard(const json_t *object, const char *name, size_t number,
                             nd_indexed_shard *shard)
{
    char where[ND_SHARD_NAME_SIZE + 512];
    snprintf(where, sizeof where, "%.400s: shard %zu", name, number);
    ND_TRY(read_text(object, where, "name", shard->name, sizeof shard->name));
    ND_TRY(read_text(object, where, "split", shard->split, sizeof shard->split));
    ND_FAIL_IF(!nd_shard_index_names(shard), ND_EDATA,
               "%s: name is '%s' and split '%s'; expected train_*.h5 or val_*.h5, the name of a "
               "file in this directory",
               where, shard->name, shard->split);
    snprintf(where, sizeof where, "%.400s: %s", name, shard->name);
    ND_TRY(read_number(object, where, "bytes", INT64_MAX, &shard->bytes));
    ND_TRY(read_number(object, where, "n_tokens", shard->bytes, &shard->n_tokens));
    ND_TRY(read_number(object, where, "n_documents", shard->n_tokens, &shard->n_documents));
    return read_digest(object, where, "sha256", shard->sha256);
}

static nd_status parse_object(const json_t *root, const char *name, nd_shard_index *index)
{
    int64_t version = 0, total = 0;
    const json_t *shards = json_object_get(root, "shards");
    ND_TRY(read_number(root, name, "format_version", INT64_MAX, &version));
    ND_FAIL_IF(version != ND_SHARD_INDEX_VERSION, ND_EDATA,
               "%s: format_version is %lld; this program reads version %d", name,
               (long long)version, ND_SHARD_INDEX_VERSION);
    ND_TRY(read_number(root, name, "vocab_size", INT32_MAX, &index->vocab_size));
    ND_TRY(read_digest(root, name, "tokenizer_sha256", index->tokenizer_sha256));
    ND_FAIL_IF(json_array_size(shards) == 0, ND_EDATA, "%s: shards is empty or not a list", name);
    index->shards = calloc(json_array_size(shards), sizeof *index->shards);
    ND_FAIL_IF(!index->shards, ND_ENOMEM, "%s: no memory for %zu shards", name,
               json_array_size(shards));
    index->capacity = json_array_size(shards);
    for (size_t i = 0; i < index->capacity; i++) {
        nd_indexed_shard *shard = &index->shards[i];
        ND_TRY(parse_shard(json_array_get(shards, i), name, i, shard));
        ND_FAIL_IF(i > 0 && strcmp(shard[-1].name, shard->name) >= 0, ND_EDATA,
                   "%s: %s follows %s; expected ascending names", name, shard->name,
                   shard[-1].name);
        ND_FAIL_IF(__builtin_add_overflow(total, shard->n_tokens, &total), ND_EDATA,
                   "%s: its shards have more than 2^63 tokens", name);
        index->count++;
    }
    return ND_OK;
}

nd_status nd_shard_index_parse(const void *bytes, size_t size, const char *name,
                               nd_shard_index *index)
{
    json_error_t error;
    *index = (nd_shard_index){0};
    json_auto_t *root = NULL;
    ND_TRY(nd_json_parse(bytes, size, JSON_REJECT_DUPLICATES, name, &root, &error));
    ND_FAIL_IF(!root, ND_EDATA,
               "%s:%d: not JSON, or incomplete: %s; expected the index of shards that "
               "`nanochat_dist pack` writes",
               name, error.line, error.text);
    ND_FAIL_IF(!json_is_object(root), ND_EDATA,
               "%s: not a JSON object; expected an index of shards", name);
    return parse_object(root, name, index);
}

void nd_shard_index_free(nd_shard_index *index)
{
    free(index->shards);
    *index = (nd_shard_index){0};
}
