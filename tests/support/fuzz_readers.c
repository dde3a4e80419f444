#include "support/fuzz_readers.h"

#include "core/base/close.h"
#include "core/base/sha256.h"
#include "core/model/model_config.h"
#include "core/model/params.h"
#include "data/shards/shard_index.h"
#include "exchange/gguf_read.h"
#include "exchange/hf_layout.h"
#include "exchange/safetensors_read.h"
#include "train/checkpoint/manifest.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Reads every byte; the result is used so that no compiler leaves it out. */
static void touch(const uint8_t *at, size_t bytes)
{
    static volatile uint8_t sum;
    uint8_t local = 0;
    for (size_t i = 0; i < bytes; i++)
        local = (uint8_t)(local ^ at[i]);
    sum = (uint8_t)(sum ^ local);
}

/* Where descriptions go: printed, then forgotten. */
static FILE *nowhere(void)
{
    static FILE *file;
    if (!file)
        file = fopen("/dev/null", "w");
    return file;
}

void nd_fuzz_gguf(const uint8_t *bytes, size_t size)
{
    ND_CLEANUP(nd_gguf_free) nd_gguf g = {0};
    nd_error_clear();
    if (nd_gguf_parse(bytes, size, "fuzz.gguf", &g) != ND_OK)
        return;
    for (size_t i = 0; i < g.tensor_count; i++)
        touch(g.tensors[i].data, g.tensors[i].bytes);
    for (size_t i = 0; i < g.pair_count; i++) {
        const uint8_t *at = g.pairs[i].value;
        for (uint64_t e = 0; g.pairs[i].kind == ND_GGUF_TEXT && e < g.pairs[i].count; e++) {
            const nd_gguf_span text = nd_gguf_next_text(&at);
            touch(text.at, text.bytes);
        }
    }
    touch(g.data, g.data_bytes);
    nd_gguf_find(&g, "general.architecture");
    nd_gguf_describe(&g, "fuzz.gguf", size, nowhere());
}

void nd_fuzz_safetensors(const uint8_t *bytes, size_t size)
{
    ND_CLEANUP(nd_safetensors_free) nd_safetensors f = {0};
    bool has_digest;
    nd_error_clear();
    if (nd_safetensors_parse(bytes, size, "fuzz.safetensors", &f) != ND_OK)
        return;
    for (size_t i = 0; i < f.count; i++) {
        const nd_safetensors_tensor *t = &f.tensors[i];
        int64_t weights = 1;
        touch(t->data, t->bytes);
        for (int d = 0; d < t->dimensions; d++)
            weights *= t->shape[d];
        ND_AUTOFREE float *values = malloc(((size_t)weights + 1) * sizeof *values);
        if (values && nd_safetensors_floats(t, 0, weights, values) != ND_OK)
            nd_error_clear();
    }
    nd_safetensors_find(&f, "model.norm.weight");
    nd_safetensors_text(&f, "format");
    nd_safetensors_describe(&f, "fuzz.safetensors", size, nowhere());
    nd_safetensors_verify(&f, "fuzz.safetensors", &has_digest);
}

void nd_fuzz_config_json(const uint8_t *bytes, size_t size)
{
    ND_AUTOFREE nd_config *config = malloc(sizeof *config);
    ND_AUTOFREE char *text = NULL;
    double epsilon;
    nd_error_clear();
    if (!config)
        return;
    nd_config_defaults(config);
    if (nd_hf_config_parse((const char *)bytes, size, "fuzz.json", config, &epsilon) == ND_OK) {
        const nd_model_config model = nd_model_config_from(config);
        ND_CLEANUP(nd_params_destroy) nd_params params = {0};
        nd_params_create(&model, &params);
        nd_hf_config_text(config, false, -1, &text);
    }
}

static void parse_manifest(const char *text, size_t size)
{
    nd_checkpoint *c = calloc(1, sizeof *c);
    ND_AUTOFREE char *again = NULL;
    nd_error_clear();
    if (c && nd_manifest_parse(text, size, "fuzz_manifest.json", c) == ND_OK) {
        for (int64_t i = 0; i < c->tensor_count; i++)
            touch((const uint8_t *)&c->tensors[i], sizeof c->tensors[i]);
        for (int64_t i = 0; i < c->file_count; i++)
            touch((const uint8_t *)&c->files[i], sizeof c->files[i]);
        nd_manifest_format(c, &again);
    }
    if (c) {
        free(c->tensors);
        free(c->files);
    }
    free(c);
}

void nd_fuzz_manifest(const uint8_t *bytes, size_t size)
{
    char hex[ND_SHA256_HEX_SIZE];
    parse_manifest((const char *)bytes, size);
    json_t *root = json_loadb((const char *)bytes, size, 0, NULL);
    if (json_is_object(root)) {
        json_object_del(root, "checksum");
        char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
        if (text && nd_sha256_hex(text, strlen(text), hex) == ND_OK) {
            json_object_set_new(root, "checksum", json_string(hex));
            free(text);
            text = json_dumps(root, JSON_COMPACT);
        }
        if (text)
            parse_manifest(text, strlen(text));
        free(text);
    }
    json_decref(root);
}

void nd_fuzz_ini(const uint8_t *bytes, size_t size)
{
    char path[32];
    ND_AUTOFREE nd_config *config = malloc(sizeof *config);
    ND_CLEANUP(nd_close_descriptor) int file = memfd_create("fuzz.ini", MFD_CLOEXEC);
    nd_error_clear();
    if (config && file >= 0 && write(file, bytes, size) == (ssize_t)size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        nd_config_defaults(config);
        if (nd_config_read_file(config, path) == ND_OK && nd_config_check(config) == ND_OK)
            nd_config_write(config, nowhere());
    }
}

/* What is accepted must be what the readers of data sets count on. */
void nd_fuzz_shard_index(const uint8_t *bytes, size_t size)
{
    ND_CLEANUP(nd_shard_index_free) nd_shard_index index = {0};
    int64_t tokens = 0;
    nd_error_clear();
    if (nd_shard_index_parse(bytes, size, "fuzz.json", &index) == ND_OK) {
        if (index.count == 0)
            abort();
        for (size_t i = 0; i < index.count; i++) {
            const nd_indexed_shard *s = &index.shards[i];
            if (!nd_shard_index_names(s) || strchr(s->name, '/') || s->n_documents > s->n_tokens ||
                __builtin_add_overflow(tokens, s->n_tokens, &tokens))
                abort();
            touch((const uint8_t *)s, sizeof *s);
        }
    }
}
