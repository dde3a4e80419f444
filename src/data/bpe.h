/* Byte-pair encoding with the pieces and scores of a SentencePiece model.
 *
 * The algorithm is SentencePiece's (bpe_model.cc): start from characters, always merge the adjacent
 * pair whose union is the piece of highest score, the leftmost among equals; a character that is no
 * piece becomes its bytes. So the tokens are SentencePiece's own wherever SentencePiece keeps the
 * text. Where it would not (NUL, invalid UTF-8, U+2581, which it reads as a space) the bytes are
 * emitted as byte pieces, and no text is ever changed.
 *
 * Between two characters that stand side by side in no piece, no merge can happen: such a place is
 * a boundary, the text on either side of it is encoded alone, and texts of any size can be cut
 * there without changing the tokens. */
#pragma once

#include "data/model_file.h"

#include <stdbool.h>

typedef struct nd_bpe nd_bpe;

/* A run of this many characters without a boundary is cut there. */
enum { ND_BPE_RUN_MAX = 1 << 20 };

typedef struct nd_id_list {
    int32_t *ids;
    size_t count, capacity;
} nd_id_list;

/* `model` is borrowed and outlives the result. Errors: ND_EDATA, ND_ENOMEM. */
nd_status nd_bpe_open(const nd_model_file *model, const char *name, nd_bpe **bpe);
void nd_bpe_close(nd_bpe *bpe);

/* Appends the tokens of `text`. Thread-safe: all scratch belongs to the call. */
nd_status nd_bpe_encode(const nd_bpe *bpe, const char *text, size_t bytes, nd_id_list *out);

/* The greatest n <= bytes at which `text` may be cut without changing the tokens, whatever follows
 * it; 0 when there is no such place. */
size_t nd_bpe_safe_cut(const nd_bpe *bpe, const char *text, size_t bytes);
