#include "core/base/durable_file.h"
#include "data/text/json.h"
#include "exchange/hf_layout.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* `whole`: everything could be put into `root`. */
static nd_status dump_json(json_t *root, bool whole, char **text)
{
    *text = whole ? nd_json_text(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return ND_CHECK(*text, ND_ENOMEM, "no memory for a configuration's text");
}

static bool set_mark(json_t *root, int mark)
{
    return json_object_set_new(root, "bos_token_id",
                               mark >= 0 ? json_integer(mark) : json_null()) == 0 &&
           json_object_set_new(root, "eos_token_id",
                               mark >= 0 ? json_integer(mark) : json_null()) == 0;
}

nd_status nd_hf_config_text(const nd_config *c, bool bf16, int mark, char **text)
{
    const bool llama = c->model.arch == ND_ARCH_LLAMA;
    json_t *root = json_pack(
        "{s:[s],s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:I,s:f,s:b,s:b,s:f,s:{s:s,s:f},s:s,s:s}",
        "architectures", llama ? "LlamaForCausalLM" : "BitNetForCausalLM", "model_type",
        llama ? "llama" : "bitnet", "vocab_size", (json_int_t)c->model.vocab_size, "hidden_size",
        (json_int_t)c->model.hidden_dim, "intermediate_size", (json_int_t)nd_config_ffn_dim(c),
        "num_hidden_layers", (json_int_t)c->model.num_layers, "num_attention_heads",
        (json_int_t)c->model.num_heads, "num_key_value_heads", (json_int_t)c->model.num_kv_heads,
        "head_dim", (json_int_t)(c->model.hidden_dim / c->model.num_heads), "hidden_act", "silu",
        "max_position_embeddings", (json_int_t)c->model.max_seq_len, "rms_norm_eps", 1e-5,
        "tie_word_embeddings", (int)c->model.tie_embeddings, "attention_bias", 0, "rope_theta",
        c->model.rope_base, "rope_parameters", "rope_type", "default", "rope_theta",
        c->model.rope_base, "dtype", bf16 ? "bfloat16" : "float32", "torch_dtype",
        bf16 ? "bfloat16" : "float32");
    const bool whole =
        root && (!llama || json_object_set_new(root, "mlp_bias", json_false()) == 0) &&
        json_object_set_new(root, "pad_token_id", json_null()) == 0 && set_mark(root, mark);
    return dump_json(root, whole, text);
}

nd_status nd_hf_generation_text(int mark, char **text)
{
    json_t *root = json_object();
    return dump_json(root, root && set_mark(root, mark), text);
}

/* The config.json being read. */
typedef struct config_reader {
    const char *path;
    json_t *root;
    nd_config *config;
} config_reader;

static nd_status set_integer(const config_reader *r, const char *hf_key, const char *key,
                             const char *fallback)
{
    const json_t *value = json_object_get(r->root, hf_key);
    char text[32], origin[PATH_MAX + 64];
    snprintf(origin, sizeof origin, "%s: %s", r->path, hf_key);
    if (json_is_integer(value))
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if ((!value || json_is_null(value)) && fallback)
        snprintf(text, sizeof text, "%s", fallback);
    else
        return ND_FAIL(ND_EDATA, "%s: %s is %s; expected a whole number", r->path, hf_key,
                       value ? "not a whole number" : "missing");
    return nd_config_set_key(r->config, "model", key, text, origin);
}

/* Checks a key that must be missing or have one value, because the graph would otherwise differ. */
static nd_status check_text(const config_reader *r, const char *key, const char *expected,
                            const char *why)
{
    const json_t *value = json_object_get(r->root, key);
    const char *word = json_string_value(value);
    if (!value || json_is_null(value) || (word && strcmp(word, expected) == 0))
        return ND_OK;
    return ND_FAIL(ND_EDATA, "%s: %s is '%.40s'; expected '%s': %s", r->path, key,
                   word ? word : "not a string", expected, why);
}

static nd_status check_false(const config_reader *r, const char *key)
{
    const json_t *value = json_object_get(r->root, key);
    if (!value || json_is_null(value) || json_is_false(value))
        return ND_OK;
    return ND_FAIL(ND_EDATA, "%s: %s is set; this program's graphs have no biases", r->path, key);
}

static nd_status set_arch(const config_reader *r)
{
    const char *type = json_string_value(json_object_get(r->root, "model_type"));
    ND_FAIL_IF(!type || (strcmp(type, "llama") != 0 && strcmp(type, "bitnet") != 0), ND_EDATA,
               "%s: model_type is '%.40s'; this program knows the graphs llama and bitnet", r->path,
               type ? type : "missing");
    ND_FAIL_IF(
        strcmp(type, "bitnet") == 0 && !json_object_get(r->root, "hidden_act"), ND_EDATA,
        "%s: hidden_act is missing, which means relu2 for bitnet; this program's graph uses silu",
        r->path);
    ND_TRY(check_text(r, "hidden_act", "silu", "the feed-forward layers here are SwiGLU"));
    const json_t *quantization = json_object_get(r->root, "quantization_config");
    ND_FAIL_IF(quantization && !json_is_null(quantization), ND_EDATA,
               "%s: the weights are quantized (quantization_config); expected plain ones", r->path);
    return nd_config_set_key(r->config, "model", "arch", type, r->path);
}

/* Reads an optional number, which must be above 0; *number stays when it is missing or null. */
static nd_status read_number(const config_reader *r, const json_t *object, const char *key,
                             double *number)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return ND_OK;
    ND_FAIL_IF(!json_is_number(value) || !(json_number_value(value) > 0.0), ND_EDATA,
               "%s: %s is %s; expected a number above 0", r->path, key,
               json_is_number(value) ? "0 or less" : "not a number");
    *number = json_number_value(value);
    return ND_OK;
}

