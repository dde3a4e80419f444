/* The collectives of dist/comm_messages.h on clocks: one a rank, and those of the links (dist/links.h). Each moves
 * the clocks as the real one moves time, message by message, with as many parts under way at once. */
#pragma once

#include "dist/links.h"
#include "dist/wire_sizes.h"
#include "train/plan/cost_model.h"

/* What a rank has under way in a collective: when its last ND_WIRE_DEPTH sends left and receives were taken. */
typedef struct nd_cost_window {
    double sent[ND_WIRE_DEPTH], taken[ND_WIRE_DEPTH];
    int64_t sends, receives;
    double opened; /* when the collective began */
} nd_cost_window;

typedef struct nd_cost_clocks {
    const nd_cost_machine *m;
    nd_links links;
    nd_cost_window *windows; /* [ranks] */
    double *clock;           /* [ranks] when a rank is free */
    double *busy;            /* [ranks] seconds in messages */
    double *taken;      /* [ranks] seconds that messages took from the passes of the part at hand */
    double *passes_end; /* [ranks] when these would end if nothing took any */
    double bytes;       /* sent by all */
} nd_cost_clocks;

/* Errors: ND_ENOMEM, ND_EINTERNAL. */
nd_status nd_cost_clocks_create(const nd_cost_machine *m, nd_cost_clocks *c);
void nd_cost_clocks_destroy(nd_cost_clocks *c);

/* When the last rank is free. */
double nd_cost_clocks_last(const nd_cost_clocks *c);

/* What a part is in a prediction of so many bytes in all: m->part_bytes, or longer where there would be more than
 * 4096. */
double nd_cost_part_bytes(const nd_cost_machine *m, double bytes);

/* nd_links_carry, with what it means for both ranks; what arrives is added, `add` seconds a byte. */
void nd_cost_carry(nd_cost_clocks *c, int from, int to, double bytes, double ready, double add,
                   double *away, double *here);

/* dist/part_reduction.h, of pieces that are all ready. Errors: ND_ENOMEM. */
nd_status nd_cost_reduce(nd_cost_clocks *c, const nd_cost_work *work, const nd_cost_piece *pieces,
                         int64_t count);

/* `bytes` of each rank. */
void nd_cost_allgather(nd_cost_clocks *c, double bytes);

/* dist/ring.h: bytes[m] of member m of every group of `group` ranks. Errors: ND_ENOMEM. */
nd_status nd_cost_broadcast_each(nd_cost_clocks *c, int group, const double *bytes);

/* Consecutive ranks. */
typedef struct nd_cost_group {
    int first, size;
} nd_cost_group;

/* From member `root` of a group. Errors: ND_ENOMEM. */
nd_status nd_cost_broadcast(nd_cost_clocks *c, nd_cost_group group, int root, double bytes);
