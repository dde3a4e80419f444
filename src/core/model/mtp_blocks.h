/* What multi-token prediction (core/model/mtp.h) keeps of a micro-batch. */
#pragma once

#include "core/model/layer.h"

typedef struct nd_mtp_block {
    nd_view inputs;    /* i32 [1, tokens] */
    nd_view embedding; /* [tokens, d] */
    nd_layer_activations acts;
    nd_view out; /* [tokens, d] */
} nd_mtp_block;

typedef struct nd_mtp {
    nd_mtp_block *blocks; /* [extra heads] */
    nd_view dx[2];        /* [tokens, d] */
    int32_t *column;      /* [tokens], host memory */
} nd_mtp;

/* Allocates host memory for extra heads, for micro-batches of `tokens`. Errors: ND_ENOMEM. */
nd_status nd_mtp_create(nd_mtp *mtp, const nd_model_config *config, int64_t tokens);
void nd_mtp_destroy(nd_mtp *mtp);

/* Reserves the blocks' activations: run it on a sizing arena, commit, run it again. Errors: those
 * of nd_arena_reserve. */
nd_status nd_mtp_reserve(nd_mtp *mtp, const nd_model_config *config, int64_t tokens,
                         nd_arena *arena);
