/* How ranks meet for NCCL, with other ranks played by a fake comm. */
#include "nccl_bootstrap.h"
#include "support/support.h"

#include <string.h>

/* What the other ranks say in each allgather, and what happened here. */
typedef struct meeting {
    nd_comm comm;
    int others[4]; /* the status every other rank reports in the n-th agreement */
    int agreements;
    int twins[2]; /* ranks with one GPU; equal: none */
    int failing_rank;
    int hosts[4][3]; /* the first rank on each rank's host, how many there are, and their order */
    bool keeps_order;
    char trace[128];
    char id[ND_NCCL_ID_BYTES];
    nd_status library, named, made, joined;
} meeting;

static meeting m;

static nd_status fake_allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    int *codes = all;
    if (bytes == ND_NCCL_GPU_BYTES) {
        char *gpus = all;
        for (int r = 0; r < comm->size; r++)
            memset(gpus + (size_t)r * bytes, '0' + (r == m.twins[1] ? m.twins[0] : r), bytes);
        strcat(m.trace, "gpus ");
        return ND_OK;
    }
    if (bytes == sizeof m.hosts[0]) {
        memcpy(m.hosts[comm->rank], mine, bytes);
        memcpy(all, m.hosts, sizeof m.hosts);
        strcat(m.trace, "hosts ");
        return ND_OK;
    }
    cr_assert_eq(bytes, sizeof(int));
    for (int r = 0; r < comm->size; r++)
        codes[r] = r == m.failing_rank ? m.others[m.agreements] : ND_OK;
    memcpy(&codes[comm->rank], mine, sizeof(int));
    m.agreements++;
    strcat(m.trace, "agree ");
    return ND_OK;
}

static nd_status fake_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    cr_assert(root == 0 && bytes == ND_NCCL_ID_BYTES);
    if (comm->rank != 0)
        memset(data, 'x', bytes);
    strcat(m.trace, "broadcast ");
    return ND_OK;
}

static nd_status open_library(void *context)
{
    (void)context;
    strcat(m.trace, "open ");
    return m.library == ND_OK ? ND_OK : ND_FAIL(m.library, "no libnccl.so.2");
}

static nd_status name_gpu(void *context, void *gpu)
{
    (void)context;
    memset(gpu, 'g', ND_NCCL_GPU_BYTES);
    return m.named == ND_OK ? ND_OK : ND_FAIL(m.named, "no name");
}

static nd_status make_id(void *context, void *id)
{
    (void)context;
    memset(id, 'i', ND_NCCL_ID_BYTES);
    strcat(m.trace, "id ");
    return m.made == ND_OK ? ND_OK : ND_FAIL(m.made, "no id");
}

static nd_status join(void *context, const void *id, int size, int rank)
{
    (void)context;
    cr_assert(size == m.comm.size && rank == m.comm.rank);
    memcpy(m.id, id, sizeof m.id);
    strcat(m.trace, "join ");
    return m.joined == ND_OK ? ND_OK : ND_FAIL(m.joined, "cannot join");
}

static bool keeps_order(void *context)
{
    (void)context;
    return m.keeps_order;
}

static nd_status join_host(void *context, int host, int local_rank)
{
    (void)context;
    cr_assert_eq(local_rank, m.comm.local_rank);
    strcat(m.trace, host == 0 ? "first-host " : "second-host ");
    return ND_OK;
}

static nd_status meet_on(int rank, int local_rank, int local_size)
{
    static const nd_nccl_steps steps = {open_library, name_gpu,  make_id, join,
                                        keeps_order,  join_host, NULL};
    m.comm = (nd_comm){.rank = rank, .size = 4, .local_rank = local_rank, .local_size = local_size};
    m.comm.ops.allgather = fake_allgather;
    m.comm.ops.broadcast = fake_broadcast;
    return nd_nccl_bootstrap(&m.comm, &steps);
}

static nd_status meet(int rank)
{
    return meet_on(rank, rank, 4);
}