static nd_status set_number(const config_reader *r, const char *hf_key, const char *key,
                            double value)
{
    char text[40], origin[PATH_MAX + 64];
    snprintf(text, sizeof text, "%.17g", value);
    snprintf(origin, sizeof origin, "%s: %s", r->path, hf_key);
    return nd_config_set_key(r->config, "model", key, text, origin);
}

/* `key` is rope_parameters or its older name rope_scaling; transformers applies what either says.
 */
static nd_status read_rope(const config_reader *r, const char *key, double *base)
{
    const json_t *rope = json_object_get(r->root, key);
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    double part = 1.0;
    type = type ? type : json_string_value(json_object_get(rope, "type"));
    ND_FAIL_IF(type && strcmp(type, "default") != 0, ND_EDATA,
               "%s: rotary positions are scaled (%.40s) by %s; this program's are not", r->path,
               type, key);
    ND_TRY(read_number(r, rope, "rope_theta", base));
    ND_TRY(read_number(r, r->root, "partial_rotary_factor", &part));
    ND_TRY(read_number(r, rope, "partial_rotary_factor", &part));
    return ND_CHECK(part == 1.0, ND_EDATA,
                    "%s: partial_rotary_factor is %g: only a part of each head is rotated; this "
                    "program rotates all of it",
                    r->path, part);
}

static nd_status set_rope(const config_reader *r)
{
    double base = 10000.0;
    ND_TRY(read_number(r, r->root, "rope_theta", &base));
    ND_TRY(read_rope(r, "rope_scaling", &base));
    ND_TRY(read_rope(r, "rope_parameters", &base)); /* the newer key takes precedence */
    return set_number(r, "rope_theta", "rope_base", base);
}

static nd_status set_shape(const config_reader *r)
{
    char heads[32];
    ND_TRY(set_integer(r, "hidden_size", "hidden_dim", NULL));
    ND_TRY(set_integer(r, "num_hidden_layers", "num_layers", NULL));
    ND_TRY(set_integer(r, "num_attention_heads", "num_heads", NULL));
    snprintf(heads, sizeof heads, "%lld", (long long)r->config->model.num_heads);
    ND_TRY(set_integer(r, "num_key_value_heads", "num_kv_heads", heads));
    ND_TRY(set_integer(r, "vocab_size", "vocab_size", NULL));
    ND_TRY(set_integer(r, "max_position_embeddings", "max_seq_len", "2048"));
    const json_t *wide = json_object_get(r->root, "intermediate_size");
    ND_FAIL_IF(!json_is_integer(wide), ND_EDATA, "%s: intermediate_size is not a whole number",
               r->path);
    const double hidden = (double)r->config->model.hidden_dim;
    ND_TRY(
        set_number(r, "intermediate_size", "ffn_mult", (double)json_integer_value(wide) / hidden));
    const json_t *head_dim = json_object_get(r->root, "head_dim");
    int64_t together;
    ND_FAIL_IF(head_dim && !json_is_null(head_dim) && !json_is_integer(head_dim), ND_EDATA,
               "%s: head_dim is not a whole number", r->path);
    ND_FAIL_IF(json_is_integer(head_dim) &&
                   (__builtin_mul_overflow(json_integer_value(head_dim), r->config->model.num_heads,
                                           &together) ||
                    together != r->config->model.hidden_dim),
               ND_EDATA,
               "%s: head_dim = %" JSON_INTEGER_FORMAT " times %lld heads is not hidden_size = "
               "%lld, which this program's graphs need",
               r->path, json_integer_value(head_dim), (long long)r->config->model.num_heads,
               (long long)r->config->model.hidden_dim);
    return ND_OK;
}

static nd_status read_keys(const config_reader *r, double *epsilon)
{
    ND_TRY(set_arch(r));
    ND_TRY(check_false(r, "attention_bias"));
    ND_TRY(check_false(r, "mlp_bias"));
    ND_TRY(set_shape(r));
    ND_TRY(set_rope(r));
    const json_t *tied = json_object_get(r->root, "tie_word_embeddings");
    ND_FAIL_IF(tied && !json_is_null(tied) && !json_is_boolean(tied), ND_EDATA,
               "%s: tie_word_embeddings is neither true nor false", r->path);
    ND_TRY(nd_config_set_key(r->config, "model", "tie_embeddings",
                             json_is_true(tied) ? "true" : "false", r->path));
    *epsilon = 1e-6;
    ND_TRY(read_number(r, r->root, "rms_norm_eps", epsilon));
    if (r->config->training.seq_length > r->config->model.max_seq_len)
        r->config->training.seq_length = r->config->model.max_seq_len;
    return nd_config_check_model(r->config);
}

nd_status nd_hf_config_parse(const char *text, size_t size, const char *path, nd_config *config,
                             double *epsilon)
{
    json_error_t error;
    json_auto_t *root = NULL;
    ND_TRY(nd_json_parse(text, size, 0, path, &root, &error));
    const config_reader r = {path, root, config};
    ND_FAIL_IF(!json_is_object(root), ND_EDATA, "%s:%d: not a JSON object: %s", path,
               root ? 1 : error.line, root ? "another value" : error.text);
    return read_keys(&r, epsilon);
}

nd_status nd_hf_config_read(const char *path, nd_config *config, double *epsilon)
{
    ND_AUTOFREE void *text = NULL;
    size_t size = 0;
    ND_TRY(nd_read_whole_file(path, ND_EDATA, &text, &size));
    return nd_hf_config_parse(text, size, path, config, epsilon);
}
