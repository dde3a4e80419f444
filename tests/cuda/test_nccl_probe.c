/* Links between GPUs as dist/link_probe.c measures them, over an emulated NCCL whose messages take
 * a given time. */
#include "dist/link_probe.h"

#include "emulated_nccl.h"
#include "nccl_exchanges.h"
#include "support/support.h"

#include <math.h>
#include <string.h>

enum { RANKS_MAX = 8 };

typedef struct job {
    int ranks, local;
    nd_link between, within;
    nd_backend *memory;
} job;

typedef struct gpu {
    nd_backend device; /* first: ops get no other context */
    nd_comm comm;
    nd_nccl_link link;
    const job *job;
    int enqueued;
} gpu;

static nd_status begin_exchange_device(nd_comm *comm, const nd_comm_exchange *x)
{
    gpu *g = comm->context;
    const int local = g->job->local;
    const bool away = x->to / local != comm->rank / local;
    const nd_link *link = away ? &g->job->between : &g->job->within;
    ND_HOLDS(++g->enqueued <= ND_NCCL_EXCHANGES);
    comm->wait_seconds += link->latency;
    comm->wait_seconds += link->per_byte * (double)x->out_bytes * (away ? local : 1);
    ND_TRY(nd_nccl_link_exchange(&g->link, x));
    return nd_emulated_nccl_wait(&g->link);
}

static nd_status finish(nd_comm *comm)
{
    (void)comm;
    return ND_OK;
}

static nd_status synchronize(nd_backend *b)
{
    ((gpu *)b)->enqueued = 0;
    return ND_OK;
}

static nd_status allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    const nd_nccl_link *l = &((gpu *)comm->context)->link;
    memcpy((char *)all + (size_t)comm->rank * bytes, mine, bytes);
    ND_TRY(l->group_start(l->context, ND_NCCL_ALL));
    for (int r = 0; r < comm->size; r++)
        if (r != comm->rank) {
            ND_TRY(l->send(l->context, ND_NCCL_ALL, mine, bytes, r));
            ND_TRY(l->receive(l->context, ND_NCCL_ALL, (char *)all + (size_t)r * bytes, bytes, r));
        }
    ND_TRY(l->group_end(l->context, ND_NCCL_ALL));
    return nd_emulated_nccl_wait(l);
}

static bool close_to(nd_link found, nd_link given)
{
    return fabs(found.latency / given.latency - 1.0) < 0.01 &&
           fabs(found.per_byte / given.per_byte - 1.0) < 0.01;
}

static nd_status measure(nd_emulated_nccl *nccl, int rank, void *context)
{
    const job *j = context;
    gpu g = {.device = *j->memory, .link = nd_emulated_nccl_link(nccl, rank), .job = j};
    nd_comm *comm = &g.comm;
    nd_link between, within;
    g.device.ops.synchronize = synchronize;
    g.comm = (nd_comm){.ops = {.allgather = allgather,
                               .begin_exchange_device = begin_exchange_device,
                               .finish = finish},
                       .rank = rank,
                       .size = j->ranks,
                       .local_rank = rank % j->local,
                       .local_size = j->local,
                       .device = &g.device,
                       .context = &g};
    ND_TRY(nd_links_probe(comm, &between, &within));
    ND_HOLDS(g.enqueued == 0);
    ND_HOLDS(close_to(between, j->between));
    ND_HOLDS(close_to(within, j->local > 1 ? j->within : j->between));
    return ND_OK;
}

Test(nccl_probe, finds_links_between_gpus_in_groups_of_a_send_and_a_receive)
{
    const nd_link ethernet = {50e-6, 8e-9, 0}, port = {20e-6, 2e-11, 0}, bus = {10e-6, 4e-9, 0};
    const int sizes[][2] = {{2, 1}, {3, 1}, {4, 2}, {RANKS_MAX, 4}};
    nd_backend *cpu;
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &cpu));
    for (int i = 0; i < 4; i++) {
        nd_emulated_counts done[RANKS_MAX];
        job j = {sizes[i][0], sizes[i][1], i == 0 ? port : ethernet, bus, cpu};
        ND_ASSERT_OK(
            nd_emulated_nccl_run((nd_emulated_machine){.ranks = j.ranks}, measure, &j, done));
        for (int r = 0; r < j.ranks; r++) {
            cr_assert_eq(done[r].both_ways, done[r].groups, "rank %d of %d", r, j.ranks);
            cr_assert_eq(done[r].messages, done[0].messages, "rank %d of %d", r, j.ranks);
            cr_assert_eq(done[r].largest, 2 * (j.ranks - 1), "rank %d of %d", r, j.ranks);
        }
    }
    nd_backend_destroy(cpu);
}
