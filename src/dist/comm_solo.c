#include "dist/comm.h"
#include "dist/reduction/tree_reduction.h"

#include <stdlib.h>
#include <string.h>

static void solo_destroy(nd_comm *comm)
{
    free(comm);
}

static nd_status solo_barrier(nd_comm *comm)
{
    (void)comm;
    return ND_OK;
}

static nd_status solo_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    (void)comm, (void)data, (void)bytes, (void)root;
    return ND_OK;
}

static nd_status solo_allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    (void)comm;
    if (all != mine && bytes > 0)
        memcpy(all, mine, bytes);
    return ND_OK;
}

static nd_status solo_gather(nd_comm *comm, void *all, const void *mine, const size_t *bytes,
                             int root)
{
    (void)root;
    return solo_allgather(comm, all, mine, bytes[0]);
}

typedef struct sum {
    nd_comm *comm;
    const nd_comm_piece *piece;
} sum;

/* All leaves are here, so every act is an addition. */
static nd_status add_slots(void *context, const nd_tree_act *act)
{
    const sum *s = context;
    return nd_tree_add(s->comm, s->piece->slots[act->slot], s->piece->slots[act->other],
                       s->piece->count);
}

static nd_status solo_reduce_to_owners(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                       int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sum s = {comm, &pieces[i]};
        const nd_tree tree = nd_tree_of(comm, split, &pieces[i], 0);
        int slot;
        ND_TRY(nd_tree_walk(comm->rank, &tree, add_slots, &s, &slot));
        pieces[i].result = slot >= 0 ? pieces[i].slots[slot] : NULL;
    }
    return ND_OK;
}

static nd_status solo_begin_broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    (void)comm, (void)buffers, (void)bytes;
    return ND_OK;
}

static nd_status solo_begin_exchange(nd_comm *comm, const nd_comm_exchange *exchange)
{
    (void)comm, (void)exchange;
    return ND_OK;
}

static void solo_abort(nd_comm *comm, int exit_code)
{
    (void)comm, (void)exit_code;
}

nd_status nd_comm_create_solo(nd_comm **comm)
{
    nd_comm *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for the communicator");
    made->ops = (nd_comm_ops){.name = "solo",
                              .destroy = solo_destroy,
                              .barrier = solo_barrier,
                              .broadcast = solo_broadcast,
                              .broadcast_group = solo_broadcast,
                              .broadcast_device = solo_broadcast,
                              .allgather = solo_allgather,
                              .gather = solo_gather,
                              .reduce_to_owners = solo_reduce_to_owners,
                              .begin_reduction = solo_reduce_to_owners,
                              .begin_broadcast = solo_broadcast,
                              .begin_broadcast_each = solo_begin_broadcast_each,
                              .begin_exchange = solo_begin_exchange,
                              .finish = solo_barrier,
                              .abort = solo_abort};
    made->size = 1;
    made->local_size = 1;
    made->host_ranks = 1;
    made->timeout_seconds = ND_COMM_TIMEOUT_DEFAULT;
    *comm = made;
    return ND_OK;
}
