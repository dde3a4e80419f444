/* The time of one step over many ranks, predicted: the messages of a step are placed, in the order in
 * which ranks exchange them, on one clock a rank and those of hosts' links (dist/links.h).
 *
 * A message of n bytes between two ranks takes alpha + n beta seconds once both are ready for it and the links
 * between are free. Messages move in parts of p bytes, of which a rank has ND_WIRE_DEPTH on their way in each
 * direction. With f the time of the forward and backward passes of a rank's micro-batches, N ranks, H hosts and B
 * bytes in all:
 *
 *   reduction                 level by level of the tree of core/base/sum_tree.h; what arrives is added (gamma seconds
 *                             a byte) while the next part is on its way. Parts of one tensor have different takers:
 *                             about B beta where links are the same, in one part ceil(log2 N) hops
 *   allgather of n bytes      short: Bruck's, sum over k < ceil(log2 N) of
 *                             alpha + min(2^k, N - 2^k) n beta; long: a ring, (N - 1) (alpha + n beta)
 *   update                    each owner, what its parameters take: a matrix is not shared
 *   codes                     around a ring, each part handed on as it comes: about B beta + N alpha
 *   streams of projectors     owner by owner down a binomial tree: a rank with c children sends c times the bytes,
 *                             the last of ceil(log2 N) hops is a part behind
 *
 * A reduction may begin when the gradient it sums is ready: at f, or within the backward pass where the
 * exchange overlaps it; then each byte takes delta seconds of the computing core. Where layers are updated
 * during the backward pass, the step is a sequence of such parts; with overlap a part is reduced beside the update of
 * the one before it and the passes of the one after it. Nothing here is collective or touches a
 * device. The same step by the real code on simulated links (nd_plan_cost_simulate) takes as long within a few
 * per cent (tests/train/test_cost_model.c). */
#pragma once

#include "core/config/config.h"
#include "dist/links.h"

#include <stddef.h>
#include <stdint.h>

typedef struct nd_cost_machine {
    int ranks;
    int hosts;            /* consecutive ranks share a host; 1 to ranks */
    nd_link between;      /* of a host to all others, each way; its ranks share it */
    nd_link within;       /* of a rank to another of its host */
    double add_per_byte;  /* gamma: seconds to add a byte that arrived */
    double core_per_byte; /* delta: seconds of computation that a byte sent or received costs */
    double part_bytes;    /* p */
    double ring_bytes;    /* allgathers of so many bytes a rank are long */
} nd_cost_machine;

/* One tensor on its way to its owner. */
typedef struct nd_cost_piece {
    double bytes;
    double update;    /* seconds in which the owner updates it */
    double ready;     /* seconds after its part began in which every rank has its gradient */
    int owner, taker; /* of nd_comm_piece */
} nd_cost_piece;

/* What is reduced and updated together: all parameters, or in immediate mode those of a layer. */
typedef struct nd_cost_part {
    double passes; /* seconds of forward and backward pass that belong to it */
    const nd_cost_piece *pieces;
    int64_t count;
    double norms; /* bytes that a rank tells all others of its gradients' norms */
} nd_cost_part;

typedef struct nd_cost_work {
    int64_t leaves; /* of the sum; a multiple of the number of ranks */
    const nd_cost_part *parts;
    int64_t count;
    const double *codes; /* [group] bytes of weights that an owner sends to its group in the ring */
    const double *streams; /* [group] by a broadcast of its own; NULL: none */
    double losses,
        report; /* bytes that a rank tells all others: before the first update; at the end */
    nd_gradient_wire format; /* of gradients */
    int group;               /* ranks of a group (dist/ownership.h); 0: all */
    bool ahead; /* each part is reduced beside the passes of the next, whatever `ready` says */
} nd_cost_work;

/* work->group, or all of `ranks`. */
int nd_cost_group_of(const nd_cost_work *work, int ranks);

enum { ND_COST_HOSTS = 8 };

typedef struct nd_cost {
    double passes;  /* of all parts: f */
    double reduced; /* seconds from the end of passes to the end of reductions, over all parts */
    double updated; /* seconds of updates: of the rank with most of them in each part */
    double codes;   /* seconds from the last update to the end of the step */
    double step;    /* when the last rank has all codes and reports */
    double busy;    /* the longest time a rank spends in messages; waiting for peers not counted */
    double bytes;   /* sent by all ranks */
    double idlest;  /* seconds of updates of the rank that has least to do */
    double sent[ND_COST_HOSTS], received[ND_COST_HOSTS]; /* bytes over the first hosts' links */
} nd_cost;

/* Errors: ND_EINTERNAL for ranks, hosts or leaves that do not fit each other, ND_ENOMEM. */
nd_status nd_cost_predict(const nd_cost_machine *machine, const nd_cost_work *work, nd_cost *cost);
