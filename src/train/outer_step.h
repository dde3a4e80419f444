/* The outer step: combines the changes of all workers into one change of the model, from which they
 * continue.
 *
 * For each parameter, with x its value at the start of the round and y_k the master of worker k:
 *   d_k = x - y_k                              in the wire format, by the owner in each worker
 *   g   = (d_0 + ... + d_{K-1}) / K            in that order, by the home
 *   m   = mu m + g,   u = lr (g + mu m)        Nesterov (DiLoCo, Algorithm 1), by the home, which
 *                                              has m
 *   x   = x - u                                u in the wire format, by all owners
 *   y_k = x
 *
 * Both messages are rounded with error feedback: each worker keeps the residual of its d_k, the
 * home that of u. Every d_k is rounded, even where the home is the same rank, so that the bits
 * depend on K and not on where workers run. Parameters are processed in parts, one part of each
 * home at a time, so that both directions of links are in use. Which worker is a parameter's home
 * follows from K and the sizes of parameters alone. */
#pragma once

#include "optim/state_codec.h"
#include "train/rounds.h"

typedef struct nd_outer {
    nd_ownership home;   /* the worker that is home of each parameter */
    nd_state *momentum;  /* [params]; at the home */
    nd_view *residual;   /* [params] u8, of u; at the home, when the wire format rounds */
    nd_view *residuals;  /* [carried][params] u8, of d_k; when the wire format rounds */
    nd_view sum, loaded; /* f32, of a part: g, then u; m if it is not stored in f32 */
    /* u8 in host memory: changes to other homes and to this one, then u of each home */
    nd_view messages;
    nd_view values; /* f32 in host memory: a part of a parameter, twice */
    bool owns_host; /* `messages` and `values` are heap memory outside the arenas */
} nd_outer;

/* Builds the tables, rounds->outer. Errors: ND_ENOMEM. */
nd_status nd_outer_create(nd_run *run, nd_rounds *rounds);
void nd_outer_destroy(nd_outer *outer); /* NULL is allowed */

/* Lay out the momentum (category "optimizer"), and residuals and messages ("wire"): run them on a
 * sizing arena, commit, run them again. Errors: those of nd_arena_reserve; ND_ENOMEM. */
nd_status nd_outer_reserve_state(nd_run *run, nd_arena *arena);
nd_status nd_outer_reserve_wire(nd_run *run, nd_arena *arena);

/* A parameter's states for checkpoints: those of its home, "outer_momentum" or its parts and
 * "outer_residual"; and that of the i-th worker of this rank, "outer_residual". Return their
 * number, at most ND_OUTER_STATES_MAX; 0 where this rank has none. */
int nd_outer_states(const nd_run *run, int64_t index, nd_optimizer_state *states);
int nd_outer_worker_states(const nd_run *run, int i, int64_t index, nd_optimizer_state *states);

/* Ends a round: runs the outer step, after which all workers have the new start. Collective.
 * Errors: ND_EPEER. */
nd_status nd_outer_step(nd_run *run);

/* Bytes that all ranks send in an outer step. */
double nd_outer_bytes(const nd_run *run);
