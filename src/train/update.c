#include "train/update.h"

#include "train/checkpoint/checkpoint_wait.h"
#include "train/fault_points.h"

static nd_status replace_subspace(nd_run *run, int64_t index)
{
    nd_cview sketch;
    ND_TRY(nd_gradient_reducer_sketch(run->reducer, index, &sketch));
    return nd_optimizer_replace_subspace(run->optimizer, index,
                                         nd_gradient_reducer_updates(run->reducer), sketch);
}

/* All owners find theirs at once, and send them then. */
static nd_status replace_subspaces(nd_run *run, int64_t first, int64_t count)
{
    const nd_projectors *projectors = nd_optimizer_projectors(run->optimizer);
    const int64_t step = nd_gradient_reducer_updates(run->reducer);
    for (int64_t i = first; i < first + count; i++)
        if (run->masters[i].data && nd_projectors_due(projectors, i, step, NULL))
            ND_TRY(replace_subspace(run, i));
    for (int64_t i = first; i < first + count; i++) {
        if (!nd_projectors_due(projectors, i, step, NULL))
            continue;
        ND_TRY(nd_run_send_projector(run, i));
        if (nd_gradient_reducer_projects(run->reducer))
            ND_TRY(nd_gradient_reducer_reset_feedback(run->reducer, i));
    }
    return ND_OK;
}

nd_status nd_update_run(nd_run *run, int64_t first, int64_t count, float scale)
{
    const int64_t step = run->position.step;
    nd_comm_set_phase(run->comm, step + 1, "update");
    nd_fault_point(run->comm, "update");
    for (int64_t i = first; i < first + count; i++) {
        if (run->masters[i].data) {
            nd_save_wait_written(run, i);
            ND_TRY(nd_optimizer_update(run->optimizer, i, run->masters[i],
                                       nd_gradient_reducer_sum(run->reducer, i), scale, step));
        }
        ND_TRY(nd_run_send_weight(run, i));
    }
    nd_fault_point(run->comm, "updated");
    return replace_subspaces(run, first, count);
}

typedef struct immediate {
    nd_run *run;
    int64_t *nonfinite;
    bool *updated;
    int64_t first, count; /* parameters whose reduction overlaps the backward pass */
} immediate;

static nd_status update(const immediate *at, int64_t first, int64_t count)
{
    if (*at->nonfinite >= 0 || count == 0)
        return ND_OK;
    *at->updated = true;
    return nd_update_run(at->run, first, count, 1.0f);
}

static nd_status update_layer(void *context, int64_t first, int64_t count)
{
    const immediate *at = context;
    nd_gradient_reducer *reducer = at->run->reducer;
    if (*at->nonfinite >= 0)
        return ND_OK;
    ND_TRY(nd_gradient_reducer_add(reducer, first, count));
    ND_TRY(nd_gradient_reducer_reduce(reducer, first, count, at->nonfinite));
    return update(at, first, count);
}

static nd_status finish_layer(const immediate *at)
{
    return at->count > 0
               ? nd_gradient_reducer_reduce(at->run->reducer, at->first, at->count, at->nonfinite)
               : ND_OK;
}

/* Updates the previous layer while this one is reduced, which overlaps the next one's backward
 * pass. */
static nd_status update_layer_before(void *context, int64_t first, int64_t count)
{
    immediate *at = context;
    ND_TRY(finish_layer(at));
    const immediate before = *at;
    if (*at->nonfinite >= 0)
        count = 0;
    else
        ND_TRY(nd_gradient_reducer_add(at->run->reducer, first, count));
    at->first = first;
    at->count = count;
    return update(at, before.first, before.count);
}

nd_status nd_update_during_backward(nd_run *run, const nd_split_pass *pass, int64_t *nonfinite,
                                    bool *updated)
{
    const bool ahead = nd_gradient_reducer_runs_ahead(run->reducer);
    immediate at = {run, nonfinite, updated, 0, 0};
    *nonfinite = -1;
    *updated = false;
    ND_TRY(nd_passes_backward(
        run, pass, (nd_gradients_ready){ahead ? update_layer_before : update_layer, &at}));
    ND_TRY(finish_layer(&at));
    return update(&at, at.first, at.count);
}
