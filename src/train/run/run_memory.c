#include "train/run/run_memory.h"

#include "train/outer_step.h"
#include "train/passes.h"
#include "train/plan/memory_advice.h"

#include <stdio.h>
#include <stdlib.h>

/* Every owner of the parameter within its worker keeps the start of a round, in full precision. */
static nd_status reserve_start(nd_run *run, nd_arena *arena)
{
    const nd_params *params = &run->model->params;
    const nd_rounds *r = run->rounds;
    for (int64_t i = 0; i < params->count; i++)
        if (r->worker[0].own.owner[i] == r->inside->rank)
            ND_TRY(nd_arena_reserve(arena, ND_F32, params->list[i].rows, params->list[i].cols,
                                    &run->masters[i]));
    return ND_OK;
}

static nd_status reserve_masters(nd_run *run, nd_arena *arena)
{
    const nd_params *params = &run->model->params;
    const nd_dtype type =
        run->config.optimizer.master_precision == ND_PRECISION_BF16 ? ND_BF16 : ND_F32;
    for (int64_t i = 0; i < params->count; i++) {
        const int64_t rows = nd_run_owned_rows(run, i).count;
        if (rows > 0)
            ND_TRY(nd_arena_reserve(arena, type, rows, params->list[i].cols, &run->masters[i]));
    }
    return ND_OK;
}

static nd_status reserve_worker(nd_run *run, nd_memory_category category, nd_arena *arena)
{
    switch (category) {
    case ND_MEMORY_CODES:
        return nd_model_reserve_weights(run->model, arena);
    case ND_MEMORY_MASTERS:
        return reserve_masters(run, arena);
    case ND_MEMORY_GRADIENTS:
        ND_TRY(nd_gradient_reducer_reserve(run->reducer, arena));
        return nd_passes_reserve(run, arena);
    case ND_MEMORY_OPTIMIZER:
        return nd_optimizer_reserve(run->optimizer, arena);
    case ND_MEMORY_ACTIVATIONS:
        return nd_model_reserve_activations(run->model, arena, true);
    case ND_MEMORY_WIRE:
        ND_TRY(nd_gradient_reducer_reserve_feedback(run->reducer, arena));
        return nd_weight_gather_reserve(&run->gather, run->model, &run->own,
                                        nd_comm_member(run->comm), arena);
    case ND_MEMORY_COUNT:
        break;
    }
    return ND_FAIL(ND_EINTERNAL, "no memory category %d", (int)category);
}

/* The run's own memory besides its workers: the model of the last synchronization. */
static nd_status reserve_common(nd_run *run, nd_memory_category category, nd_arena *arena)
{
    switch (category) {
    case ND_MEMORY_CODES:
        return nd_model_reserve_weights(run->model, arena);
    case ND_MEMORY_MASTERS:
        return reserve_start(run, arena);
    case ND_MEMORY_OPTIMIZER:
        return nd_outer_reserve_state(run, arena);
    case ND_MEMORY_WIRE:
        return nd_outer_reserve_wire(run, arena);
    case ND_MEMORY_ACTIVATIONS: /* shared with workers */
        return nd_model_reserve_activations(run->model, arena, true);
    case ND_MEMORY_GRADIENTS:
    case ND_MEMORY_COUNT:
        break;
    }
    return ND_OK;
}

/* A rank's workers compute one after another and share their activations' memory. */
static nd_status reserve_category(nd_run *run, nd_memory_category category)
{
    nd_arena *arena = &run->arenas[category];
    const size_t before = arena->used;
    if (!run->rounds)
        return reserve_worker(run, category, arena);
    ND_TRY(reserve_common(run, category, arena));
    for (int i = 0; i < run->rounds->carried; i++) {
        if (category == ND_MEMORY_ACTIVATIONS)
            arena->used = before;
        ND_TRY(reserve_worker(&run->rounds->worker[i], category, arena));
    }
    return ND_OK;
}

nd_status nd_run_memory_measure(nd_run *run)
{
    for (int category = 0; category < ND_MEMORY_COUNT; category++) {
        nd_arena_start_sizing(&run->arenas[category],
                              nd_memory_category_name((nd_memory_category)category), run->backend);
        ND_TRY(reserve_category(run, (nd_memory_category)category));
    }
    return ND_OK;
}

/* The request, the rank's total and what would reduce it. `need`: bytes of every category. */
static nd_status out_of_memory(const nd_run *run, int category, const size_t *need)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    ND_AUTOFREE char *text = NULL;
    size_t size = 0, total = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return ND_ENOMEM; /* keeps the arena's error */
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        total += need[i];
    fprintf(out, "of %.2f GiB in all (", (double)total / gib);
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        fprintf(out, "%s%s %.2f", i ? ", " : "", nd_memory_category_name((nd_memory_category)i),
                (double)need[i] / gib);
    fprintf(out, "); what would help, as `plan --device-memory` says too:\n");
    nd_memory_advise(&run->config, need, out);
    fclose(out);
    nd_error_clear();
    return ND_FAIL(ND_ENOMEM, "no memory for %s: %.2f GiB wanted (%zu bytes), %s",
                   nd_memory_category_name((nd_memory_category)category),
                   (double)need[category] / gib, need[category], text);
}

/* Linux overcommits host memory and kills processes later: warn in advance. */
static void warn_when_scarce(nd_run *run, const size_t *need)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    const size_t available = nd_memory_available();
    const size_t loader = nd_run_loader_bytes(run);
    size_t total = loader;
    for (int i = 0; run->backend->ops.host_memory && i < ND_MEMORY_COUNT; i++)
        total += need[i];
    if (total > available / (size_t)run->comm->local_size)
        nd_log_line(&run->log,
                    "warning: this machine has %.1f GiB left and its %d rank%s will take %.1f GiB "
                    "each: the kernel may kill them; `plan --device-memory` says what helps%s",
                    (double)available / gib, run->comm->local_size,
                    run->comm->local_size == 1 ? "" : "s", (double)total / gib,
                    loader > total / 2
                        ? "; most of it is read ahead: lower training.prefetch_batches"
                        : "");
}

nd_status nd_run_memory_reserve(nd_run *run)
{
    size_t need[ND_MEMORY_COUNT];
    run->start.resident = nd_memory_resident();
    ND_TRY(nd_run_memory_measure(run));
    for (int category = 0; category < ND_MEMORY_COUNT; category++)
        need[category] = run->arenas[category].used;
    warn_when_scarce(run, need);
    for (int category = 0; category < ND_MEMORY_COUNT; category++) {
        if (nd_arena_commit(&run->arenas[category]) != ND_OK)
            return out_of_memory(run, category, need);
        ND_TRY(reserve_category(run, (nd_memory_category)category));
    }
    return ND_OK;
}
