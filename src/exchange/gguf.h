/* GGUF version 3, the container of ggml and llama.cpp (gguf.h there), little-endian:
 *
 *   "GGUF", u32 version, i64 tensors, i64 key-value pairs
 *   a pair:   text key, i32 type, value; an array: i32 type of elements, u64 count, elements
 *   a tensor: text name, u32 dimensions, i64 lengths (the innermost first), i32 type, u64 offset
 *   padding to the alignment, then the tensors' data, each padded to the alignment
 *
 * A text is its u64 length and its bytes. Tensors follow one another without gaps beyond the
 * padding, which llama.cpp insists on. */
#pragma once

enum { ND_GGUF_VERSION = 3, ND_GGUF_ALIGNMENT = 32, ND_GGUF_DIMENSIONS_MAX = 4 };

typedef enum nd_gguf_kind {
    ND_GGUF_U8 = 0,
    ND_GGUF_I8 = 1,
    ND_GGUF_U16 = 2,
    ND_GGUF_I16 = 3,
    ND_GGUF_U32 = 4,
    ND_GGUF_I32 = 5,
    ND_GGUF_F32 = 6,
    ND_GGUF_BOOL = 7,
    ND_GGUF_TEXT = 8,
    ND_GGUF_ARRAY = 9,
    ND_GGUF_U64 = 10,
    ND_GGUF_I64 = 11,
    ND_GGUF_F64 = 12,
    ND_GGUF_KIND_COUNT
} nd_gguf_kind;

/* This program's own key, ignored by llama.cpp: SHA-256 of what follows the header, in hex. */
#define ND_GGUF_DIGEST_KEY "nanochat_dist.data_sha256"
