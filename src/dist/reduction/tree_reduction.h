/* Summing one piece over all ranks along the tree of core/base/sum_tree.h. Where any order is
 * allowed, the tree's upper levels are hosts and each host has a tree of its ranks below: one sum
 * leaves it. In the tree of micro-batches that is so where hosts have a power of two of ranks.
 *
 * At each node two ranks hold the sum of one child each, and one of them, the taker, receives the
 * other's sum. Addition is commutative to the bit, so either may be the taker: `turn` picks it, so
 * that over many pieces every rank sends as much as it receives. Bit k of the turn picks the side
 * of nodes over 2^(k+1) ranks: over consecutive turns each rank exchanges half of what it holds
 * with one partner a level, as in recursive halving. The sum reaches its owner in one of two ways:
 *
 * - met: an owner is the taker of every node that it has leaves below. N ranks send N - 1 messages,
 *   of which the owner receives log2 N.
 * - delivered: the taker of the last node sends the sum to the owner in its group. One message
 *   more, but the owner receives about two: for many ranks, where the owner of a large tensor would
 *   otherwise receive it many times.
 *
 * Where a rank holds several blocks of leaves, sums are met and the turn is ignored, since another
 * choice could need more messages.
 *
 * With several groups the owner of the sum then sends it to the owners in the other groups: to the
 * one at the same place in the other half of all groups, then both in halves of halves. The first
 * owner of the sum changes with the turn, so that over many parts this is an all-gather by
 * doubling: C copies send C - 1 messages, evenly shared, and of neighboring groups on a host one
 * receives it from another host.
 *
 * Rounded sums are met by the rank `taker`, whatever the groups are, so that the bits do not depend
 * on them. The finished sum is sent on in fp32, as it was summed. */
#pragma once

#include "dist/comm.h"

typedef struct nd_tree {
    int ranks, group; /* in all; of a group */
    int host;         /* leaves that are added before those of others; 0: none */
    nd_comm_split split;
    int owner, taker; /* of nd_comm_piece */
    nd_gradient_wire format;
    int64_t turn;
} nd_tree;

/* nd_tree.host where hosts have `host_ranks` ranks each; 0: not known. */
int nd_tree_host(nd_comm_split split, int host_ranks);

/* Levels up to this one send no message from such a host to another. */
int nd_tree_levels_within(nd_comm_split split, int ranks, int host_ranks);

nd_tree nd_tree_of(const nd_comm *comm, nd_comm_split split, const nd_comm_piece *piece,
                   int64_t turn);

/* The highest level on which sums are added. Acts on higher levels pass finished sums on, in fp32
 * whatever the format. */
int nd_tree_top(const nd_tree *tree);

/* How many low bits of the turn decide which rank takes a node's sum at this level; in 2^bits
 * consecutive turns no rank takes two parts. 0: one rank may take every part. */
int nd_tree_turn_bits(const nd_tree *tree, int level);

/* What one rank does at a node. Acts of a lower level come before those of a higher one. */
typedef struct nd_tree_act {
    enum {
        ND_TREE_SEND,
        ND_TREE_RECEIVE, /* and add to the slot */
        ND_TREE_TAKE,    /* receive a finished sum, which replaces the slot */
        ND_TREE_ADD
    } kind;
    int level;
    int slot; /* sent; or added to, from the peer or from slot `other` */
    int peer, other;
    bool finished; /* what is sent or taken is a finished sum, in fp32 */
} nd_tree_act;

typedef nd_status (*nd_tree_visit)(void *context, const nd_tree_act *act);

/* Calls `visit` for what `rank` does, in order. *slot: the slot that then holds the sum, -1 if it
 * is on another rank. Not collective. Errors: those of `visit`. */
nd_status nd_tree_walk(int rank, const nd_tree *tree, nd_tree_visit visit, void *context,
                       int *slot);

/* into += from: floats of this rank, in the memory of the comm's gradients. */
nd_status nd_tree_add(nd_comm *comm, float *into, const float *from, int64_t count);

/* Calls `visit` for every message between ranks that one part takes, within a subtree those of
 * lower levels first. */
typedef void (*nd_tree_message)(void *context, int level, int from, int to);
void nd_tree_messages(const nd_tree *tree, nd_tree_message visit, void *context);

/* How many sums are sent in the piece's format; and how many finished ones in fp32, on average over
 * turns. */
double nd_tree_sums(const nd_tree *tree);
double nd_tree_copies(const nd_tree *tree);
