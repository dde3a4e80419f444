/* The optimizer of the parameters that this rank owns: which algorithm each gets, their state, and
 * their update. It also owns the GaLore projectors of all parameters. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"
#include "core/model/params.h"
#include "optim/projectors.h"

typedef struct nd_optimizer nd_optimizer;

/* One tensor of a parameter's state, for checkpoints and the memory report. */
typedef struct nd_optimizer_state {
    char name[32]; /* "momentum", "moment1", "moment2", "projector", or a part: "momentum_codes" */
    nd_view view;
} nd_optimizer_state;

enum { ND_OPTIMIZER_STATES_MAX = 10 };

/* owned[i]: whether this rank updates parameter i. params and backend must outlive the optimizer,
 * which the caller destroys. Errors: ND_ENOMEM. */
nd_status nd_optimizer_create(const nd_config *config, const nd_params *params, const bool *owned,
                              nd_backend *backend, nd_optimizer **optimizer);
void nd_optimizer_destroy(nd_optimizer *optimizer);

/* Tells the optimizer that this rank owns only rows [first, first + count) of parameter `index`
 * (nd_optimizer_row_block): its master, gradient and states here are those rows. Call it before
 * nd_optimizer_reserve. */
void nd_optimizer_own_rows(nd_optimizer *optimizer, int64_t index, int64_t first, int64_t count);

/* Lays out state and scratch: run it on a sizing arena, commit, run it again. Errors: those of
 * nd_arena_reserve. */
nd_status nd_optimizer_reserve(nd_optimizer *optimizer, nd_arena *arena);

/* The projectors, which every rank holds; owned by the optimizer. */
nd_projectors *nd_optimizer_projectors(nd_optimizer *optimizer);

/* Whether nd_optimizer_update takes the projected gradient: GaLore without galore_residual. */
bool nd_optimizer_takes_projected(const nd_optimizer *optimizer, int64_t index);

/* Shape of the gradient that nd_optimizer_update takes: the parameter's, or the projected one. */
void nd_optimizer_gradient_shape(const nd_optimizer *optimizer, int64_t index, int64_t *rows,
                                 int64_t *cols);

/* Writes the states of parameter `index` to states[ND_OPTIMIZER_STATES_MAX]; returns their number,
 * 0 when this rank does not own it. */
int nd_optimizer_states(const nd_optimizer *optimizer, int64_t index, nd_optimizer_state *states);

/* The same for the whole parameter, even when this rank owns only rows of it; their data is NULL.
 * Errors: those of nd_arena_reserve. */
nd_status nd_optimizer_whole_states(const nd_optimizer *optimizer, int64_t index,
                                    nd_optimizer_state *states, int *count);

/* Updates an owned parameter. `step` counts from 0; `gradient` (f32) is multiplied by
 * gradient_scale first. With GaLore and N the direction of R in the subspace: w -= lr (galore_scale
 * U + galore_residual O), where U is the matrix that N represents and O the orthogonalized
 * remainder, G minus what R represents. */
nd_status nd_optimizer_update(nd_optimizer *optimizer, int64_t index, nd_view master,
                              nd_cview gradient, float gradient_scale, int64_t step);

/* Gives an owned, projected parameter the subspace of the summed sketch `y` at `step`, and moves
 * its state there: M becomes C M and AdamW's second moment v becomes (C∘C) v, where C rotates the
 * old subspace into the new. */
nd_status nd_optimizer_replace_subspace(nd_optimizer *optimizer, int64_t index, int64_t step,
                                        nd_cview y);

/* The learning rate at `step`: the schedule's factor times learning_rate, `lr` in the log. */
double nd_optimizer_learning_rate(const nd_optimizer *optimizer, int64_t step);

/* Relative cost of updating a parameter, for balancing owners: FLOPs, with elementwise work
 * weighted by its memory traffic. */
double nd_optimizer_cost(const nd_config *config, const nd_param *param);

/* Rows per block in which several ranks can share a parameter without changing any bit. Parameters
 * that AdamW updates element by element (embedding, head) have up to 32 blocks, whose elements are
 * a multiple of those that share a scale; others return all their rows and have one owner. */
int64_t nd_optimizer_row_block(const nd_config *config, const nd_param *param);
