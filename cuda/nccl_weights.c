#include "nccl_weights.h"

static nd_status send(const nd_nccl_link *link, nd_comm *comm, const void *data, size_t bytes,
                      int member)
{
    comm->bytes_sent += bytes;
    return bytes > 0 ? link->send(link->context, ND_NCCL_ALL, data, bytes,
                                  nd_comm_group_first(comm) + member)
                     : ND_OK;
}

static nd_status receive(const nd_nccl_link *link, const nd_comm *comm, void *data, size_t bytes,
                         int member)
{
    return bytes > 0 ? link->receive(link->context, ND_NCCL_ALL, data, bytes,
                                     nd_comm_group_first(comm) + member)
                     : ND_OK;
}

static nd_status send_to_each(const nd_nccl_link *link, nd_comm *comm, void *const *buffers,
                              const size_t *bytes)
{
    const int members = nd_comm_group(comm), me = nd_comm_member(comm);
    ND_TRY(link->group_start(link->context, ND_NCCL_ALL));
    for (int far = 1; far < members; far++) {
        const int left = (me + members - far) % members;
        ND_TRY(send(link, comm, buffers[me], bytes[me], (me + far) % members));
        ND_TRY(receive(link, comm, buffers[left], bytes[left], left));
    }
    return link->group_end(link->context, ND_NCCL_ALL);
}

static nd_status go_round(const nd_nccl_link *link, nd_comm *comm, void *const *buffers,
                          const size_t *bytes)
{
    const int members = nd_comm_group(comm), me = nd_comm_member(comm);
    for (int round = 1; round < members; round++) {
        const int out = (me + members - round + 1) % members, in = (me + members - round) % members;
        ND_TRY(link->group_start(link->context, ND_NCCL_ALL));
        ND_TRY(send(link, comm, buffers[out], bytes[out], (me + 1) % members));
        ND_TRY(receive(link, comm, buffers[in], bytes[in], (me + members - 1) % members));
        ND_TRY(link->group_end(link->context, ND_NCCL_ALL));
    }
    return ND_OK;
}

nd_status nd_nccl_weights_send(const nd_nccl_link *link, nd_comm *comm, void *const *buffers,
                               const size_t *bytes)
{
    /* A group lies within a host or has whole ones. */
    const bool one_host = nd_comm_group(comm) <= comm->local_size;
    return (one_host ? send_to_each : go_round)(link, comm, buffers, bytes);
}
