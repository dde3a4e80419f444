#include "exchange/gguf_vocabulary.h"

#include <stdio.h>
#include <stdlib.h>

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

nd_status nd_gguf_put_vocabulary(nd_gguf_writer *w, const nd_model_file *v, int64_t vocab_size)
{
    const size_t count = (size_t)vocab_size;
    float *scores = calloc(count, sizeof *scores);
    int32_t *types = calloc(count, sizeof *types);
    if (!scores || !types) {
        free(scores);
        free(types);
        return ND_FAIL(ND_ENOMEM, "no memory for a vocabulary of %zu tokens", count);
    }
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
    free(scores);
    free(types);
    return ND_OK;
}
