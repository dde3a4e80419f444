#include "train/run_groups.h"

#include "dist/device.h"
#include "dist/link_probe.h"
#include "train/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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
    if (comm->device && !comm->ops.begin_exchange_device)
        return "links between GPUs are measured with NCCL, which this build lacks; `plan --groups` "
               "takes them as they are given";
    /* In one group without the tree, NCCL adds in its own order. */
    if (run->config.dist.grad_comm_dtype != ND_GRADIENT_WIRE_FP32 ||
        (comm->device && run->config.dist.deterministic != ND_DETERMINISTIC_WORLD))
        return "other groups would round gradients to other bits, so they are not chosen by what "
               "is measured; `plan --groups` names the fastest";
    for (int h = 0; h < hosts; h++)
        if (sizes[h] != sizes[0])
            return "hosts have different numbers of ranks";
    return NULL;
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
    double *all = calloc((size_t)comm->size, sizeof mine);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for the rates of %d ranks", comm->size);
    nd_status status;
    ND_TRY_GOTO(nd_links_probe(comm, &machine->between, &machine->within), done);
    run->backend->log = &run->log;
    ND_TRY_GOTO(nd_comm_agree(comm, nd_plan_measure_flops(&run->config, comm->local_size,
                                                          comm->device, &mine[0])),
                done);
    mine[1] = memory_left(comm); /* beside the workspace, which a device has kept */
    ND_TRY_GOTO(comm->ops.allgather(comm, all, mine, sizeof mine), done);
    for (int r = 0; r < comm->size; r++) {
        mine[0] = fmin(mine[0], all[2 * r]);
        mine[1] = fmin(mine[1], all[2 * r + 1]);
    }
    machine->flops = mine[0];
    *memory = (size_t)mine[1];
done:
    free(all);
    return status;
}

void nd_run_groups_describe(const nd_plan_groups *groups, int chosen,
                            const nd_plan_machine *machine, char *text, size_t size)
{
    const int ranks = groups->ranks[groups->count - 1], group = groups->ranks[chosen];
    const char *before = " (";
    size_t used = (size_t)snprintf(text, size, "%d of %d ranks: %.4g ms a step predicted",
                                   ranks / group, group, groups->cost[chosen].cost.step * 1e3);
    for (int i = groups->count - 1; i >= 0; i--) {
        if (i == chosen || used >= size)
            continue;
        used += (size_t)snprintf(text + used, size - used, "%s%d of %d: %.4g", before,
                                 ranks / groups->ranks[i], groups->ranks[i],
                                 groups->cost[i].cost.step * 1e3);
        before = ", ";
    }
    if (used < size)
        snprintf(text + used, size - used,
                 "%s; measured %.3g Gbit/s and %.3g us between hosts, %.3g Gbit/s and %.3g us "
                 "within, %.3g FLOP/s a rank",
                 groups->count > 1 ? ")" : "", 8e-9 / machine->between.per_byte,
                 machine->between.latency * 1e6, 8e-9 / machine->within.per_byte,
                 machine->within.latency * 1e6, machine->flops);
}

/* Rank 0 predicts: others might differ in the last bit. Assumes 5 GB/s for additions, like `plan`,
 * and 1 TB/s on a GPU. */
static nd_status choose(nd_run *run, int hosts)
{
    nd_comm *comm = run->comm;
    nd_plan_machine machine = {
        .add_per_byte = comm->device ? 1e-12 : 2e-10, .hosts = hosts, .backend = run->backend};
    nd_plan_groups groups;
    size_t memory = 0;
    nd_status status = ND_OK;
    ND_TRY(measure(run, &machine, &memory));
    if (comm->rank == 0)
        status = nd_plan_groups_predict(&run->config, comm->size, &machine, &groups);
    if (comm->rank == 0 && status == ND_OK) {
        char text[1024];
        const int chosen = nd_plan_groups_choose(&groups, memory);
        comm->group_ranks = chosen < groups.count - 1 ? groups.ranks[chosen] : 0;
        nd_run_groups_describe(&groups, chosen, &machine, text, sizeof text);
        nd_log_line(&run->log, "groups  %s", text);
    }
    ND_TRY(nd_comm_agree(comm, status));
    return comm->ops.broadcast(comm, &comm->group_ranks, sizeof comm->group_ranks, 0);
}

nd_status nd_run_choose_groups(nd_run *run)
{
    nd_comm *comm = run->comm;
    const int group = (int)run->config.dist.group_ranks;
    comm->group_ranks = 0;
    if (comm->size == 1 || nd_config_has_rounds(&run->config) ||
        (group > 0 && comm->size % group != 0))
        return ND_OK; /* or an error of nd_run_prepare */
    int *local = calloc(2 * (size_t)comm->size, sizeof *local);
    ND_FAIL_IF(!local, ND_ENOMEM, "no memory for the hosts of %d ranks", comm->size);
    int *sizes = local + comm->size;
    nd_status status = comm->ops.allgather(comm, local, &comm->local_rank, sizeof *local);
    const int hosts = status == ND_OK ? hosts_of(local, comm->size, sizes) : 0;
    const char *why = hosts > 1 ? reason_for_one(run, sizes, hosts) : NULL;
    if (group > 0 && hosts > 0 && nd_groups_check(comm->size, sizes, hosts, group) != ND_OK)
        status = nd_error_mark_shared(ND_ECONFIG);
    else if (group == 0 && why && comm->rank == 0)
        nd_log_line(&run->log, "groups  1 of %d ranks: %s", comm->size, why);
    else if (group == 0 && hosts > 1 && !why)
        status = choose(run, hosts);
    free(local);
    return status;
}
