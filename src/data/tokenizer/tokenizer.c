#include "data/tokenizer/tokenizer.h"

#include "core/base/durable_file.h"
#include "core/base/sha256.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/model_file.h"

#include <stdlib.h>
#include <string.h>

struct nd_tokenizer {
    nd_model_file model;
    nd_bpe *bpe;
    void *bytes;
    size_t size;
    char sha256[ND_SHA256_HEX_SIZE];
};

/* Takes ownership of `bytes`, also on failure. */
static nd_status open_owned(void *bytes, size_t size, const char *name, nd_tokenizer **tokenizer)
{
    *tokenizer = NULL;
    nd_tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        free(bytes);
        return ND_FAIL(ND_ENOMEM, "%s: no memory for the tokenizer", name);
    }
    t->bytes = bytes;
    t->size = size;
    nd_status status = nd_sha256_hex(bytes, size, t->sha256);
    ND_IF_OK(nd_model_file_parse(bytes, size, name, &t->model));
    ND_IF_OK(nd_bpe_open(&t->model, name, &t->bpe));
    ND_RETURN_MADE(status, t, nd_tokenizer_close, tokenizer);
}

nd_status nd_tokenizer_open(const char *path, nd_tokenizer **tokenizer)
{
    void *bytes;
    size_t size;
    *tokenizer = NULL;
    ND_TRY(nd_read_whole_file(path, ND_EDATA, &bytes, &size));
    return open_owned(bytes, size, path, tokenizer);
}

nd_status nd_tokenizer_open_memory(const void *bytes, size_t size, const char *name,
                                   nd_tokenizer **tokenizer)
{
    *tokenizer = NULL;
    void *copy = malloc(size + 1);
    ND_FAIL_IF(!copy, ND_ENOMEM, "%s: no memory for its %zu bytes", name, size);
    if (size > 0)
        memcpy(copy, bytes, size);
    return open_owned(copy, size, name, tokenizer);
}

void nd_tokenizer_close(nd_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    nd_bpe_close(tokenizer->bpe);
    nd_model_file_free(&tokenizer->model);
    free(tokenizer->bytes);
    free(tokenizer);
}

int nd_tokenizer_vocab_size(const nd_tokenizer *tokenizer)
{
    return tokenizer->model.count;
}

int nd_tokenizer_eos(const nd_tokenizer *tokenizer)
{
    return tokenizer->model.eos;
}

const char *nd_tokenizer_sha256(const nd_tokenizer *tokenizer)
{
    return tokenizer->sha256;
}

const void *nd_tokenizer_model(const nd_tokenizer *tokenizer, size_t *size)
{
    *size = tokenizer->size;
    return tokenizer->bytes;
}

size_t nd_tokenizer_safe_cut(const nd_tokenizer *tokenizer, const char *text, size_t bytes)
{
    return nd_bpe_safe_cut(tokenizer->bpe, text, bytes);
}

nd_status nd_tokenizer_encode(const nd_tokenizer *tokenizer, const char *text, size_t bytes,
                              int32_t **ids, size_t *count)
{
    nd_id_list list = {0};
    list.ids = malloc((bytes / 2 + 16) * sizeof *list.ids);
    list.capacity = list.ids ? bytes / 2 + 16 : 0;
    const nd_status status = nd_bpe_encode(tokenizer->bpe, text, bytes, &list);
    if (status != ND_OK) {
        free(list.ids);
        list = (nd_id_list){0};
    }
    *ids = list.ids;
    *count = list.count;
    return status;
}

nd_status nd_tokenizer_decode(const nd_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              char **text, size_t *bytes)
{
    const nd_model_file *model = &tokenizer->model;
    *text = NULL;
    *bytes = 0;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        ND_FAIL_IF(ids[i] < 0 || ids[i] >= model->count, ND_EDATA,
                   "token %zu is %d; expected 0 to %d, the vocabulary", i, ids[i],
                   model->count - 1);
        total += model->pieces[ids[i]].bytes;
    }
    char *at = *text = malloc(total + 1);
    ND_FAIL_IF(!at, ND_ENOMEM, "no memory to decode %zu tokens", count);
    for (size_t i = 0; i < count; i++) {
        const nd_piece *piece = &model->pieces[ids[i]];
        memcpy(at, piece->text, piece->bytes);
        at += piece->bytes;
    }
    *at = '\0';
    *bytes = total;
    return ND_OK;
}
