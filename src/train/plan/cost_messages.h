/* A model of the collectives of dist/comm_messages.h: one clock per rank and the links of
 * dist/simulation/links.h. Each function advances the clocks as the real collective takes time,
 * message by message, with as many parts in flight. */
#pragma once

#include "dist/simulation/links.h"
#include "dist/transport/wire_sizes.h"
#include "train/plan/cost_model.h"

/* A rank's messages in a collective: when its last ND_WIRE_DEPTH sends and receives ended. */
typedef struct nd_cost_window {
    double sent[ND_WIRE_DEPTH], taken[ND_WIRE_DEPTH];
    int64_t sends, receives;
    double opened; /* when the collective began */
} nd_cost_window;

typedef struct nd_cost_clocks {
    const nd_cost_machine *m;
    nd_links links;
    nd_cost_window *windows; /* [ranks] */
    double *clock;           /* [ranks] when the rank is free */
    double *busy;            /* [ranks] seconds in messages */
    double *taken;      /* [ranks] seconds by which messages delayed the current part's passes */
    double *passes_end; /* [ranks] when those passes would end without messages */
    double bytes;       /* sent by all ranks */
} nd_cost_clocks;

/* Creates clocks at time 0; nd_cost_clocks_destroy frees them. Errors: ND_ENOMEM, ND_EINTERNAL. */
nd_status nd_cost_clocks_create(const nd_cost_machine *m, nd_cost_clocks *c);
void nd_cost_clocks_destroy(nd_cost_clocks *c);

/* The time when the last rank is free. */
double nd_cost_clocks_last(const nd_cost_clocks *c);

/* The size of a part in a prediction for `bytes` bytes in total: m->part_bytes, or larger where
 * there would be more than 4096 parts. */
double nd_cost_part_bytes(const nd_cost_machine *m, double bytes);

/* nd_links_carry and its effects on both ranks; what arrives is added in `add` seconds per byte. */
void nd_cost_carry(nd_cost_clocks *c, const nd_link_message *message, double ready, double add,
                   double *away, double *here);

/* The reduction of dist/reduction/part_reduction.h, of pieces that are all ready. Errors:
 * ND_ENOMEM. */
nd_status nd_cost_reduce(nd_cost_clocks *c, const nd_cost_work *work, const nd_cost_piece *pieces,
                         int64_t count);

/* An allgather of `bytes` bytes per rank. */
void nd_cost_allgather(nd_cost_clocks *c, double bytes);

/* The ring of dist/weights/ring.h: bytes[m] from member m of every group of `group` ranks. Errors:
 * ND_ENOMEM. */
nd_status nd_cost_broadcast_each(nd_cost_clocks *c, int group, const double *bytes);

/* Consecutive ranks. */
typedef struct nd_cost_group {
    int first, size;
} nd_cost_group;

/* A broadcast from member `root` of a group. */
void nd_cost_broadcast(nd_cost_clocks *c, nd_cost_group group, int root, double bytes);
