#include "nccl_bootstrap.h"

#include <string.h>

/* Every rank learns whether all are well. */
static nd_status agree(nd_comm *comm, nd_status mine, const char *what)
{
    int all[comm->size];
    const int code = (int)mine;
    memset(all, 0, sizeof all);
    ND_TRY(comm->ops.allgather(comm, all, &code, sizeof code));
    if (mine != ND_OK)
        return mine;
    for (int r = 0; r < comm->size; r++)
        ND_FAIL_IF(all[r] != ND_OK, ND_EPEER, "rank %d of %d: rank %d could not %s", comm->rank,
                   comm->size, r, what);
    return ND_OK;
}

/* NCCL says of this no more than "invalid usage". */
static nd_status gpus_differ(nd_comm *comm, const char *mine)
{
    char all[comm->size][ND_NCCL_GPU_BYTES];
    memset(all, 0, sizeof all);
    ND_TRY(comm->ops.allgather(comm, all, mine, ND_NCCL_GPU_BYTES));
    for (int r = 1; r < comm->size; r++)
        for (int other = 0; other < r; other++)
            ND_FAIL_IF(memcmp(all[r], all[other], ND_NCCL_GPU_BYTES) == 0, ND_ECONFIG,
                       "rank %d and rank %d have the same GPU: a rank needs a GPU of its own, and "
                       "CUDA_VISIBLE_DEVICES must show each rank another one, or all ranks all "
                       "GPUs of their host",
                       other, r);
    return ND_OK;
}

/* *host: this rank's, or -1 where ranks of a host need no communicator, or cannot have one. */
static nd_status find_host(nd_comm *comm, bool keeps_order, int *host)
{
    typedef struct place {
        int first, ranks, keeps_order;
    } place;
    place all[comm->size], mine = {comm->rank - comm->local_rank, comm->local_size, keeps_order};
    memset(all, 0, sizeof all);
    ND_TRY(comm->ops.allgather(comm, all, &mine, sizeof mine));
    *host = mine.ranks > 1 && mine.ranks < comm->size ? comm->rank / mine.ranks : -1;
    for (int r = 0; r < comm->size; r++)
        if (!all[r].keeps_order || all[r].ranks != mine.ranks ||
            all[r].first != r / mine.ranks * mine.ranks)
            *host = -1;
    return ND_OK;
}

nd_status nd_nccl_bootstrap(nd_comm *comm, const nd_nccl_steps *steps)
{
    char id[ND_NCCL_ID_BYTES] = {0}, gpu[ND_NCCL_GPU_BYTES] = {0};
    nd_status status = steps->open_library(steps->context);
    ND_IF_OK(steps->name_gpu(steps->context, gpu));
    if (status == ND_OK && comm->rank == 0)
        status = steps->make_id(steps->context, id);
    ND_TRY(agree(comm, status, "prepare NCCL"));
    ND_TRY(gpus_differ(comm, gpu));
    ND_TRY(comm->ops.broadcast(comm, id, sizeof id, 0));
    status = steps->join(steps->context, id, comm->size, comm->rank);
    ND_TRY(agree(comm, status, "join the NCCL communicator"));
    int host;
    ND_TRY(find_host(comm, steps->keeps_order(steps->context), &host));
    if (host < 0)
        return ND_OK;
    status = steps->join_host(steps->context, host, comm->local_rank);
    return agree(comm, status, "join the NCCL communicator of a host");
}
