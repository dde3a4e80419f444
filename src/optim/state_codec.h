/* How an optimizer stores a matrix between steps: in f32, or quantized.
 *
 * A codec says which tensors it stores, how they are decoded to the matrix and how it is encoded
 * again. At most one matrix at a time is in full precision, in scratch memory that all share. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"

/* Consecutive elements that share a scale. Linear codes: arXiv:2509.23106; dynamic codes need
 * shorter blocks, since AdamW divides by small second moments. */
enum { ND_STATE_LINEAR_BLOCK = 2048, ND_STATE_DYNAMIC_BLOCK = 256 };

/* Smaller tensors (norms) stay in f32: their memory is negligible. */
enum { ND_STATE_QUANTIZED_MIN = 4096 };

enum { ND_STATE_PARTS_MAX = 7 };

typedef struct nd_state_codec nd_state_codec;

typedef struct nd_state {
    const nd_state_codec *codec;
    int64_t rows, cols;
    nd_view parts[ND_STATE_PARTS_MAX];
} nd_state;

/* Additional working memory of the low-rank codec; other codecs use none of it. Each view has room
 * for the largest of the states that share it. */
typedef struct nd_state_scratch {
    nd_view left;    /* f32 [rank, rows] */
    nd_view right;   /* f32 [rank, cols] */
    nd_view product; /* f32 [rank, rows] */
    nd_view gram;    /* f32 [rank, rank] */
    double *host;    /* 2 rank^2, host memory */
} nd_state_scratch;

struct nd_state_codec {
    const char *name;
    int parts;
    const char *suffixes[ND_STATE_PARTS_MAX]; /* of the names of the parts in a checkpoint */
    nd_status (*reserve)(nd_state *state, nd_arena *arena);
    /* Decodes the matrix to *m: in `into` (f32, at least as large), or in place where a part is
     * it. */
    nd_status (*load)(nd_backend *b, const nd_state *state, const nd_state_scratch *scratch,
                      nd_view into, nd_view *m);
    /* Encodes m, which load returned and the caller changed; m is overwritten. */
    nd_status (*store)(nd_backend *b, const nd_state *state, const nd_state_scratch *scratch,
                       nd_view m);
};

extern const nd_state_codec nd_state_fp32;    /* 4 bytes per element */
extern const nd_state_codec nd_state_linear8; /* 1 + 4/2048 bytes: Muon's momentum */
/* AdamW's moments: 1 + 4/256 bytes. The op adamw_blocks updates them without load and store. */
extern const nd_state_codec nd_state_dynamic8;
extern const nd_state_codec nd_state_low_rank4; /* state_low_rank4.c */

/* Chooses the codec of Muon's momentum and of AdamW's moments at [optimizer] state_bits. */
const nd_state_codec *nd_state_codec_momentum(int bits, int64_t rows, int64_t cols);
const nd_state_codec *nd_state_codec_moment(int bits, int64_t rows, int64_t cols, bool second);

/* Lays out the parts; zeroed memory encodes a zero matrix. Errors: those of nd_arena_reserve. */
nd_status nd_state_reserve(nd_state *state, const nd_state_codec *codec, int64_t rows, int64_t cols,
                           nd_arena *arena);

/* The state as ops take it; for codecs with blocks. */
nd_blocks nd_state_blocks(const nd_state *state);

/* The rank of the part that the low-rank codec stores separately for a [rows, cols] matrix. */
int64_t nd_state_low_rank(int64_t rows, int64_t cols);
