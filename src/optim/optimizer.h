/* The optimizer of the parameters that this rank owns: which algorithm each gets, their state, and
 * their update. The projectors of GaLore, of all parameters, belong to it too. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"
#include "core/model/params.h"
#include "optim/projectors.h"
#include "optim/schedule.h"

typedef struct nd_optimizer nd_optimizer;

/* One tensor of a parameter's state, for checkpoints and the memory report. */
typedef struct nd_optimizer_state {
    char name[32]; /* "momentum", "moment1", "moment2", or parts of them: "momentum_codes" */
    nd_view view;
} nd_optimizer_state;

enum { ND_OPTIMIZER_STATES_MAX = 10 };

/* `owned[i]` says whether parameter i is updated here; params and backend outlive the optimizer. */
nd_status nd_optimizer_create(const nd_config *config, const nd_params *params, const bool *owned,
                              nd_backend *backend, nd_optimizer **optimizer);
void nd_optimizer_destroy(nd_optimizer *optimizer);

/* Parameter `index`, owned by rows (nd_optimizer_row_block), is updated here in rows [first, first + count) alone:
 * its master, gradient and states are those rows. Before nd_optimizer_reserve. */
void nd_optimizer_own_rows(nd_optimizer *optimizer, int64_t index, int64_t first, int64_t count);

/* Lays out state and working scratch; run on a sizing arena, commit, run again. */
nd_status nd_optimizer_reserve(nd_optimizer *optimizer, nd_arena *arena);

/* The projectors, which every rank holds. */
nd_projectors *nd_optimizer_projectors(nd_optimizer *optimizer);

/* Whether nd_optimizer_update takes the gradient projected: GaLore's, unless galore_residual needs the
 * whole of it. */
bool nd_optimizer_takes_projected(const nd_optimizer *optimizer, int64_t index);

/* Shape of the gradient that nd_optimizer_update takes: the parameter's own, or the projected one. */
void nd_optimizer_gradient_shape(const nd_optimizer *optimizer, int64_t index, int64_t *rows,
                                 int64_t *cols);

/* The states of parameter `index`, at most ND_OPTIMIZER_STATES_MAX; 0 when it is not owned here. */
int nd_optimizer_states(const nd_optimizer *optimizer, int64_t index, nd_optimizer_state *states);

/* The same of the whole parameter, whoever owns it by rows: data NULL. Errors: nd_arena_reserve's. */
nd_status nd_optimizer_whole_states(const nd_optimizer *optimizer, int64_t index,
                                    nd_optimizer_state *states, int *count);

/* One step of an owned parameter. `step` counts from 0; `gradient` f32 is multiplied by
 * gradient_scale first. With GaLore, N the direction of R in the subspace: w -= lr (galore_scale U +
 * galore_residual O), U what N stands for and O the orthogonalised rest, G less what R stands for. */
nd_status nd_optimizer_update(nd_optimizer *optimizer, int64_t index, nd_view master,
                              nd_cview gradient, float gradient_scale, int64_t step);

/* Gives an owned, projected parameter the subspace of the summed sketch `y` of `step`, and moves its
 * state there: M into C M, AdamW's second moment v into (C∘C) v, C the rotation between the two. */
nd_status nd_optimizer_replace_subspace(nd_optimizer *optimizer, int64_t index, int64_t step,
                                        nd_cview y);

/* The schedule's factor times learning_rate at `step`: what the log calls lr. */
double nd_optimizer_learning_rate(const nd_optimizer *optimizer, int64_t step);

/* Relative cost of a parameter's update, to balance owners: FLOPs, elementwise work counted by what
 * its memory traffic costs. */
double nd_optimizer_cost(const nd_config *config, const nd_param *param);

/* Rows of a block of which several ranks may own some each, without a change of any bit: those of a parameter that
 * AdamW updates element by element, embedding or head, in up to 32 blocks whose elements are a multiple of those that
 * share a scale. All rows where the parameter has one owner. */
int64_t nd_optimizer_row_block(const nd_config *config, const nd_param *param);
