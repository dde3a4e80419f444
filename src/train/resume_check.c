#include "train/resume_check.h"

#include "core/base/facts.h"
#include "data/data_identity.h"

#include <stdlib.h>
#include <string.h>

/* The run of a checkpoint, "" if unknown, and whether the directory belongs to another. */
static nd_status find_runs(const nd_config *config, const char *checkpoint,
                           char theirs[ND_RUN_ID_SIZE], char mine[ND_RUN_ID_SIZE], bool *other)
{
    nd_checkpoint c;
    ND_TRY(nd_checkpoint_open(checkpoint, false, &c));
    strcpy(theirs, c.identity.run_id);
    nd_checkpoint_close(&c);
    ND_TRY(nd_run_id_read(config->logging.run_dir, mine, NULL));
    *other = theirs[0] && mine[0] && strcmp(theirs, mine) != 0;
    return ND_OK;
}

static bool lies_in(const char *path, const char *directory)
{
    ND_AUTOFREE char *inner = realpath(path, NULL), *outer = realpath(directory, NULL);
    const size_t length = outer ? strlen(outer) : 0;
    return inner && outer && strncmp(inner, outer, length) == 0 && inner[length] == '/';
}

/* Checks that a checkpoint found in the run's directory of checkpoints belongs to the directory's
 * run. Rank 0. Errors: ND_ECHECKPOINT naming both runs. */
static nd_status check_run(const nd_config *config, const char *checkpoint)
{
    char theirs[ND_RUN_ID_SIZE], mine[ND_RUN_ID_SIZE];
    bool other;
    ND_TRY(find_runs(config, checkpoint, theirs, mine, &other));
    return ND_CHECK(!other, ND_ECHECKPOINT,
                    "%s is of run %s, but %s holds run %s (config.ini there); resume it "
                    "in another directory (--resume %s --run-dir DIR), or move it away",
                    checkpoint, theirs, config->logging.run_dir, mine, checkpoint);
}

/* Of a run that began with a checkpoint of another directory and has none of its own yet. */
static nd_status find_base(const nd_config *config, char path[ND_CHECKPOINT_PATH_MAX])
{
    const char *run_dir = config->logging.run_dir;
    nd_checkpoint c;
    ND_TRY(nd_run_base_read(run_dir, path, ND_CHECKPOINT_PATH_MAX));
    if (!path[0])
        return ND_OK;
    const nd_status status = nd_checkpoint_open(path, true, &c);
    if (status != ND_OK) {
        const nd_error error = *nd_error_get();
        nd_error_clear();
        return ND_FAIL(status,
                       "the run in %s began with %s (config.ini) and has no checkpoint of its own: "
                       "%.1000s%s",
                       run_dir, path, error.message,
                       status == ND_ECHECKPOINT ? "; --resume none starts a new run" : "");
    }
    nd_checkpoint_close(&c);
    return check_run(config, path);
}

bool nd_resume_is_own(const nd_config *config, const char *path)
{
    char checkpoints[ND_CHECKPOINT_PATH_MAX];
    nd_checkpoint_directory(config, checkpoints, sizeof checkpoints);
    ND_AUTOFREE char *inner = realpath(path, NULL), *outer = realpath(checkpoints, NULL);
    if (inner && strrchr(inner, '/'))
        *strrchr(inner, '/') = '\0';
    return inner && outer && strcmp(inner, outer) == 0;
}

nd_status nd_resume_note_base(nd_run *run, const char *path)
{
    free(run->restored.base);
    run->restored.base = NULL;
    if (!path[0] || nd_resume_is_own(&run->config, path))
        return ND_OK;
    run->restored.base = realpath(path, NULL);
    if (!run->restored.base)
        run->restored.base = strdup(path);
    return ND_CHECK(run->restored.base, ND_ENOMEM, "no memory for the path of a checkpoint");
}

nd_status nd_resume_newest(nd_run *run, char path[ND_CHECKPOINT_PATH_MAX])
{
    const nd_config *c = &run->config;
    char directory[ND_CHECKPOINT_PATH_MAX], elsewhere[ND_CHECKPOINT_PATH_MAX] = "";
    nd_checkpoint_directory(c, directory, sizeof directory);
    ND_TRY(nd_checkpoint_newest(directory, &run->log, path));
    if (path[0])
        return check_run(c, path);
    if (!run->start.has_directory)
        ND_TRY(nd_checkpoint_search(c->logging.run_dir, elsewhere));
    if (!elsewhere[0])
        return find_base(c, path);
    return ND_FAIL(ND_ECHECKPOINT,
                   "%s holds no checkpoint, but the run in %s has %s; to resume it "
                   "give its --checkpoint-dir, to start a new run --resume none",
                   directory, c->logging.run_dir, elsewhere);
}

