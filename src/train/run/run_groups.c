#include "train/run/run_groups.h"

#include "dist/device.h"
#include "dist/link_probe.h"
#include "train/run/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* sizes[] of hosts from all local ranks; returns 0 if ranks of a host are not consecutive. */
static int hosts_of(const int *local, int ranks, int *sizes)
{
    int hosts = 0;
    for (int r = 0; r < ranks; r++) {
        if (local[r] == 0)
            sizes[hosts++] = 0;
        if (hosts == 0 || local[r] != sizes[hosts - 1]++)
            return 0;
    }
    return hosts;
}

/* Why the cost model is not used; NULL: it is. */
static const char *reason_for_one(const nd_run *run, const int *sizes, int hosts)
{
    const nd_comm *comm = run->comm;
    bool even = true;
    if (comm->device && !comm->ops.begin_exchange_device)
        return "links between GPUs are measured with NCCL, which this build lacks; `plan --groups` "
               "takes them as they are given";
    for (int h = 0; h < hosts; h++)
        even = even && sizes[h] == sizes[0];
    return nd_plan_groups_fixed(&run->config, comm->device != NULL, even);
}

/* Bytes that this rank may take. */
static double memory_left(const nd_comm *comm)
{
    return 0.9 * (comm->device ? (double)nd_device_memory_left(comm->device)
                               : (double)nd_memory_available() / comm->local_size);
}

/* The slowest rank's operations per second, and the least memory. */
static nd_status measure(nd_run *run, nd_plan_machine *machine, size_t *memory)
{
    nd_comm *comm = run->comm;
    double mine[2] = {0.0, 0.0};
    ND_AUTOFREE double *all = calloc((size_t)comm->size, sizeof mine);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for the rates of %d ranks", comm->size);
    ND_TRY(nd_links_probe(comm, &machine->between, &machine->within));
    run->backend->log = &run->log;
    ND_TRY(nd_comm_agree(
        comm, nd_plan_measure_flops(&run->config, comm->local_size, comm->device, &mine[0])));
    mine[1] = memory_left(comm); /* beside the workspace, which a device has kept */
    ND_TRY(comm->ops.allgather(comm, all, mine, sizeof mine));
    for (int r = 0; r < comm->size; r++) {
        mine[0] = fmin(mine[0], all[2 * r]);
        mine[1] = fmin(mine[1], all[2 * r + 1]);
    }
    machine->flops = mine[0];
    *memory = (size_t)mine[1];
    return ND_OK;
}

void nd_run_groups_describe(const nd_plan_groups *groups, int chosen, const nd_plan_parts *parts,
                            const nd_plan_machine *machine, char *text, size_t size)
{
    nd_plan_groups_describe(groups, chosen, text, size);
    const size_t used = strlen(text);
    snprintf(text + used, size - used,
             "; in parts of %lld KiB %.4g ms; measured %.3g Gbit/s, %.3g us and %.3g us a part "
             "between hosts, %.3g Gbit/s, %.3g and %.3g us within, %.3g FLOP/s a rank",
             (long long)parts->kib, parts->step * 1e3, 8e-9 / machine->between.per_byte,
             machine->between.latency * 1e6, machine->between.per_message * 1e6,
             8e-9 / machine->within.per_byte, machine->within.latency * 1e6,
             machine->within.per_message * 1e6, machine->flops);
}

/* What rank 0 chooses; others might predict another last bit. */
typedef struct choice {
    int64_t group, part_bytes;
} choice;

static nd_status predict(nd_run *run, const nd_plan_machine *machine, size_t memory, choice *chosen)
{
    const int ranks = run->comm->size;
    nd_plan_groups groups;
    nd_plan_parts parts;
    char text[1024];
    nd_config with = run->config;
    ND_TRY(nd_plan_groups_predict(&with, ranks, machine, &groups));
    const int best = nd_plan_groups_choose(&groups, memory);
    with.dist.group_ranks = groups.ranks[best];
    ND_TRY(nd_plan_parts_choose(&with, ranks, machine, &parts));
    *chosen = (choice){best < groups.count - 1 ? groups.ranks[best] : 0,
                       (int64_t)nd_config_part_bytes(&with)};
    nd_run_groups_describe(&groups, best, &parts, machine, text, sizeof text);
    nd_log_line(&run->log, "groups  %s", text);
    return ND_OK;
}

/* Assumes 5 GB/s for additions, like `plan`, and 1 TB/s on a GPU. */
static nd_status choose(nd_run *run, int hosts)
{
    nd_comm *comm = run->comm;
    nd_plan_machine machine = {
        .add_per_byte = comm->device ? 1e-12 : 2e-10, .hosts = hosts, .backend = run->backend};
    choice chosen = {0};
    size_t memory = 0;
    ND_TRY(measure(run, &machine, &memory));
    ND_TRY(nd_comm_agree(comm, comm->rank == 0 ? predict(run, &machine, memory, &chosen) : ND_OK));
    ND_TRY(comm->ops.broadcast(comm, &chosen, sizeof chosen, 0));
    comm->group_ranks = (int)chosen.group;
    comm->part_bytes = (size_t)chosen.part_bytes;
    return ND_OK;
}

nd_status nd_run_choose_groups(nd_run *run)
{
    nd_comm *comm = run->comm;
    const int group = (int)run->config.dist.group_ranks;
    comm->group_ranks = 0;
    comm->part_bytes = 0;
    if (comm->size == 1 || nd_config_has_rounds(&run->config) ||
        (group > 0 && comm->size % group != 0))
        return ND_OK; /* or an error of nd_run_prepare */
    ND_AUTOFREE int *local = calloc(2 * (size_t)comm->size, sizeof *local);
    ND_FAIL_IF(!local, ND_ENOMEM, "no memory for the hosts of %d ranks", comm->size);
    int *sizes = local + comm->size;
    ND_TRY(comm->ops.allgather(comm, local, &comm->local_rank, sizeof *local));
    const int hosts = hosts_of(local, comm->size, sizes);
    const char *why = hosts > 1 ? reason_for_one(run, sizes, hosts) : NULL;
    if (group > 0 && hosts > 0 && nd_groups_check(comm->size, sizes, hosts, group) != ND_OK)
        return nd_error_mark_shared(ND_ECONFIG);
    if (group == 0 && why && comm->rank == 0)
        nd_log_line(&run->log, "groups  1 of %d ranks: %s", comm->size, why);
    return group == 0 && hosts > 1 && !why ? choose(run, hosts) : ND_OK;
}
