/* Byte-pair encoding with the pieces and scores of a SentencePiece model.
 *
 * The algorithm is SentencePiece's (bpe_model.cc): start from characters and always merge the
 * adjacent pair whose union is the piece of highest score, the leftmost among equals; a character
 * that is no piece becomes its bytes. So the tokens equal SentencePiece's wherever it keeps the
 * text. Where it does not (NUL, invalid UTF-8, and U+2581, which it reads as a space) the bytes
 * become byte pieces, so that no text is ever changed.
 *
 * Two adjacent characters that are adjacent in no piece cannot be merged. The place between them is
 * a boundary: the text on either side is encoded on its own, and texts of any size can be cut there
 * without changing the tokens. */
#pragma once

#include "data/tokenizer/model_file.h"

#include <stdbool.h>

typedef struct nd_bpe nd_bpe;

/* A run of this many characters without a boundary is cut there. */
enum { ND_BPE_RUN_MAX = 1 << 20 };

typedef struct nd_id_list {
    int32_t *ids;
    size_t count, capacity;
} nd_id_list;

/* `model` must outlive the result; `name` is for messages. Errors: ND_EDATA, ND_ENOMEM. */
nd_status nd_bpe_open(const nd_model_file *model, const char *name, nd_bpe **bpe);
void nd_bpe_close(nd_bpe *bpe);

/* Appends the tokens of `text` to `out` (the caller frees). Thread-safe. Errors: ND_ENOMEM. */
nd_status nd_bpe_encode(const nd_bpe *bpe, const char *text, size_t bytes, nd_id_list *out);

/* The greatest n <= bytes at which `text` may be cut without changing the tokens, whatever follows
 * it; 0 when there is no such place. */
size_t nd_bpe_safe_cut(const nd_bpe *bpe, const char *text, size_t bytes);
