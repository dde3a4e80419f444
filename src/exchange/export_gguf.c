#include "core/base/build_info.h"
#include "core/base/durable_file.h"
#include "core/base/float_formats.h"
#include "exchange/export.h"
#include "exchange/ggml_types.h"
#include "exchange/gguf_write.h"
#include "exchange/ternary_blocks.h"
#include "train/run/libraries.h"

#include <stdlib.h>

enum { BLOCK_BYTES_MAX = 66 };

static const float norm_epsilon = 1e-5f; /* inside the root of every RMSNorm */

/* A file type of llama.cpp (llama.h, enum llama_ftype). */
typedef struct file_type {
    const char *name;
    uint32_t number;
    uint32_t projections, rest; /* types of tensors; norms are f32 */
} file_type;

static const file_type file_types[] = {
    [ND_EXPORT_TQ2_0] = {"tq2_0", 37, ND_GGML_TQ2_0, ND_GGML_F16},
    [ND_EXPORT_TQ1_0] = {"tq1_0", 36, ND_GGML_TQ1_0, ND_GGML_F16},
    [ND_EXPORT_Q2_0] = {"q2_0", 41, ND_GGML_Q2_0, ND_GGML_F16},
    [ND_EXPORT_F16] = {"f16", 1, ND_GGML_F16, ND_GGML_F16},
    [ND_EXPORT_F32] = {"f32", 0, ND_GGML_F32, ND_GGML_F32},
};

static uint32_t tensor_type(const file_type *f, const nd_param *p)
{
    if (p->role == ND_ROLE_NORM)
        return ND_GGML_F32;
    return p->role == ND_ROLE_TERNARY ? f->projections : f->rest;
}

/* A block has one scale, so it must lie within one group of inputs. */
static nd_status check_blocks(const nd_source *s, const file_type *f)
{
    const nd_ggml_type *t = nd_ggml_type_find(f->projections);
    const int64_t block = t->block_weights, group = s->model.group_size;
    for (int64_t i = 0; i < s->params.count; i++) {
        const nd_param *p = &s->params.list[i];
        ND_FAIL_IF(p->role == ND_ROLE_TERNARY && p->cols % block != 0, ND_ECONFIG,
                   "--type %s: %s has rows of %lld weights; blocks of %s hold %lld (hidden_dim and "
                   "the feed-forward width must be multiples; f16 and f32 take any)",
                   f->name, p->name, (long long)p->cols, t->name, (long long)block);
    }
    ND_FAIL_IF(group > 0 && group % block != 0, ND_ECONFIG,
               "--type %s: blocks of %s hold %lld weights with one scale, the model's groups %lld "
               "(group_size must be a multiple; f16 and f32 take any)",
               f->name, t->name, (long long)block, (long long)group);
    return ND_OK;
}

static void put_number(nd_gguf_writer *w, const char *arch, const char *key, int64_t value)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    nd_gguf_put_u32(w, name, (uint32_t)value);
}

static void put_float(nd_gguf_writer *w, const char *arch, const char *key, double value)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    nd_gguf_put_f32(w, name, (float)value);
}

/* llama.cpp's token types are SentencePiece's, and 5 for tokens that are never used. */
enum { TYPE_UNUSED = 5, UNUSED_NAME_MAX = 32 };

static int32_t unknown_piece(const nd_model_file *vocabulary)
{
    for (int i = 0; i < vocabulary->count; i++)
        if (vocabulary->pieces[i].type == ND_PIECE_UNKNOWN)
            return i;
    return -1;
}

static void put_special_tokens(nd_gguf_writer *w, const nd_model_file *v)
{
    const int start = v->eos >= 0 ? v->eos : v->bos, unknown = unknown_piece(v);
    if (start >= 0)
        nd_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)start);
    if (v->eos >= 0)
        nd_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (unknown >= 0)
        nd_gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)unknown);
    nd_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", start >= 0);
    nd_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
    nd_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    nd_gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", false);
}

/* The SentencePiece vocabulary for llama.cpp's tokenizer "llama": rows of the model beyond it
 * become unused tokens. The document separator, </s>, with which every training sequence and prompt
 * begins, is named as the token to begin with. */
static nd_status put_vocabulary(nd_gguf_writer *w, const nd_model_file *v, int64_t vocab_size)
{
    const size_t count = (size_t)vocab_size;
    ND_AUTOFREE float *scores = calloc(count, sizeof *scores);
    ND_AUTOFREE int32_t *types = calloc(count, sizeof *types);
    ND_FAIL_IF(!scores || !types, ND_ENOMEM, "no memory for a vocabulary of %zu tokens", count);
    nd_gguf_put_text(w, "tokenizer.ggml.model", "llama");
    nd_gguf_put_text(w, "tokenizer.ggml.pre", "default");
    nd_gguf_put_texts(w, "tokenizer.ggml.tokens", count);
    for (int64_t i = 0; i < vocab_size; i++) {
        if (i < v->count) {
            const nd_piece *piece = &v->pieces[i];
            nd_gguf_put_element(w, piece->name, piece->name_bytes);
            scores[i] = piece->score;
            types[i] = (int32_t)piece->type;
        } else {
            char name[UNUSED_NAME_MAX];
            const int bytes = snprintf(name, sizeof name, "[UNUSED%lld]", (long long)i);
            nd_gguf_put_element(w, name, (size_t)bytes);
            types[i] = TYPE_UNUSED;
        }
    }
    nd_gguf_put_f32s(w, "tokenizer.ggml.scores", scores, count);
    nd_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, count);
    put_special_tokens(w, v);
    return ND_OK;
}

