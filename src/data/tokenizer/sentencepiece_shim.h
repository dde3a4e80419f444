/* The C interface to SentencePiece's training, a C++ library. It throws no exceptions and logs
 * nothing. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ND_SENTENCEPIECE_FAILED = -1, ND_SENTENCEPIECE_NO_MEMORY = -2 };

/* Gives the next sentence, valid until the next call. Returns 1, or 0 at the end of the text, or a
 * negative number on an error, which ends the training. */
typedef int (*nd_sentencepiece_next)(void *context, const char **text, size_t *bytes);

/* Trains a BPE model: <unk> 0, <s> 1, </s> 2, the 256 byte pieces, then what is learned. The caller
 * frees *model with free(). Returns 0, or ND_SENTENCEPIECE_FAILED with a reason in `message`, or
 * ND_SENTENCEPIECE_NO_MEMORY. */
int nd_sentencepiece_train(int vocab_size, int threads, uint32_t seed, nd_sentencepiece_next next,
                           void *context, void **model, size_t *model_bytes, char *message,
                           size_t message_size);

#ifdef __cplusplus
}
#endif
