/* The SentencePiece vocabulary for llama.cpp's tokenizer "llama". */
#pragma once

#include "data/tokenizer/model_file.h"
#include "exchange/gguf_write.h"

/* Puts tokens, scores, types and special tokens; rows of the model beyond the vocabulary become
 * unused tokens. The document separator, </s>, with which every training sequence and prompt
 * begins, is named as the token to begin with. Errors: ND_ENOMEM. */
nd_status nd_gguf_put_vocabulary(nd_gguf_writer *writer, const nd_model_file *vocabulary,
                                 int64_t vocab_size);