static nd_status put_metadata(const nd_source *s, const file_type *f, nd_gguf_writer *w)
{
    const nd_model_config *m = &s->model;
    const char *arch = m->arch == ND_ARCH_BITNET ? "bitnet" : "llama";
    nd_gguf_put_text(w, "general.architecture", arch);
    nd_gguf_put_text(w, "general.type", "model");
    nd_gguf_put_u32(w, "general.file_type", f->number);
    nd_gguf_put_u32(w, "general.quantization_version", 2);
    char options[256], libraries[384], program[800];
    nd_build_options(options, sizeof options);
    nd_program_libraries(libraries, sizeof libraries);
    snprintf(program, sizeof program, "%s, commit %s; %s; %s", nd_build_version(),
             nd_build_commit(), options, libraries);
    nd_gguf_put_text(w, "nanochat_dist.program", program);
    put_number(w, arch, "vocab_size", m->vocab_size);
    put_number(w, arch, "context_length", s->config.model.max_seq_len);
    put_number(w, arch, "embedding_length", m->hidden_dim);
    put_number(w, arch, "block_count", m->num_layers);
    put_number(w, arch, "feed_forward_length", m->ffn_dim);
    put_number(w, arch, "attention.head_count", m->num_heads);
    put_number(w, arch, "attention.head_count_kv", m->num_kv_heads);
    put_float(w, arch, "attention.layer_norm_rms_epsilon", (double)norm_epsilon);
    put_number(w, arch, "rope.dimension_count", m->head_dim);
    put_float(w, arch, "rope.freq_base", m->rope_base);
    if (s->has_tokenizer)
        return put_vocabulary(w, &s->vocabulary, m->vocab_size);
    nd_gguf_put_text(w, "tokenizer.ggml.model", "none");
    return ND_OK;
}

static nd_status write_f32(nd_gguf_writer *w, const nd_source_tensor *t, float *row)
{
    for (int64_t r = 0; r < t->param->rows; r++) {
        nd_source_row(t, r, row);
        ND_TRY(nd_gguf_write(w, row, (size_t)t->param->cols * sizeof *row));
    }
    return ND_OK;
}

static nd_status write_f16(nd_gguf_writer *w, const nd_source_tensor *t, float *row)
{
    uint16_t *halves = (uint16_t *)(row + t->param->cols);
    for (int64_t r = 0; r < t->param->rows; r++) {
        nd_source_row(t, r, row);
        for (int64_t i = 0; i < t->param->cols; i++) {
            halves[i] = nd_f16_from_float(row[i]);
            ND_FAIL_IF((halves[i] & 0x7c00u) == 0x7c00u, ND_ECONFIG,
                       "%s holds %g at [%lld, %lld], which f16 cannot; use --type f32",
                       t->param->name, (double)row[i], (long long)r, (long long)i);
        }
        ND_TRY(nd_gguf_write(w, halves, (size_t)t->param->cols * sizeof *halves));
    }
    return ND_OK;
}

static nd_status write_blocks(nd_gguf_writer *w, const nd_source_tensor *t, uint32_t type)
{
    const nd_ggml_type *g = nd_ggml_type_find(type);
    uint8_t block[BLOCK_BYTES_MAX];
    for (int64_t r = 0; r < t->param->rows; r++) {
        for (int64_t i = 0; i < t->param->cols; i += g->block_weights) {
            const uint16_t scale = nd_f16_from_float(nd_source_scale(t, r, i));
            nd_ternary_block_encode(type, t->codes + r * t->param->cols + i, scale, block);
            ND_TRY(nd_gguf_write(w, block, g->block_bytes));
        }
    }
    return ND_OK;
}

static nd_status write_tensor(nd_gguf_writer *w, const nd_source *s, int64_t index,
                              const file_type *f)
{
    ND_CLEANUP(nd_source_tensor_free) nd_source_tensor t = {0};
    ND_TRY(nd_source_read(s, index, &t));
    const uint32_t type = tensor_type(f, t.param);
    ND_AUTOFREE float *row = malloc((size_t)t.param->cols * (sizeof(float) + sizeof(uint16_t)));
    ND_FAIL_IF(!row, ND_ENOMEM, "no memory for a row of %s", t.param->name);
    if (type == ND_GGML_F32)
        ND_TRY(write_f32(w, &t, row));
    else if (type == ND_GGML_F16)
        ND_TRY(write_f16(w, &t, row));
    else
        ND_TRY(write_blocks(w, &t, type));
    return nd_gguf_writer_end_tensor(w);
}

static nd_status write_file(const nd_source *s, const file_type *f, const char *path,
                            nd_gguf_writer *w)
{
    ND_TRY(put_metadata(s, f, w));
    for (int64_t i = 0; i < s->params.count; i++) {
        const nd_param *p = &s->params.list[i];
        nd_gguf_put_tensor(w, p->name, tensor_type(f, p), p->rows, p->cols,
                           p->role == ND_ROLE_NORM);
    }
    ND_TRY(nd_gguf_writer_start(w, path));
    for (int64_t i = 0; i < s->params.count; i++)
        ND_TRY(write_tensor(w, s, i, f));
    return nd_gguf_writer_finish(w);
}

nd_status nd_export_gguf(const nd_source *s, nd_gguf_export_type type, const char *path)
{
    const file_type *f = &file_types[type];
    nd_gguf_writer *w = NULL;
    ND_TRY(check_blocks(s, f));
    ND_TRY(nd_durable_check(path, "GGUF", "a GGUF file"));
    ND_TRY(nd_gguf_writer_create(&w));
    const nd_status status = write_file(s, f, path, w);
    nd_gguf_writer_close(w);
    return status;
}
