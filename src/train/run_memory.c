#include "train/run_memory.h"

#include "train/gradient_path.h"

static nd_status take_masters(nd_run *run, nd_arena *arena)
{
    const nd_params *params = &run->model->params;
    const nd_dtype type =
        run->config.optimizer.master_precision == ND_PRECISION_BF16 ? ND_BF16 : ND_F32;
    for (int64_t i = 0; i < params->count; i++)
        if (run->own.owner[i] == run->comm->rank)
            ND_TRY(nd_arena_take(arena, type, params->list[i].rows, params->list[i].cols,
                                 &run->masters[i]));
    return ND_OK;
}

static nd_status take_category(nd_run *run, nd_memory_category category)
{
    nd_arena *arena = &run->arenas[category];
    switch (category) {
    case ND_MEMORY_CODES:
        return nd_model_take_weights(run->model, arena);
    case ND_MEMORY_MASTERS:
        return take_masters(run, arena);
    case ND_MEMORY_GRADIENTS:
        return nd_gradient_path_take(run, arena);
    case ND_MEMORY_OPTIMIZER:
        return nd_optimizer_take(run->optimizer, arena);
    case ND_MEMORY_ACTIVATIONS:
        return nd_model_take_activations(run->model, arena, true);
    case ND_MEMORY_WIRE:
        return nd_weight_gather_take(&run->gather, run->model, &run->own, arena);
    case ND_MEMORY_COUNT:
        break;
    }
    return ND_FAIL(ND_EINTERNAL, "no memory category %d", (int)category);
}

nd_status nd_run_memory_measure(nd_run *run)
{
    for (int category = 0; category < ND_MEMORY_COUNT; category++) {
        nd_arena_start_measuring(&run->arenas[category],
                                 nd_memory_category_name((nd_memory_category)category),
                                 run->backend);
        ND_TRY(take_category(run, (nd_memory_category)category));
    }
    return ND_OK;
}

nd_status nd_run_memory_take(nd_run *run)
{
    run->resident_at_start = nd_memory_resident();
    ND_TRY(nd_run_memory_measure(run));
    for (int category = 0; category < ND_MEMORY_COUNT; category++) {
        ND_TRY(nd_arena_commit(&run->arenas[category]));
        ND_TRY(take_category(run, (nd_memory_category)category));
    }
    return ND_OK;
}
