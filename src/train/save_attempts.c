#include "train/save_attempts.h"

#include "train/checkpoint/checkpoint_save.h"
#include "train/rounds.h"

static void log_failure(nd_run *run, const char *then)
{
    nd_save_count_failure(run);
    nd_log_line(&run->log, "warning: saving a checkpoint failed, %lld in a row: %s; %s",
                (long long)run->saving.failures, nd_error_get()->message, then);
}

static nd_status tolerate(nd_run *run, nd_status status)
{
    if (status != ND_ECHECKPOINT)
        return status;
    if (run->saving.failures + 1 >= run->config.logging.max_failed_saves) {
        log_failure(run, "[logging] max_failed_saves ends the run");
        return status;
    }
    log_failure(run, "training continues, and the next save is due as usual");
    nd_error_clear();
    return ND_OK;
}

nd_status nd_save_attempt_finish(nd_run *run, bool must)
{
    const nd_status status = nd_save_finish(run);
    return must ? status : tolerate(run, status);
}

nd_status nd_save_attempt(nd_run *run, bool background)
{
    ND_TRY(nd_save_attempt_finish(run, false));
    const nd_status status = nd_save_begin(run, background);
    ND_TRY(tolerate(run, status));
    /* After every scheduled save, so that the bits do not depend on its success. */
    return status == ND_OK ? ND_OK : nd_run_reset_error_feedback(run);
}

nd_status nd_save_attempt_advance(nd_run *run)
{
    return tolerate(run, nd_save_advance(run));
}

nd_status nd_save_last(nd_run *run)
{
    const nd_status before = nd_save_finish(run);
    if (before == ND_ECHECKPOINT) {
        log_failure(run, "the present step is saved now");
        nd_error_clear();
    } else {
        ND_TRY(before);
    }
    return run->saving.step == run->position.step ? ND_OK : nd_save_begin(run, false);
}

nd_status nd_save_before_error(nd_run *run, nd_status status)
{
    const nd_error error = *nd_error_get();
    if (run->saving.step != run->position.step) {
        nd_log_line(&run->log, "warning: training cannot continue; saving first: %s",
                    error.message);
        nd_error_clear();
        if (nd_save_last(run) != ND_OK)
            nd_log_line(&run->log, "warning: that failed: %s", nd_error_get()->message);
    }
    nd_error_set(&error);
    return status;
}