Test(nccl, rank_0_makes_the_id_and_all_join_with_it)
{
    m = (meeting){.failing_rank = -1};
    ND_ASSERT_OK(meet(0));
    cr_assert_str_eq(m.trace, "open id agree gpus broadcast join agree hosts ");
    cr_assert_eq(m.id[100], 'i');
    m = (meeting){.failing_rank = -1};
    ND_ASSERT_OK(meet(3));
    cr_assert_str_eq(m.trace, "open agree gpus broadcast join agree hosts ");
    cr_assert_eq(m.id[100], 'x');
}

Test(nccl, nobody_joins_when_a_library_or_the_id_is_missing)
{
    m = (meeting){.failing_rank = 2, .others = {ND_EINTERNAL}};
    ND_ASSERT_FAILS(meet(0), ND_EPEER, "rank 0 of 4: rank 2 could not prepare NCCL");
    cr_assert_str_eq(m.trace, "open id agree ");
    m = (meeting){.failing_rank = -1, .library = ND_EINTERNAL};
    ND_ASSERT_FAILS(meet(1), ND_EINTERNAL, "no libnccl.so.2");
    cr_assert_str_eq(m.trace, "open agree ");
    m = (meeting){.failing_rank = -1, .named = ND_EINTERNAL};
    ND_ASSERT_FAILS(meet(0), ND_EINTERNAL, "no name");
    cr_assert_str_eq(m.trace, "open agree ");
    m = (meeting){.failing_rank = -1, .made = ND_EPEER};
    ND_ASSERT_FAILS(meet(0), ND_EPEER, "no id");
    cr_assert_str_eq(m.trace, "open id agree ");
}

Test(nccl, all_hear_that_one_could_not_join)
{
    m = (meeting){.failing_rank = 3, .others = {ND_OK, ND_EPEER}};
    ND_ASSERT_FAILS(meet(1), ND_EPEER, "rank 1 of 4: rank 3 could not join the NCCL communicator");
    m = (meeting){.failing_rank = -1, .joined = ND_EPEER};
    ND_ASSERT_FAILS(meet(1), ND_EPEER, "cannot join");
    cr_assert_str_eq(m.trace, "open agree gpus broadcast join agree ");
}

Test(nccl, nobody_joins_when_two_ranks_have_one_gpu)
{
    for (int rank = 0; rank < 4; rank++) {
        m = (meeting){.failing_rank = -1, .twins = {1, 3}};
        ND_ASSERT_FAILS(meet(rank), ND_ECONFIG, "rank 1 and rank 3 have the same GPU");
        cr_assert(strstr(m.trace, "join") == NULL, "%s", m.trace);
    }
}

Test(nccl, ranks_of_a_host_have_a_communicator_where_hosts_are_alike)
{
    static const struct {
        int hosts[4][3]; /* of all ranks */
        bool own;
    } cases[] = {{{{0, 2, 1}, {0, 2, 1}, {2, 2, 1}, {2, 2, 1}}, true},
                 {{{0, 1, 1}, {1, 1, 1}, {2, 1, 1}, {3, 1, 1}}, false},
                 {{{0, 4, 1}, {0, 4, 1}, {0, 4, 1}, {0, 4, 1}}, false},
                 {{{0, 3, 1}, {0, 3, 1}, {0, 3, 1}, {3, 1, 1}}, false},
                 {{{0, 2, 1}, {1, 2, 1}, {0, 2, 1}, {1, 2, 1}}, false},
                 {{{0, 2, 1}, {0, 2, 1}, {2, 2, 1}, {2, 2, 0}}, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int rank = 0; rank < 4; rank++) {
            const int *mine = cases[i].hosts[rank];
            m = (meeting){.failing_rank = -1, .keeps_order = mine[2]};
            memcpy(m.hosts, cases[i].hosts, sizeof m.hosts);
            ND_ASSERT_OK(meet_on(rank, rank - mine[0], mine[1]));
            const char *after = strstr(m.trace, "hosts ") + strlen("hosts ");
            cr_assert_str_eq(after,
                             !cases[i].own ? ""
                             : rank < 2    ? "first-host agree "
                                           : "second-host agree ",
                             "case %zu, rank %d", i, rank);
        }
}
