/* Summing one piece over all ranks along the tree of core/base/sum_tree.h. */
#ifndef ND_DIST_TREE_REDUCTION_H
#define ND_DIST_TREE_REDUCTION_H

#include "dist/comm.h"

/* How an implementation moves a slot of a piece between two ranks. */
typedef struct nd_tree_transfer {
    void *context;
    nd_status (*send)(void *context, const nd_comm_piece *piece, int slot, int to);
    /* the slot += what rank `from` sends. */
    nd_status (*receive_and_add)(void *context, const nd_comm_piece *piece, int slot, int from);
    /* into += from, both of this rank; NULL: by the host, or by comm->device. */
    nd_status (*add)(void *context, float *into, const float *from, int64_t count);
} nd_tree_transfer;

/* Collective. Adds the piece's slots of all ranks; sets piece->result on the owner. Of the two ranks
 * that meet at a node the owner receives, else the one of the left child: addition is commutative to
 * the bit, so it does not matter which. */
nd_status nd_tree_reduce(nd_comm *comm, const nd_tree_transfer *transfer, nd_comm_split split,
                         nd_comm_piece *piece);

/* How many messages, each a whole slot, that takes between `ranks` ranks for a piece of this owner. Not
 * collective. */
int64_t nd_tree_sends(int ranks, nd_comm_split split, int owner);

#endif
