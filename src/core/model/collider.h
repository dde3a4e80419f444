/* Collider: the backward pass of the tokens that are not learnt yet (arXiv:2502.00340).
 *
 * The forward pass is untouched. The importance of a token is its next-token loss, min-max normalised
 * over the micro-batch; a token is filtered when its importance is below `threshold` and its loss is
 * among the lowest `sparsity` of the micro-batch, so that never more than that part goes. A filtered
 * token's loss is masked and its keys and values are constants: so it takes part in no product of
 * the backward pass, which runs on compacted rows (docs/model.md). */
#ifndef ND_CORE_MODEL_COLLIDER_H
#define ND_CORE_MODEL_COLLIDER_H

#include "core/model/layer.h"

/* Compacted rows come in multiples of this, the last ones zero, so that backends meet few shapes. */
enum { ND_KEPT_ROUND = 32 };

typedef struct nd_collider_params {
    double threshold; /* importance in [0, 1] below which a token may go */
    double sparsity;  /* largest part that goes */
} nd_collider_params;

typedef struct nd_collider {
    nd_collider_params params;
    int64_t tokens;
    nd_view rows;   /* i32 [1, tokens], backend memory */
    nd_view late;   /* the same of nd_collider_late */
    int32_t *kept;  /* [tokens], host memory, as the rest */
    int32_t *order; /* [tokens] */
    double *losses; /* [tokens] */
    void *transfer; /* [tokens] of nll's dtype */
} nd_collider;

/* Takes host memory for micro-batches of `tokens` tokens. Errors: ND_ENOMEM. */
nd_status nd_collider_create(nd_collider *collider, nd_collider_params params, int64_t tokens);
void nd_collider_destroy(nd_collider *collider);

/* Takes its views in backend memory: run on a sizing arena, commit, run again. Errors: nd_arena_reserve's. */
nd_status nd_collider_reserve(nd_collider *collider, nd_arena *arena);

/* Chooses by nll [tokens, 1] (waits for the backend). *count receives how many tokens stay and *rows
 * their indices, as gather_rows takes them, valid until the next call; rows->data is NULL when all
 * stay. */
nd_status nd_collider_choose(nd_collider *collider, nd_backend *b, nd_cview nll, nd_cview *rows,
                             int64_t *count);

/* The chosen tokens from about `first` on, counted from it: *rows as gather_rows takes them, padding
 * included, valid until the next call; *before is how many chosen tokens stand before them. That is
 * rounded up to a multiple of ND_KEPT_ROUND where there are as many, so that the products of both parts
 * have few different numbers of rows: backends keep what they planned for each. */
nd_status nd_collider_late(nd_collider *collider, nd_backend *b, nd_cview chosen, int64_t first,
                           int64_t *before, nd_cview *rows);

/* Targets [tokens, offsets] of the chosen tokens, compacted in place. A kept position does not predict
 * a filtered token: its target becomes -1, as in rows of padding. `length` is that of a sequence. */
void nd_collider_compact_targets(const nd_collider *collider, nd_cview rows, int64_t length,
                                 int offsets, int32_t *targets);

/* Chooses among `tokens` losses: kept[0..count) receives the indices that stay, ascending, then -1 up
 * to a multiple of ND_KEPT_ROUND or `tokens`, whichever is less; `*rows` is how many were written.
 * Equal losses go in the order of their index. Keeps all when no order can be made of them (equal
 * losses, or one that is not finite). `order`: room for `tokens` indices. Returns count. */
int64_t nd_collider_select(nd_collider_params params, const double *losses, int64_t tokens,
                           int32_t *order, int32_t *kept, int64_t *rows);

typedef enum nd_collider_extent {
    ND_COLLIDER_INPUTS, /* x, its norm, and what the projections of attention read */
    ND_COLLIDER_ALL
} nd_collider_extent;

/* The rows of a layer's activations in its backward pass: `part` receives views of the
 * first t rows of all but keys and values, into which what `extent` names is compacted; the others are
 * to be filled. rows: i32 [1, t], as gather_rows takes them. */
nd_status nd_collider_compact(nd_backend *b, const nd_layer_activations *acts, nd_cview rows,
                              nd_collider_extent extent, nd_layer_activations *part);

/* The same for one view. */
nd_status nd_collider_compact_rows(nd_backend *b, nd_view *view, nd_cview rows);

#endif