nd_status nd_resume_sets_aside(const nd_config *config, const char *resume, bool *aside)
{
    char path[ND_CHECKPOINT_PATH_MAX], checkpoints[ND_CHECKPOINT_PATH_MAX];
    char theirs[ND_RUN_ID_SIZE], mine[ND_RUN_ID_SIZE];
    *aside = strcmp(resume, "none") == 0;
    if (*aside || strcmp(resume, "auto") == 0)
        return ND_OK;
    ND_TRY(nd_checkpoint_resolve(resume, NULL, path));
    nd_checkpoint_directory(config, checkpoints, sizeof checkpoints);
    if (lies_in(path, checkpoints))
        return check_run(config, path);
    bool other;
    ND_TRY(find_runs(config, path, theirs, mine, &other));
    *aside = other || !theirs[0] || !mine[0];
    return ND_OK;
}

nd_status nd_resume_check_directory(const nd_run *run)
{
    char directory[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    nd_checkpoint_directory(&run->config, directory, sizeof directory);
    ND_TRY(nd_checkpoint_steps_list(directory, "", &steps));
    for (int i = 0; i < steps.count; i++) {
        ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
        ND_TRY(nd_checkpoint_step_path(path, directory, "", steps.list[i]));
        const nd_status opened = nd_checkpoint_open_manifest(path, &c);
        if (opened != ND_OK) /* damaged, or of somebody else */
            ND_TRY(nd_error_tolerate(opened));
        else
            ND_FAIL_IF(c.identity.run_id[0] && strcmp(c.identity.run_id, run->identity.run_id) != 0,
                       ND_ECHECKPOINT,
                       "%s is of run %s, and run %s, which is resumed, would save its "
                       "checkpoints beside it and remove older ones; give another "
                       "--checkpoint-dir, or move it away",
                       path, c.identity.run_id, run->identity.run_id);
    }
    return ND_OK;
}

/* Sample numbers continue: the new data begins at its first epoch without used samples. */
static void begin_new_data(nd_run *run, const nd_fact_difference *d)
{
    const int64_t windows = nd_dataset_window_count(run->data.train);
    nd_position_begin_data(&run->position, windows);
    nd_log_line(&run->log,
                "data    new ('%s' was %s, is %s): starts at epoch %lld, sample %lld; epochs are "
                "counted from here",
                d->key, d->first, d->second, (long long)(run->position.next_sample / windows),
                (long long)run->position.next_sample);
}

/* The lines before those of held-out data; the caller frees them. */
static char *training_facts(const char *facts)
{
    const char *end = facts;
    while (*end && strncmp(end, ND_DATA_HELD_OUT, strlen(ND_DATA_HELD_OUT)) != 0) {
        end += strcspn(end, "\n");
        end += *end == '\n';
    }
    return strndup(facts, (size_t)(end - facts));
}

static nd_status training_data_differ(const char *before, const char *now, bool *differ,
                                      nd_fact_difference *d)
{
    ND_AUTOFREE char *first = training_facts(before), *second = training_facts(now);
    *differ = first && second && nd_facts_differ(first, second, d);
    return ND_CHECK(first && second, ND_ENOMEM, "no memory to compare data");
}

nd_status nd_resume_check(nd_run *run, const nd_checkpoint *c)
{
    nd_fact_difference d;
    if (c->identity.run_id[0])
        strcpy(run->identity.run_id, c->identity.run_id);
    if (!c->identity.data && c->step > 0)
        nd_log_line(&run->log,
                    "warning: %s does not say what data it was trained on (an older version wrote "
                    "it); the data is taken to be the same",
                    c->directory);
    if (!c->identity.data || !run->identity.data)
        return ND_OK;
    bool differ;
    ND_TRY(training_data_differ(c->identity.data, run->identity.data, &differ, &d));
    if (!differ) {
        if (nd_facts_differ(c->identity.data, run->identity.data, &d))
            nd_log_line(&run->log, "changed %s was %s, is %s", d.key, d.first, d.second);
        return ND_OK;
    }
    ND_FAIL_IF(!run->start.new_data, ND_EDATA,
               "the data is not what %s was trained on: '%s' was %s, is %s, so that its next "
               "sample, %lld, would be another text; bring back the data, or continue with the new "
               "data from the start of an epoch by --new-data",
               c->directory, d.key, d.first, d.second, (long long)c->next_sample);
    begin_new_data(run, &d);
    return ND_OK;
}

void nd_resume_describe_lengths(nd_run *run, const nd_config *before)
{
    const nd_config *c = &run->config;
    const int64_t was = before->training.batch_size * before->training.seq_length;
    const int64_t is = c->training.batch_size * c->training.seq_length;
    const int64_t left = c->training.total_steps - run->position.step;
    if (was == is || left <= 0)
        return;
    nd_log_line(
        &run->log,
        "warning: a step has %lld tokens now, %lld before; total_steps = %lld, warmup_steps "
        "and the learning-rate schedule count steps: the %lld steps left are %.2fM tokens "
        "instead of %.2fM",
        (long long)is, (long long)was, (long long)c->training.total_steps, (long long)left,
        (double)left * (double)is * 1e-6, (double)left * (double)was * 1e-6);
}
