/* The way of gradients from the backward pass to their owners.
 *
 * A micro-batch's gradients go to a slot of the summation tree (core/base/sum_tree.h). Those of matrices
 * that GaLore projects are written into memory that all layers share and are projected from there as
 * soon as their layer is done, so that the tree, the wire and the norm have the projected gradient
 * only, and the full one of no more than a layer exists. Projection is linear: the sum of projections
 * is the projection of the sum. In steps that find a matrix a new subspace its sketch goes the same
 * way.
 *
 * Overlapped ([dist] overlap, several ranks): the backward pass of a rank's last micro-batch completes its
 * slots a layer at a time, and each layer's begin their way to the owners there, beside the layers that
 * are still computed.
 *
 * Immediate: without clipping and with one micro-batch a rank, nothing forbids to update a layer as
 * soon as its gradients are ready. Then slots of layers share one layer's memory too. */
#ifndef ND_TRAIN_GRADIENT_REDUCER_H
#define ND_TRAIN_GRADIENT_REDUCER_H

#include "train/run.h"

/* Whether this configuration updates layers during the backward pass. */
bool nd_gradient_reducer_immediate(const nd_run *run);

/* Lays out the category "gradients"; run on a sizing arena, commit, run again. */
nd_status nd_gradient_reducer_reserve(nd_run *run, nd_arena *arena);

/* Called once a step when this rank's losses are all known and before anything is updated. It may set
 * run->health.verdict, the same on all ranks; what is not good is not updated from. */
typedef struct nd_losses_known {
    nd_status (*call)(void *context);
    void *context;
} nd_losses_known;

/* Forward and backward pass of this rank's micro-batches (`tokens`: host memory), up to gradients in
 * slots, or in immediate mode up to updated masters; losses[j] of micro-batch j. Collective. */
nd_status nd_gradient_reducer_run(nd_run *run, const int32_t *tokens, nd_loss *losses,
                                  nd_losses_known known);

/* The rest of the step: sums to owners, *norm of all gradients before clipping (of projected ones where
 * there are such), update of masters, new subspaces. A gradient that is not finite sets
 * run->health.verdict and updates nothing; *norm is then NaN. Collective. */
nd_status nd_gradient_reducer_finish(nd_run *run, double *norm);

/* Sends every projector from its owner to all ranks. Collective. */
nd_status nd_gradient_reducer_publish_projectors(nd_run *run);

#endif
