/* The gradient reducer's state, private to gradient_reducer.c and gradient_slots.c. */
#pragma once

#include "train/gradients/gradient_reducer.h"

enum { ND_GRADIENT_SLOTS_MAX = 128 };

/* Used by gradient_slots.c. */
typedef struct nd_gradient_slots {
    int count;
    nd_view *of[ND_GRADIENT_SLOTS_MAX];      /* [slot][param], projected where GaLore projects */
    nd_view sketches[ND_GRADIENT_SLOTS_MAX]; /* one row per matrix with a new subspace in a step */
    nd_view *written; /* [params] where the backward pass writes instead of to a slot */
    nd_view *views;   /* [params] the views given for the current micro-batch */
    int depth;        /* slots in use by blocks of earlier micro-batches */
    /* The current micro-batch. */
    nd_gradient_leaf leaf;
    bool last;      /* of this rank: it completes the slots */
    int64_t sample; /* its first sample */
} nd_gradient_slots;

/* Used by gradient_reducer.c. */
typedef struct nd_gradient_sums {
    nd_comm_piece *pieces; /* one per owner of each parameter, then one per sketch */
    int64_t *piece_at;     /* [params + 1] index of a parameter's first piece */
    float **piece_slots;   /* [pieces][slots.count] */
    nd_view *sums;         /* [params] sums of what this rank owns; each in one of the slots */
    nd_view *sketches;     /* [params] as sums; data NULL where there is none */
    double *squares;       /* [params] squared norms of this step's gradients */
    nd_view norms;         /* f64 [1, n] in backend memory: the norms that this rank computes */
} nd_gradient_sums;

struct nd_gradient_reducer {
    const nd_config *config;
    nd_comm *comm;
    nd_backend *backend;
    const nd_params *params;
    const nd_ownership *own;
    nd_optimizer *optimizer;
    nd_projectors *projectors;
    int64_t micro_batch; /* sequences */
    int64_t leaves;      /* of a step, on all ranks */
    int64_t local;       /* on this rank: a contiguous part */
    bool tree;           /* [dist] deterministic = world */
    bool projects, immediate;
    bool apart; /* immediate, and a layer is reduced while the next computes its gradients */
    int64_t step, sample; /* current */
    int64_t updates;      /* steps with an update before */
    nd_gradient_slots slots;
    nd_gradient_sums sums;
    nd_view *residuals; /* [params] error feedback; data NULL: none */
};

nd_status nd_gradient_slots_create(nd_gradient_reducer *r);
void nd_gradient_slots_destroy(nd_gradient_reducer *r);
nd_status nd_gradient_slots_reserve(nd_gradient_reducer *r, nd_arena *arena);

/* Adds parameters of the current micro-batch to its slot and merges the blocks it completes. */
nd_status nd_gradient_slots_add(nd_gradient_reducer *r, int64_t first, int64_t count);

/* The sketch of a parameter in a slot; data NULL in steps that keep the subspace, and where the
 * owner has the whole gradient to sketch. */
nd_view nd_gradient_slots_sketch(const nd_gradient_reducer *r, int slot, int64_t index);

/* gradient_norms.c: lays out the memory of norms. */
nd_status nd_gradient_norms_reserve(nd_gradient_reducer *r, nd_arena *arena);

/* squares[i] = the sum of squares of parameter i, computed in double by its owners, on every rank,
 * for parameters [first, first + count), which are reduced. *nonfinite as in
 * nd_gradient_reducer_reduce. Collective. */
nd_status nd_gradient_norms_share(nd_gradient_reducer *r, int64_t first, int64_t count,
                                  int64_t *nonfinite);

static inline bool nd_gradient_reducer_overlaps(const nd_gradient_reducer *r)
{
    return nd_comm_overlaps(r->comm) && (!r->immediate || r->apart);
}
