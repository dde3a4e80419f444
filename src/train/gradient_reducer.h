/* The gradient reducer: takes gradients from backward passes and gives each owner the sum of its
 * parameters' gradients over the batch.
 *
 * A step:
 *   nd_gradient_reducer_begin_step
 *   for each micro-batch of this rank: nd_gradient_reducer_begin says where its backward pass writes, and
 *       nd_gradient_reducer_add is called for parameters as that pass completes them
 *   nd_gradient_reducer_reduce sums to owners, and says whether a gradient is not finite
 *   nd_gradient_reducer_sum, _sketch and _norm return what was summed; or nd_gradient_reducer_discard
 *
 * Slots. A micro-batch's gradients go to a slot of the summation tree (core/base/sum_tree.h), where
 * completed blocks are merged. With GaLore the gradients of projected matrices are written into memory that
 * all layers share and are projected from there as soon as their layer is done, so that slots, messages
 * and the norm have the projected gradient only, and no more than one layer's full gradients exist.
 * Projection is linear: the sum of projections is the projection of the sum. In steps that find a matrix
 * a new subspace its sketch is summed too.
 *
 * Overlap ([dist] overlap, several ranks). The last micro-batch of a rank completes its slots a layer at a
 * time, and the reduction of each layer begins there and overlaps the backward pass.
 *
 * Immediate updates. With grad_clip = 0 and one micro-batch a rank nothing forbids to reduce a layer and
 * update it as soon as its gradients are there. Then slots of layers share one layer's memory too; with overlap,
 * where a layer is reduced while the backward pass of the next goes on, that of two by turns. */
#pragma once

#include "core/model/model.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "optim/optimizer.h"

typedef struct nd_gradient_reducer nd_gradient_reducer;

/* One micro-batch, and how its gradients are added. */
typedef struct nd_gradient_leaf {
    nd_model_gradients into; /* valid until the next leaf begins */
    int32_t slot, merges;    /* where they go, and how many blocks they complete */
    bool repeats; /* adding it is ops alone, with arguments by slot, merges and accumulation */
} nd_gradient_leaf;

/* Builds the tables; takes no memory for gradients. Of `comm` only rank and size are used here. The
 * arguments are not owned and outlive it. Not collective. Errors: ND_ENOMEM. */
nd_status nd_gradient_reducer_create(const nd_config *config, nd_comm *comm, const nd_model *model,
                                     const nd_ownership *own, nd_optimizer *optimizer,
                                     nd_gradient_reducer **reducer);
void nd_gradient_reducer_destroy(nd_gradient_reducer *r);

/* Lay out slots (category "gradients") and error feedback ("wire"); run on a sizing arena, commit, run
 * again. Errors: nd_arena_reserve's. */
nd_status nd_gradient_reducer_reserve(nd_gradient_reducer *r, nd_arena *arena);
nd_status nd_gradient_reducer_reserve_feedback(nd_gradient_reducer *r, nd_arena *arena);

/* Whether layers are updated during the backward pass. */
bool nd_gradient_reducer_immediate(const nd_gradient_reducer *r);

/* Whether that is so and the reduction of a layer, begun by nd_gradient_reducer_add, overlaps what is computed until
 * nd_gradient_reducer_reduce of the same parameters, which comes before the next layer but one is added. */
bool nd_gradient_reducer_runs_ahead(const nd_gradient_reducer *r);

/* Whether gradients of the matrices that GaLore projects are projected before they are summed. */
bool nd_gradient_reducer_projects(const nd_gradient_reducer *r);

/* `step` counts from 0; `sample` is the first of the batch, over all ranks. */
void nd_gradient_reducer_begin_step(nd_gradient_reducer *r, int64_t step, int64_t sample);

/* Micro-batch j of this rank, in order. */
nd_gradient_leaf nd_gradient_reducer_begin(nd_gradient_reducer *r, int64_t j);

/* The gradients of parameters [first, first + count) of that micro-batch are complete. With overlap and the
 * last micro-batch collective, in the same order on all ranks. */
nd_status nd_gradient_reducer_add(nd_gradient_reducer *r, int64_t first, int64_t count);

/* Sums parameters [first, first + count), added by all micro-batches, to their owners. *nonfinite receives
 * the first whose sum is not finite, -1 when there is none: the same on every rank. Collective. */
nd_status nd_gradient_reducer_reduce(nd_gradient_reducer *r, int64_t first, int64_t count,
                                     int64_t *nonfinite);

/* Bytes that a rank tells all others there about the norms of these parameters. */
size_t nd_gradient_reducer_norm_bytes(const nd_gradient_reducer *r, int64_t first, int64_t count);

/* This step's gradients are not used: ends reductions under way and resets the error feedback. Collective. */
nd_status nd_gradient_reducer_discard(nd_gradient_reducer *r);

/* Of an owned parameter that was reduced: its summed gradient, in the shape of nd_optimizer_gradient_shape, or the
 * rows of it that this rank owns. */
nd_cview nd_gradient_reducer_sum(const nd_gradient_reducer *r, int64_t index);

/* Of one that gets a new subspace in this step: the summed sketch, valid until the next call. */
nd_status nd_gradient_reducer_sketch(nd_gradient_reducer *r, int64_t index, nd_cview *sketch);

/* The norm of all gradients once all are reduced, of projected ones where there are such: squares in
 * double, added in the order of parameters. The same on every rank. */
double nd_gradient_reducer_norm(const nd_gradient_reducer *r);

/* Resets the error feedback of one parameter, or of all. Not collective, but to be called by all ranks in
 * the same place. */
nd_status nd_gradient_reducer_reset_feedback(nd_gradient_reducer *r, int64_t index);
nd_status nd_gradient_reducer_reset_all_feedback(nd_gradient_reducer *r);
