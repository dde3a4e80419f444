/* The subspaces of all matrices that GaLore projects: which matrices, when each gets a new
 * subspace, and its projector, which every rank holds. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"
#include "core/model/params.h"
#include "optim/galore.h"
#include "optim/state_codec.h"

typedef struct nd_projectors nd_projectors;

/* Whether a parameter is projected: a ternary matrix whose smaller side exceeds galore_rank. Blocks
 * of multi-token prediction keep full rank unless galore_residual is above 0. *g (may be NULL)
 * receives its shape. */
bool nd_projectors_apply(const nd_config *config, const nd_param *param, nd_galore *g);

/* config, params and backend must outlive the result; the caller destroys it. Errors: ND_ENOMEM. */
nd_status nd_projectors_create(const nd_config *config, const nd_params *params,
                               nd_backend *backend, nd_projectors **projectors);
void nd_projectors_destroy(nd_projectors *p);

/* Lays out projectors and scratch: run it on a sizing arena, commit, run it again. Errors: those of
 * nd_arena_reserve. */
nd_status nd_projectors_reserve(nd_projectors *p, nd_arena *arena);

/* The GaLore shape of a parameter; NULL when it is not projected. */
const nd_galore *nd_projectors_shape(const nd_projectors *p, int64_t index);

/* The stored projector of a projected parameter. */
const nd_state *nd_projectors_state(const nd_projectors *p, int64_t index);

/* The number of projected matrices. */
int64_t nd_projectors_count(const nd_projectors *p);

/* The most matrices that get a new subspace in one step. */
int64_t nd_projectors_per_step(const nd_projectors *p);

/* Whether matrix `index` gets a new subspace in `step`. per_step = ceil(count / galore_update_freq)
 * matrices do at a time, as early as possible: the k-th projected matrix in step k / per_step
 * (rounded down) and every galore_update_freq steps after it. Here and below `step` counts those
 * with an update; after rollbacks it may be negative. *place (may be NULL): its index among those
 * of the step. */
bool nd_projectors_due(const nd_projectors *p, int64_t index, int64_t step, int64_t *place);

/* How many new subspaces matrix `index` gets in steps 0 .. steps - 1. */
int64_t nd_projectors_replacements(const nd_projectors *p, int64_t index, int64_t steps);

/* Elements of the largest sketch; 0 without projected matrices. */
int64_t nd_projectors_sketch_count(const nd_projectors *p);

/* Sets the first subspace of a matrix, a random one. */
nd_status nd_projectors_initialize(nd_projectors *p, int64_t index);

/* *view: the projector in f32, valid until the next call that loads a projector. */
nd_status nd_projectors_load(nd_projectors *p, int64_t index, nd_view *view);

/* reduced = beta reduced + projection of `gradient` [rows, cols]. */
nd_status nd_projectors_project(nd_projectors *p, int64_t index, nd_view reduced, nd_cview gradient,
                                float beta);

/* y = beta y + sketch of `gradient` with the random matrix of this parameter and step; the
 * parameter must be due in that step. The random matrix is drawn once per step. */
nd_status nd_projectors_sketch(nd_projectors *p, int64_t index, int64_t step, nd_view y,
                               nd_cview gradient, float beta);

/* Replaces the subspace by that of the summed sketch `y`. *rotation [rank, rank] maps coordinates
 * of the old stored projector to those of the new one; valid until the next call. */
nd_status nd_projectors_replace(nd_projectors *p, int64_t index, int64_t step, nd_cview y,
                                nd_view *rotation);
