/* The subspaces of all matrices that GaLore projects: which matrices, when each subspace is found anew,
 * and its projector, which every rank holds. */
#pragma once

#include "core/base/arena.h"
#include "core/config/config.h"
#include "core/model/params.h"
#include "optim/galore.h"
#include "optim/state_codec.h"

typedef struct nd_projectors nd_projectors;

/* Whether a parameter is projected under this configuration: a ternary matrix of a layer (blocks of
 * multi-token prediction stay full rank) whose smaller side is above galore_rank. *g (may be NULL)
 * receives its shape. */
bool nd_projectors_apply(const nd_config *config, const nd_param *param, nd_galore *g);

/* config, params and backend outlive it. */
nd_status nd_projectors_create(const nd_config *config, const nd_params *params,
                               nd_backend *backend, nd_projectors **projectors);
void nd_projectors_destroy(nd_projectors *p);

/* Lays out all projectors and working scratch; run on a sizing arena, commit, run again. */
nd_status nd_projectors_reserve(nd_projectors *p, nd_arena *arena);

/* NULL for a parameter that is not projected. */
const nd_galore *nd_projectors_shape(const nd_projectors *p, int64_t index);

/* The stored projector of a projected parameter. */
const nd_state *nd_projectors_state(const nd_projectors *p, int64_t index);

/* How many matrices are projected. */
int64_t nd_projectors_count(const nd_projectors *p);

/* How many matrices get a new subspace in one step, at most. */
int64_t nd_projectors_per_step(const nd_projectors *p);

/* Whether matrix `index` gets a new subspace in `step`. Matrix k of those projected does so in steps
 * k / per_step, + galore_update_freq, + 2 galore_update_freq ...: all of them as early as may be, and
 * per_step = ceil(count / galore_update_freq) of them at a time. *place (may be NULL): which of the
 * step's matrices it is. */
bool nd_projectors_due(const nd_projectors *p, int64_t index, int64_t step, int64_t *place);

/* Rows times columns of the largest sketch; 0 without projected matrices. */
int64_t nd_projectors_sketch_count(const nd_projectors *p);

/* The random first subspace of a matrix. */
nd_status nd_projectors_initialize(nd_projectors *p, int64_t index);

/* *view: the projector in f32, valid until the next call that loads one. */
nd_status nd_projectors_load(nd_projectors *p, int64_t index, nd_view *view);

/* reduced = beta reduced + projection of `gradient` [rows, cols]. */
nd_status nd_projectors_project(nd_projectors *p, int64_t index, nd_view reduced, nd_cview gradient,
                                float beta);

/* y = beta y + sketch of `gradient` with the random matrix of this parameter and step, in which it must be
 * due; the matrix is drawn once a step. */
nd_status nd_projectors_sketch(nd_projectors *p, int64_t index, int64_t step, nd_view y,
                               nd_cview gradient, float beta);

/* Replaces the subspace by that of the summed sketch. *rotation [rank, rank] turns coordinates of the
 * old one into those of the new, of the projectors as they are stored; valid until the next call. */
nd_status nd_projectors_replace(nd_projectors *p, int64_t index, int64_t step, nd_cview y,
                                nd_view *rotation);
