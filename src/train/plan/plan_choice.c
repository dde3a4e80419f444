#include "train/plan/plan_choice.h"

#include "dist/transport/wire_sizes.h"

#include <math.h>
#include <stdio.h>

const char *nd_plan_groups_fixed(const nd_config *config, bool device, bool even)
{
    /* In one group without the tree, NCCL adds in its own order. */
    if (config->dist.grad_comm_dtype != ND_GRADIENT_WIRE_FP32 ||
        (device && config->dist.deterministic != ND_DETERMINISTIC_WORLD))
        return "other groups would round gradients to other bits, so they are not chosen by what "
               "is measured; `plan --groups` names the fastest";
    return even ? NULL : "hosts have different numbers of ranks";
}

/* Whole hosts or within a host; above 64 ranks only some sizes of whole hosts. */
static bool is_candidate(int ranks, int hosts, int size)
{
    const int local = ranks / hosts;
    if (ranks % size != 0 || ranks % hosts != 0 || (local % size != 0 && size % local != 0))
        return false;
    return ranks <= 64 || size == local || size == 8 * local || size == ranks;
}

nd_status nd_plan_groups_predict(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                 nd_plan_groups *groups)
{
    nd_config with = *config;
    groups->count = 0;
    for (int g = 1; g <= ranks && groups->count < ND_PLAN_GROUPS_MAX; g++) {
        if (g < ranks && !is_candidate(ranks, machine->hosts, g))
            continue;
        with.dist.group_ranks = g;
        groups->ranks[groups->count] = g;
        ND_TRY(nd_plan_cost_predict(&with, ranks, machine, &groups->cost[groups->count++]));
    }
    return ND_OK;
}

int nd_plan_groups_fastest(const nd_plan_groups *groups)
{
    int best = groups->count - 1;
    for (int i = best - 1; i >= 0; i--)
        if (groups->cost[i].cost.step < groups->cost[best].cost.step)
            best = i;
    return best;
}

/* The largest groups that take at most `most` seconds and fit `memory`; `otherwise` if none do. */
static int largest_within(const nd_plan_groups *groups, double most, size_t memory, int otherwise)
{
    for (int i = groups->count - 1; i >= 0; i--)
        if (groups->cost[i].cost.step <= most && groups->cost[i].memory <= memory)
            return i;
    return otherwise;
}

int nd_plan_groups_choose(const nd_plan_groups *groups, size_t memory)
{
    const int all = groups->count - 1;
    double least = groups->cost[all].cost.step;
    for (int i = all - 1; i >= 0; i--)
        if (groups->cost[i].memory <= memory)
            least = fmin(least, groups->cost[i].cost.step);
    if (least >= 0.95 * groups->cost[all].cost.step)
        return all;
    return largest_within(groups, 1.01 * least, memory, all);
}

void nd_plan_groups_describe(const nd_plan_groups *groups, int chosen, char *text, size_t size)
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
    if (used < size && groups->count > 1)
        snprintf(text + used, size - used, ")");
}

/* Of dist.part_kib: ND_WIRE_PART_BYTES. */
enum { DEFAULT_PARTS = 5 };

nd_status nd_plan_parts_choose(nd_config *config, int ranks, const nd_plan_machine *machine,
                               nd_plan_parts *parts)
{
    const bool open = config->dist.part_kib == 0 &&
                      config->dist.grad_comm_dtype == ND_GRADIENT_WIRE_FP32 &&
                      config->hardware.target != ND_TARGET_CUDA;
    int best = config->dist.part_kib > 0 ? config->dist.part_kib : DEFAULT_PARTS;
    nd_plan_cost cost;
    config->dist.part_kib = best;
    ND_TRY(nd_plan_cost_predict(config, ranks, machine, &cost));
    *parts = (nd_plan_parts){.before = cost.cost.step, .step = cost.cost.step};
    for (int i = best - 1; open && i > 0; i--) {
        config->dist.part_kib = i;
        if (cost.least_part > (double)nd_config_part_bytes(config))
            break;
        ND_TRY(nd_plan_cost_predict(config, ranks, machine, &cost));
        if (cost.cost.step < 0.99 * parts->step) {
            parts->step = cost.cost.step;
            best = i;
        }
    }
    config->dist.part_kib = best;
    parts->kib = (int64_t)nd_config_part_bytes(config) / 1024;
    return ND_OK;
}
