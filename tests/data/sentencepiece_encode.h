/* SentencePiece's own encoding, which has a C++ interface only: the oracle of
 * src/data/tokenizer/bpe.c. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The caller frees *ids with free(). Returns 0, or a negative number with a reason in `message`. */
int nd_sentencepiece_encode(const void *model, size_t model_bytes, const char *text, size_t bytes,
                            int32_t **ids, size_t *count, char *message, size_t message_size);

#ifdef __cplusplus
}
#endif
