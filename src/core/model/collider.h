/* Collider: the backward pass over some of the tokens (arXiv:2502.00340).
 *
 * The forward pass is unchanged. A rule chooses which tokens of a micro-batch are kept:
 *   sample  token t with probability p_t = min(1, c s_t), s_t the norm of its logits' gradient, c
 *           such that a fixed number is kept; its loss has weight 1/p_t, so that the expected loss
 *           is that of all tokens
 *   loss    importance is the next-token loss, min-max normalized; a token is filtered when it is
 *           below `threshold` and its loss among the lowest `sparsity`
 *   excess  the same, by the loss minus a reference model's
 * A filtered token's loss is masked and its keys and values are constants. So it is in no product
 * of the backward pass, which runs on compacted rows (docs/collider.md). */
#pragma once

#include "core/base/arena.h"
#include "core/model/model_config.h"

/* Compacted rows are padded to multiples of this, so that backends meet few shapes. */
enum { ND_KEPT_ROUND = 32 };

/* What the choice depends on besides the losses. */
typedef struct nd_collider_draw {
    int64_t sample;          /* sample: number of the micro-batch's first sequence in the run */
    const double *reference; /* excess: [tokens] losses of the reference model, host memory */
} nd_collider_draw;

/* The token at each position and the next ones, in host memory. */
typedef struct nd_collider_tokens {
    const int32_t *inputs, *targets; /* [tokens], [tokens, stride] */
    int64_t vocabulary;
    int stride;
} nd_collider_tokens;

typedef struct nd_collider {
    nd_collider_params params;
    int64_t tokens;
    nd_view rows;     /* i32 [1, tokens], backend memory */
    nd_view late;     /* i32 [1, tokens]: the rows of nd_collider_split */
    nd_view measured; /* sample: f32 or f64 [2 tokens, 1]: losses, then `norms` */
    nd_view norms;    /* [tokens, 1] of the prediction errors; data NULL: not sample */
    nd_view weights;  /* sample: [tokens, 1] factors of the kept rows' losses */
    nd_collider_draw draw;
    int32_t *kept;       /* [tokens]; this and the rest are host memory */
    int32_t *order;      /* [tokens] */
    double *losses;      /* [tokens] */
    double *probability; /* [tokens] sample */
    void *transfer;      /* [2 tokens] of nll's dtype */
} nd_collider;

/* Allocates host memory for micro-batches of `tokens` tokens. Errors: ND_ENOMEM. */
nd_status nd_collider_create(nd_collider *collider, nd_collider_params params, int64_t tokens);
void nd_collider_destroy(nd_collider *collider);

/* Reserves the collider's views in backend memory, with losses of type `wide`: run it on a sizing
 * arena, commit, run it again. Errors: those of nd_arena_reserve. */
nd_status nd_collider_reserve(nd_collider *collider, nd_dtype wide, nd_arena *arena);

/* Chooses by nll [tokens, 1], and with `sample` also by collider->norms and `ids`; waits for the
 * backend. *count receives how many tokens are kept, *rows their indices in the form of gather_rows
 * (data NULL: all), and *weight [rows, 1] the factors of their losses (data NULL: 1); both are
 * valid until the next call. Errors: ND_ECONFIG with `excess` and no reference. */
nd_status nd_collider_choose(nd_collider *collider, nd_backend *b, nd_cview nll,
                             const nd_collider_tokens *ids, nd_cview *rows, nd_cview *weight,
                             int64_t *count);

/* Splits the chosen tokens at about token `first`. *before receives how many are in the first part:
 * those before `first`, rounded up to a multiple of ND_KEPT_ROUND while there are as many, so that
 * backends meet few numbers of rows. *rows receives the others, counted from `first`, in the form
 * of gather_rows with padding; valid until the next call. */
nd_status nd_collider_split(nd_collider *collider, nd_backend *b, nd_cview chosen, int64_t first,
                            int64_t *before, nd_cview *rows);

/* Targets [tokens, offsets] of the chosen tokens, compacted in place; -1 in rows of padding. With
 * loss and excess a kept position does not predict a filtered token: its target becomes -1.
 * `length` is that of a sequence. */
void nd_collider_compact_targets(const nd_collider *collider, nd_cview rows, int64_t length,
                                 int offsets, int32_t *targets);

/* Chooses among `tokens` losses: kept[0..count) receives the indices of the kept tokens, ascending,
 * then -1 up to a multiple of ND_KEPT_ROUND or to `tokens`, whichever is less; *rows is how many
 * were written. Among equal losses the lower index is filtered first. Keeps all when all losses are
 * equal or one is not finite. `order`: room for `tokens` indices. Returns count. */
int64_t nd_collider_select(nd_collider_params params, const double *losses, int64_t tokens,
                           int32_t *order, int32_t *kept, int64_t *rows);
