#include "core/model/mtp_blocks.h"

#include <stdlib.h>

nd_status nd_mtp_create(nd_mtp *mtp, const nd_model_config *config, int64_t tokens)
{
    const size_t heads = (size_t)nd_model_extra_heads(config);
    if (heads == 0)
        return ND_OK;
    mtp->blocks = calloc(heads, sizeof *mtp->blocks);
    mtp->column = calloc((size_t)tokens, sizeof *mtp->column);
    return ND_CHECK(mtp->blocks && mtp->column, ND_ENOMEM,
                    "no memory for %zu heads of multi-token prediction", heads);
}

void nd_mtp_destroy(nd_mtp *mtp)
{
    free(mtp->blocks);
    free(mtp->column);
}

static nd_status reserve_block(nd_mtp_block *block, const nd_model_config *c, int64_t t,
                               nd_arena *arena)
{
    const int64_t d = c->hidden_dim;
    ND_TRY(nd_arena_reserve(arena, ND_I32, 1, t, &block->inputs));
    ND_TRY(nd_arena_reserve(arena, c->compute, t, d, &block->embedding));
    ND_TRY(nd_layer_activations_reserve(arena, c, t, &block->acts));
    return nd_arena_reserve(arena, c->compute, t, d, &block->out);
}

nd_status nd_mtp_reserve(nd_mtp *mtp, const nd_model_config *config, int64_t tokens,
                         nd_arena *arena)
{
    const int64_t heads = nd_model_extra_heads(config);
    if (config->mtp_form != ND_MTP_SEQUENTIAL)
        return ND_OK;
    for (int64_t k = 0; k < heads; k++)
        ND_TRY(reserve_block(&mtp->blocks[k], config, tokens, arena));
    for (int i = 0; i < 2 && heads > 0; i++)
        ND_TRY(nd_arena_reserve(arena, config->compute, tokens, config->hidden_dim, &mtp->dx[i]));
    return ND_OK;
}
