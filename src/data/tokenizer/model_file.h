/* The SentencePiece model file: a protobuf message ModelProto, read here without SentencePiece so
 * that a damaged or foreign file is refused with a reason.
 *
 * Used fields (sentencepiece_model.proto): ModelProto {1 pieces, 2 trainer_spec,
 * 3 normalizer_spec}; SentencePiece {1 piece, 2 score, 3 type}; TrainerSpec {3 model_type};
 * NormalizerSpec {2 precompiled_charsmap}; written: TrainerSpec {16 num_threads}. */
#pragma once

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum nd_piece_type {
    ND_PIECE_NORMAL = 1,
    ND_PIECE_UNKNOWN = 2,
    ND_PIECE_CONTROL = 3,
    ND_PIECE_BYTE = 6
} nd_piece_type;

typedef struct nd_piece {
    char *text; /* what the piece stands for: U+2581 is a space here; a byte piece is its byte */
    uint32_t bytes;
    const char *name; /* as the file writes it, in the bytes that were parsed; not terminated */
    uint32_t name_bytes;
    float score;
    nd_piece_type type;
} nd_piece;

typedef struct nd_model_file {
    nd_piece *pieces; /* [count], index is the token */
    int count;
    int bos, eos; /* -1 when absent */
    int32_t byte_pieces[256];
    char *text; /* storage of all pieces' texts */
} nd_model_file;

/* Parses a model file: BPE with byte fallback and identity normalization, nothing else. `name` is
 * for messages. Names of pieces point into `bytes`. The caller frees the model, unless it failed.
 * Errors: ND_EDATA with what was expected and found; ND_ENOMEM. */
nd_status nd_model_file_parse(const void *bytes, size_t size, const char *name,
                              nd_model_file *model);

/* Sets the number of training threads that the file records to 2, so that files do not depend on
 * it. Expects fewer than 128. */
void nd_model_file_normalize_threads(void *bytes, size_t size);

void nd_model_file_free(nd_model_file *model);
