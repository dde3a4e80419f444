/* Predicts the time of one step on many ranks: places the messages of a step, in the order in which
 * ranks exchange them, on one clock per rank and on those of the hosts' links
 * (dist/simulation/links.h).
 *
 * A message of n bytes between two ranks takes alpha + n beta seconds once both are ready for it
 * and the links between them are free. Messages are sent in parts of p bytes, with ND_WIRE_DEPTH of
 * a rank's parts in flight in each direction. With f the time of the forward and backward passes of
 * a rank's micro-batches, N ranks, H hosts and B bytes in total:
 *
 * A link's per_message is not counted; nd_cost_machine has it in beta, shared by the bytes of a
 * part.
 *
 *   reduction             level by level of the tree of core/base/sum_tree.h; adding what arrived
 *                         (gamma seconds per byte) overlaps the next part. Parts of one tensor have
 *                         different takers: about B beta on equal links, ceil(log2 N) hops for one
 *                         part
 *   allgather of n bytes  short: Bruck's, sum over k < ceil(log2 N) of
 *                         alpha + min(2^k, N - 2^k) n beta; long: a ring, (N - 1) (alpha + n beta)
 *   update                each owner updates its parameters; a matrix is not shared
 *   codes                 around a ring, each part forwarded as it arrives: about
 *                         B beta + N alpha; in several exchanges, where weights are sent as they
 *                         are updated
 *   streams of projectors owner by owner down a binomial tree: a rank with c children sends c
 *                         times the bytes; the last of ceil(log2 N) hops is one part behind
 *
 * A reduction may begin when its gradient is ready: at f, or within the backward pass where
 * communication overlaps it; then each byte costs delta seconds of computation. With immediate
 * updates the step is a sequence of such parts; with overlap a part is reduced during the update of
 * the one before it and the passes of the one after it. Nothing here is collective or uses a
 * device. Running the same step with the real code on simulated links (nd_plan_cost_simulate) takes
 * the same time within a few per cent (tests/train/test_cost_model.c). */
#pragma once

#include "core/config/config.h"
#include "dist/simulation/links.h"

#include <stddef.h>
#include <stdint.h>

typedef struct nd_cost_machine {
    int ranks;
    int hosts;            /* consecutive ranks share a host; 1 to ranks */
    nd_link between;      /* of a host to all others, in each direction, shared by its ranks */
    nd_link within;       /* of a rank to another on its host */
    double compressed;    /* of nd_links */
    double add_per_byte;  /* gamma: seconds to add a received byte */
    double core_per_byte; /* delta: seconds of computation that a byte sent or received costs */
    double part_bytes;    /* p */
    double ring_bytes;    /* allgathers of at least so many bytes per rank use a ring */
} nd_cost_machine;

/* One tensor that is reduced to its owner. */
typedef struct nd_cost_piece {
    double bytes;
    double update;     /* seconds that its update takes the owner */
    double ready;      /* seconds after the start of its part when every rank has its gradient */
    int owner, taker;  /* of nd_comm_piece */
    int64_t reduction; /* neighbors with the same number are one, ready together */
    int64_t exchange;  /* of nd_cost_work, that sends its weight */
} nd_cost_piece;

/* Parameters that are reduced and updated together: all, or a layer with immediate updates. */
typedef struct nd_cost_part {
    double passes; /* seconds of its forward and backward passes */
    const nd_cost_piece *pieces;
    int64_t count;
    double norms;      /* bytes that a rank sends to all others for the norms of its gradients */
    int64_t exchanges; /* so many are complete once it is updated: they begin during its update */
} nd_cost_part;

typedef struct nd_cost_work {
    int64_t leaves; /* of the sum; a multiple of the number of ranks */
    const nd_cost_part *parts;
    int64_t count;
    /* [exchanges_ahead + 1, group] bytes of weights that each owner sends to its group around the
     * ring; the last time after the last update */
    const double *codes;
    const double *streams;   /* [group] bytes that each owner broadcasts; NULL: none */
    double losses;           /* bytes that a rank sends to all others before the first update */
    double report;           /* likewise, at the end of the step */
    nd_gradient_wire format; /* of gradients */
    int group;               /* ranks of a group (dist/ownership.h); 0: all */
    bool ahead; /* each part is reduced during the passes of the next, whatever `ready` says */
    int64_t exchanges_ahead; /* of weights, during updates */
    bool any_order;          /* of nd_comm_split */
} nd_cost_work;

/* work->group, or all of `ranks`. */
static inline int nd_cost_group_of(const nd_cost_work *work, int ranks)
{
    return work->group > 0 ? work->group : ranks;
}

/* Parts of a reduction, or of weights sent at once; more are taken together. */
enum { ND_COST_PARTS_MAX = 4096 };

enum { ND_COST_HOSTS = 8 };

typedef struct nd_cost {
    double passes; /* of all parts: f */
    /* seconds from the end of passes to the end of reductions, summed over the parts */
    double reduced;
    double updated; /* seconds of updates: of the busiest rank in each part */
    double codes;   /* seconds from the last update, which may hide some, to the end of the step */
    double step;    /* when the last rank has all codes and reports */
    double busy;    /* the longest time a rank spends in messages, without waiting for peers */
    double bytes;   /* sent by all ranks */
    double least_updates; /* seconds of updates of the rank with the fewest */
    double sent[ND_COST_HOSTS], received[ND_COST_HOSTS]; /* bytes on the links of the first hosts */
} nd_cost;

/* Predicts the cost of a step. Errors: ND_EINTERNAL for sizes that do not match; ND_ENOMEM. */
nd_status nd_cost_predict(const nd_cost_machine *machine, const nd_cost_work *work, nd_cost *cost);
