#include "train/update.h"

#include "train/checkpoint/checkpoint_save.h"
#include "train/fault_points.h"

static nd_status replace_subspace(nd_run *run, int64_t index)
{
    nd_cview sketch;
    ND_TRY(nd_gradient_reducer_sketch(run->reducer, index, &sketch));
    return nd_optimizer_replace_subspace(run->optimizer, index, run->position.step, sketch);
}

nd_status nd_update_run(nd_run *run, int64_t first, int64_t count, float scale)
{
    const int64_t step = run->position.step;
    const nd_projectors *projectors = nd_optimizer_projectors(run->optimizer);
    nd_comm_set_phase(run->comm, step + 1, "update");
    nd_fault_point(run->comm, "update");
    for (int64_t i = first; i < first + count; i++)
        if (run->masters[i].data) {
            nd_save_wait_written(run, i);
            ND_TRY(nd_optimizer_update(run->optimizer, i, run->masters[i],
                                       nd_gradient_reducer_sum(run->reducer, i), scale, step));
        }
    nd_fault_point(run->comm, "updated");
    for (int64_t i = first; i < first + count; i++) {
        if (!nd_projectors_due(projectors, i, step, NULL))
            continue;
        if (run->masters[i].data)
            ND_TRY(replace_subspace(run, i));
        ND_TRY(nd_run_publish_projector(run, i));
        if (nd_gradient_reducer_projects(run->reducer))
            ND_TRY(nd_gradient_reducer_reset_feedback(run->reducer, i));
    }
    return ND_OK;
}

typedef struct immediate {
    nd_run *run;
    int64_t *nonfinite;
    bool *updated;
} immediate;

static nd_status update_layer(void *context, int64_t first, int64_t count)
{
    const immediate *at = context;
    nd_gradient_reducer *reducer = at->run->reducer;
    if (*at->nonfinite >= 0)
        return ND_OK;
    ND_TRY(nd_gradient_reducer_add(reducer, first, count));
    ND_TRY(nd_gradient_reducer_reduce(reducer, first, count, at->nonfinite));
    if (*at->nonfinite >= 0)
        return ND_OK;
    *at->updated = true;
    return nd_update_run(at->run, first, count, 1.0f);
}

nd_status nd_update_during_backward(nd_run *run, const nd_split_pass *pass, int64_t *nonfinite,
                                    bool *updated)
{
    immediate at = {run, nonfinite, updated};
    *nonfinite = -1;
    *updated = false;
    return nd_passes_backward(run, pass, (nd_gradients_ready){update_layer, &at});
}
