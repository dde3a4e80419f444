/* The outer step: the changes of all workers become one change of the model that they continue from.
 *
 * For each parameter, with start x of the round and masters y_k of worker k:
 *   d_k = x - y_k                              in the format of the wire, by the owner in each worker
 *   g   = (d_0 + ... + d_{K-1}) / K            in that order, by the home: one worker's owner
 *   m   = mu m + g,   u = lr (g + mu m)        Nesterov (DiLoCo, Algorithm 1), by the home, which keeps m
 *   x   = x - u                                u in the format of the wire, by all owners
 *   y_k = x
 * Both messages are rounded with error feedback: a worker's residual of d_k is its own, that of u the home's. Every
 * d_k is rounded, also where the home is the same rank, so that the bits depend on K and not on where workers run.
 * Parameters go part by part, a part of each home at once, so that both directions of links are in use. Which worker is home follows from K and the sizes of parameters alone. */
#pragma once

#include "optim/state_codec.h"
#include "train/run.h"

typedef struct nd_outer {
    nd_ownership home;   /* of each parameter: a worker */
    nd_state *momentum;  /* [params]; at home */
    nd_view *residual;   /* [params] u8, of u; at home where the wire rounds */
    nd_view *residuals;  /* [carried][params] u8, of d_k; where the wire rounds */
    nd_view sum, loaded; /* f32 of a part: g and u; m where it is not f32 */
    nd_view messages; /* u8 in host memory: changes to homes and to this one, then u of each home */
    nd_view values;   /* f32 in host memory: a part of a parameter, twice */
    bool owns_host;   /* `messages` and `values` were allocated apart from arenas */
} nd_outer;

/* Tables. Errors: ND_ENOMEM. */
nd_status nd_outer_create(nd_run *run, nd_rounds *rounds);
void nd_outer_destroy(nd_outer *outer);

/* Lays out momentum (category "optimizer"), and residuals and messages ("wire"); run on a sizing arena, commit, run
 * again. */
nd_status nd_outer_reserve_state(nd_run *run, nd_arena *arena);
nd_status nd_outer_reserve_wire(nd_run *run, nd_arena *arena);

/* Whether this rank is the home of a parameter. */
bool nd_outer_is_home(const nd_run *run, int64_t index);

/* What the home keeps of a parameter, for checkpoints: "outer_momentum" or its parts, and "outer_residual"; and what
 * carried worker i keeps: "outer_residual". At most ND_OUTER_STATES_MAX; returns how many. */
enum { ND_OUTER_STATES_MAX = 4 };
int nd_outer_states(const nd_run *run, int64_t index, nd_optimizer_state *states);
int nd_outer_worker_states(const nd_run *run, int i, int64_t index, nd_optimizer_state *states);

/* The outer step of all parameters; masters of workers are the new start then. Collective. Errors: ND_EPEER. */
nd_status nd_outer_step(nd_run *run);

/* Bytes that all ranks send for it. */
double nd_outer_bytes(const nd_run *run);
