#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_parts.h"
#include "train/fault_points.h"

#include <stdlib.h>

/* Errors here are warnings. */
static bool worked(nd_save *s, nd_status status)
{
    if (status != ND_OK)
        nd_save_note(s, "warning: %.500s", nd_error_get()->message);
    nd_error_clear();
    return status == ND_OK;
}

/* Renamed first, so that a crash leaves no incomplete directory with a checkpoint's name. */
static nd_status remove_one(const nd_save *s, int64_t step)
{
    char path[ND_CHECKPOINT_PATH_MAX], going[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_checkpoint_step_path(path, s->parent, "", step));
    ND_TRY(nd_checkpoint_step_path(going, s->parent, ND_CHECKPOINT_UNFINISHED, step));
    ND_TRY(nd_directory_remove(going));
    ND_TRY(nd_rename_new(path, going, NULL));
    nd_fault_point_of(0, s->c.step, "save_rotate");
    return nd_directory_remove(going);
}

/* Removes older ones, newest first. Damaged ones do not count. */
static void remove_old(nd_save *s, const nd_checkpoint_steps *steps, int64_t latest)
{
    const int64_t keep = s->run->config.logging.checkpoint_keep;
    int64_t kept = 1; /* the one just written */
    for (int i = steps->count - 1; i >= 0; i--) {
        const int64_t step = steps->list[i];
        nd_checkpoint_inspection standing;
        if (step >= s->c.step || step == latest ||
            !worked(s, nd_checkpoint_inspect(s->parent, step, &standing)) || !standing.own)
            continue;
        if (kept < keep)
            kept += standing.whole;
        else if (worked(s, remove_one(s, step)))
            nd_save_note(s, "removed %s/step_%08lld ([logging] checkpoint_keep = %lld)", s->parent,
                         (long long)step, (long long)keep);
    }
}

/* Removes directories that crashes left half written, half removed or replaced. */
static void remove_leftovers(nd_save *s, const char *prefix)
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    if (!worked(s, nd_checkpoint_steps_list(s->parent, prefix, &steps)))
        return;
    for (int i = 0; i < steps.count; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        nd_status status = nd_checkpoint_step_path(path, s->parent, prefix, steps.list[i]);
        ND_IF_OK(nd_directory_remove(path));
        worked(s, status);
    }
}

void nd_save_rotate(nd_save *s)
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    int64_t latest;
    bool foreign;
    if (s->run->config.logging.checkpoint_keep > 0 &&
        worked(s, nd_checkpoint_latest_read(s->parent, &latest, &foreign)) &&
        worked(s, nd_checkpoint_steps_list(s->parent, "", &steps)))
        remove_old(s, &steps, latest);
    remove_leftovers(s, ND_CHECKPOINT_UNFINISHED);
    remove_leftovers(s, ND_CHECKPOINT_REPLACED);
}
