#include "train/plan/plan_choice.h"

#include "dist/transport/wire_sizes.h"

#include <stdlib.h>

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
    nd_config *with = malloc(sizeof *with);
    nd_status status = ND_CHECK(with, ND_ENOMEM, "no memory for a configuration");
    groups->count = 0;
    for (int g = 1; status == ND_OK && g <= ranks && groups->count < ND_PLAN_GROUPS_MAX; g++) {
        if (g < ranks && !is_candidate(ranks, machine->hosts, g))
            continue;
        *with = *config;
        with->dist.group_ranks = g;
        groups->ranks[groups->count] = g;
        status = nd_plan_cost_predict(with, ranks, machine, &groups->cost[groups->count++]);
    }
    free(with);
    return status;
}

int nd_plan_groups_fastest(const nd_plan_groups *groups)
{
    int best = groups->count - 1;
    for (int i = best - 1; i >= 0; i--)
        if (groups->cost[i].cost.step < groups->cost[best].cost.step)
            best = i;
    return best;
}

int nd_plan_groups_choose(const nd_plan_groups *groups, size_t memory)
{
    const int all = groups->count - 1;
    double least = 0.95 * groups->cost[all].cost.step;
    int best = all;
    for (int i = all - 1; i >= 0; i--)
        if (groups->cost[i].cost.step < least && groups->cost[i].memory <= memory) {
            least = groups->cost[i].cost.step;
            best = i;
        }
    return best;
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
