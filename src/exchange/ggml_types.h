/* The types of tensors in GGUF files: numbers and block sizes of ggml (ggml.h, enum ggml_type, and
 * ggml-common.h, as of September 2026). A tensor is rows of blocks; a row is a whole number of
 * them. */
#pragma once

#include <stdint.h>

enum {
    ND_GGML_F32 = 0,
    ND_GGML_F16 = 1,
    ND_GGML_TQ1_0 = 34,
    ND_GGML_TQ2_0 = 35,
    ND_GGML_Q2_0 = 42,
};

typedef struct nd_ggml_type {
    const char *name; /* "TQ2_0" */
    uint32_t number;
    uint32_t block_weights; /* weights of one block */
    uint32_t block_bytes;
} nd_ggml_type;

/* The type with this number; NULL when ggml has none. */
const nd_ggml_type *nd_ggml_type_find(uint32_t number);
