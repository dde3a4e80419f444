/* The SentencePiece vocabulary as llama.cpp's tokenizer "llama" takes it. */
#pragma once

#include "data/model_file.h"
#include "exchange/gguf_write.h"

/* Puts tokens, scores, types and special tokens; rows of the model beyond the vocabulary become
 * unused tokens. The mark between documents, </s>, which every training sequence and prompt begins
 * with, is named as the token to begin with. Errors: ND_ENOMEM. */
nd_status nd_gguf_put_vocabulary(nd_gguf_writer *writer, const nd_model_file *vocabulary,
                                 int64_t vocab_size);
