/* The gradient reducer: takes gradients from backward passes and returns to each owner the sum of
 * its parameters' gradients over the batch.
 *
 * A step:
 *   nd_gradient_reducer_begin_step
 *   for each micro-batch of this rank: nd_gradient_reducer_begin says where its backward pass
 *       writes, and nd_gradient_reducer_add is called for parameters as that pass completes them
 *   nd_gradient_reducer_reduce sums to owners and reports non-finite gradients
 *   nd_gradient_reducer_sum, _sketch and _norm return the results; or nd_gradient_reducer_discard
 *
 * Slots. The gradients of a micro-batch go to a slot of the summation tree (core/base/sum_tree.h),
 * where complete blocks are merged. With GaLore the gradients of projected matrices are written to
 * memory that all layers share and projected as soon as their layer is complete, so that slots,
 * messages and the norm contain projected gradients only, and no more than one layer's full
 * gradients exist. Projection is linear: the sum of projections is the projection of the sum. In
 * steps that give a matrix a new subspace its sketch is summed, too.
 *
 * Overlap ([dist] overlap_grad_reduce, several ranks). The last micro-batch of a rank completes its
 * slots layer by layer; as soon as a layer is complete, its reduction starts and overlaps the rest
 * of the backward pass.
 *
 * Immediate updates. With grad_clip = 0, one micro-batch per rank and no rounds (train/rounds.h), a
 * layer is reduced and updated as soon as its gradients are complete. All layers then share one
 * layer's slot memory; with overlap they alternate between two, because a layer is reduced during
 * the backward pass of the next. */
#pragma once

#include "core/model/model.h"
#include "dist/comm.h"
#include "dist/ownership.h"
#include "optim/optimizer.h"

typedef struct nd_gradient_reducer nd_gradient_reducer;

/* One micro-batch and how its gradients are added. */
typedef struct nd_gradient_leaf {
    nd_model_gradients into; /* valid until the next leaf begins */
    int32_t slot, merges; /* the slot its gradients go to, and the number of blocks they complete */
    /* adding it runs only ops, whose arguments follow from slot, merges and accumulation */
    bool repeats;
} nd_gradient_leaf;

/* Builds the tables but reserves no memory for gradients. Uses only rank and size of `comm`. The
 * arguments must outlive the reducer, which the caller destroys. Not collective.
 * Errors: ND_ENOMEM. */
nd_status nd_gradient_reducer_create(const nd_config *config, nd_comm *comm, const nd_model *model,
                                     const nd_ownership *own, nd_optimizer *optimizer,
                                     nd_gradient_reducer **reducer);
void nd_gradient_reducer_destroy(nd_gradient_reducer *r);

/* Lay out the slots (category "gradients") and the error feedback ("wire"): run them on a sizing
 * arena, commit, run them again. Errors: those of nd_arena_reserve. */
nd_status nd_gradient_reducer_reserve(nd_gradient_reducer *r, nd_arena *arena);
nd_status nd_gradient_reducer_reserve_feedback(nd_gradient_reducer *r, nd_arena *arena);

/* Whether layers are updated during the backward pass (immediate updates). */
bool nd_gradient_reducer_immediate(const nd_gradient_reducer *r);

/* Whether updates are immediate and nd_gradient_reducer_add starts the reduction of a layer, which
 * then overlaps what is computed before nd_gradient_reducer_reduce is called for it. At most one
 * other layer may be added in between. */
bool nd_gradient_reducer_runs_ahead(const nd_gradient_reducer *r);

/* Whether the gradients of matrices that GaLore projects are projected before they are summed. */
bool nd_gradient_reducer_projects(const nd_gradient_reducer *r);

/* Begins a step. `step` counts from 0, the steps `skipped` among them; `sample` is the first of the
 * batch, over all ranks. */
void nd_gradient_reducer_begin_step(nd_gradient_reducer *r, int64_t step, int64_t skipped,
                                    int64_t sample);

/* The steps with an update before this one, by which new subspaces are due. */
int64_t nd_gradient_reducer_updates(const nd_gradient_reducer *r);

/* Begins micro-batch j of this rank; they must come in order. */
nd_gradient_leaf nd_gradient_reducer_begin(nd_gradient_reducer *r, int64_t j);

/* Adds parameters [first, first + count), whose gradients of the current micro-batch are complete.
 * With overlap it is collective for the last micro-batch, in the same order on all ranks. */
nd_status nd_gradient_reducer_add(nd_gradient_reducer *r, int64_t first, int64_t count);

/* Sums the gradients of parameters [first, first + count), added by all micro-batches, to their
 * owners. *nonfinite: the first parameter whose sum is not finite, -1 when there is none; the same
 * on every rank. Collective. */
nd_status nd_gradient_reducer_reduce(nd_gradient_reducer *r, int64_t first, int64_t count,
                                     int64_t *nonfinite);

/* Bytes that a rank sends to all others in nd_gradient_reducer_reduce for these parameters'
 * norms. */
size_t nd_gradient_reducer_norm_bytes(const nd_gradient_reducer *r, int64_t first, int64_t count);

/* Discards this step's gradients: ends reductions in flight, resets error feedback. Collective. */
nd_status nd_gradient_reducer_discard(nd_gradient_reducer *r);

/* The summed gradient of an owned parameter after its reduction, in the shape of
 * nd_optimizer_gradient_shape, or the rows of it that this rank owns. */
nd_cview nd_gradient_reducer_sum(const nd_gradient_reducer *r, int64_t index);

/* The summed sketch of a parameter with a new subspace in this step, valid until the next call. */
nd_status nd_gradient_reducer_sketch(nd_gradient_reducer *r, int64_t index, nd_cview *sketch);

/* The norm of all gradients (projected where GaLore projects) after all are reduced: squares in
 * double, added in the order of parameters. The same on every rank. */
double nd_gradient_reducer_norm(const nd_gradient_reducer *r);

/* Reset the error feedback of one parameter, or of all: for each that this rank sends rounded
 * (dist/reduction/gradient_wire.h) its accumulated rounding error, one byte per value.
 *
 * It is reset when it no longer applies: for a projected gradient when the matrix gets a new
 * subspace, for everything when a step is skipped. Checkpoints do not contain it; a run resets it
 * when it saves, so that a run resumed from there has the same bits. Sketches have none, because
 * those of a matrix are galore_update_freq steps apart. Not collective; call it on all ranks. */
nd_status nd_gradient_reducer_reset_feedback(nd_gradient_reducer *r, int64_t index);
nd_status nd_gradient_reducer_reset_all_feedback(nd_gradient_reducer *r);
