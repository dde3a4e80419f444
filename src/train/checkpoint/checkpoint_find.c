/* Lists and finds checkpoints. */
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint.h"
#include "train/fault_points.h"
#include "train/run/identity.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

nd_status nd_checkpoint_inspect(const char *directory, int64_t step,
                                nd_checkpoint_inspection *standing)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    *standing = (nd_checkpoint_inspection){.of_step = false};
    ND_TRY(nd_checkpoint_step_path(path, directory, "", step));
    const nd_status opened = nd_checkpoint_open(path, false, &c);
    nd_status status = opened;
    if (opened == ND_ECHECKPOINT) {
        nd_error_clear();
        status = nd_checkpoint_open_manifest(path, &c);
    }
    ND_IF_OK(nd_directory_names(path, &names));
    standing->of_step = standing->own = status == ND_OK && c.step == step;
    for (int i = 0; i < names.count; i++)
        standing->own &=
            nd_checkpoint_lists(&c, names.list[i]) || strcmp(names.list[i], "manifest.json") == 0;
    standing->whole = standing->own && opened == ND_OK;
    if (status == ND_ECHECKPOINT) { /* not the program's, or damaged beyond recognition */
        nd_error_clear();
        return ND_OK;
    }
    return status == ND_EIO ? ND_ECHECKPOINT : status;
}

/* Checks deeply. A copy with another step's name is not a checkpoint of that step. */
static nd_status check_step(const char *path, int64_t step)
{
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    ND_TRY(nd_checkpoint_open(path, true, &c));
    return ND_CHECK(c.step == step, ND_ECHECKPOINT, "%s: its manifest is of step %lld", path,
                    (long long)c.step);
}

/* The newest complete one of the list; *at < 0: none. */
static nd_status newest_of(const nd_checkpoint_steps *steps, const char *directory, nd_log *log,
                           char path[ND_CHECKPOINT_PATH_MAX], int *at)
{
    for (*at = steps->count - 1; *at >= 0; (*at)--) {
        ND_TRY(nd_checkpoint_step_path(path, directory, "", steps->list[*at]));
        const nd_status status = check_step(path, steps->list[*at]);
        if (status == ND_OK)
            return ND_OK;
        if (status == ND_EIO) {
            const nd_error error = *nd_error_get();
            nd_error_clear();
            return ND_FAIL(
                ND_ECHECKPOINT,
                "%.1000s; this checkpoint may be complete, so no earlier one is taken: try "
                "again when it can be read, or name another with --resume",
                error.message);
        }
        if (status != ND_ECHECKPOINT)
            return status;
        nd_log_line(log, "warning: skipping a damaged checkpoint: %s", nd_error_get()->message);
        nd_error_clear();
    }
    path[0] = '\0';
    return ND_OK;
}

nd_status nd_checkpoint_newest(const char *directory, nd_log *log,
                               char path[ND_CHECKPOINT_PATH_MAX])
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    char name[ND_CHECKPOINT_NAME_MAX];
    int at = -1;
    path[0] = '\0';
    ND_TRY(nd_checkpoint_steps_list(directory, "", &steps));
    ND_TRY(newest_of(&steps, directory, log, path, &at));
    if (steps.left_out > (at >= 0 ? steps.list[at] : -1)) {
        nd_checkpoint_name(name, "", steps.left_out);
        nd_log_line(log,
                    "warning: %s/%s is not a directory that this program wrote, and is ignored; "
                    "--resume with its path takes a checkpoint behind a symbolic link",
                    directory, name);
    }
    return ND_CHECK(steps.count == 0 || at >= 0, ND_ECHECKPOINT,
                    "%s: all %d checkpoints are damaged; --resume none starts a new run", directory,
                    steps.count);
}

/* `latest` if the program created it and it leads to a checkpoint; else the newest complete one;
 * else whatever the user called latest. `out` is empty when there is none. */
static nd_status resolve_in(const char *directory, nd_log *log, char out[ND_CHECKPOINT_PATH_MAX])
{
    nd_log silent = {0};
    char latest[ND_CHECKPOINT_PATH_MAX + 8], manifest[ND_CHECKPOINT_PATH_MAX + 32];
    int64_t step;
    bool foreign, whole;
    snprintf(latest, sizeof latest, "%s/latest", directory);
    snprintf(manifest, sizeof manifest, "%s/manifest.json", latest);
    ND_TRY(nd_checkpoint_latest_read(directory, &step, &foreign));
    ND_TRY(nd_path_exists(manifest, &whole));
    out[0] = '\0';
    if (!whole || foreign)
        ND_TRY(nd_checkpoint_newest(directory, log ? log : &silent, out));
    return !out[0] && whole ? nd_checkpoint_join(out, directory, "latest") : ND_OK;
}

/* [logging] checkpoint_dir in a run's config.ini, and the run's id; "" if unknown. */
static nd_status configured_directory(const char *run, nd_config_text directory,
                                      char id[ND_RUN_ID_SIZE])
{
    char path[ND_CHECKPOINT_PATH_MAX + 16];
    bool exists, foreign;
    directory[0] = '\0';
    snprintf(path, sizeof path, "%s/config.ini", run);
    ND_TRY(nd_run_id_read(run, id, &foreign));
    ND_TRY(nd_path_exists(path, &exists));
    if (!exists || foreign)
        return ND_OK;
    nd_config config;
    nd_config_defaults(&config);
    ND_TRY(nd_config_read_file(&config, path));
    strcpy(directory, config.logging.checkpoint_dir);
    return ND_OK;
}

/* A relative checkpoint_dir may lead to another run's when read in another directory. */
static nd_status check_is_of(const char *run, const char *id, const char *found)
{
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    if (!id[0])
        return ND_OK;
    ND_TRY(nd_checkpoint_open_manifest(found, &c));
    return ND_CHECK(!c.identity.run_id[0] || strcmp(c.identity.run_id, id) == 0, ND_ECHECKPOINT,
                    "%s, where the checkpoints of %s are looked for, is of run %s, but "
                    "%s/config.ini is of run %s; name the directory of that run's checkpoints",
                    found, run, c.identity.run_id, run, id);
}

static nd_status search(const char *path, nd_log *log, nd_config_text elsewhere,
                        char out[ND_CHECKPOINT_PATH_MAX])
{
    char manifest[ND_CHECKPOINT_PATH_MAX + 32], inside[ND_CHECKPOINT_PATH_MAX];
    char id[ND_RUN_ID_SIZE];
    bool exists;
    elsewhere[0] = '\0';
    ND_FAIL_IF(strlen(path) + 64 >= sizeof inside, ND_ECHECKPOINT, "%.80s...: the path is too long",
               path);
    snprintf(manifest, sizeof manifest, "%s/manifest.json", path);
    snprintf(inside, sizeof inside, "%s/checkpoints", path);
    snprintf(out, ND_CHECKPOINT_PATH_MAX, "%s", path);
    ND_TRY(nd_path_exists(manifest, &exists));
    if (exists)
        return ND_OK;
    out[0] = '\0';
    snprintf(manifest, sizeof manifest, "%s/rank_0000.h5", path);
    ND_TRY(nd_path_exists(manifest, &exists));
    if (exists) /* an incomplete checkpoint; nothing else can be meant */
        return ND_OK;
    ND_TRY(configured_directory(path, elsewhere, id));
    const char *const places[] = {elsewhere, inside, path};
    for (int i = elsewhere[0] ? 0 : 1; i < 3; i++) {
        ND_TRY(resolve_in(places[i], log, out));
        if (out[0])
            return check_is_of(path, id, out);
    }
    return ND_OK;
}

static nd_status as_checkpoint_error(nd_status status)
{
    return status == ND_EIO || status == ND_ECONFIG ? ND_ECHECKPOINT : status;
}

nd_status nd_checkpoint_search(const char *path, char out[ND_CHECKPOINT_PATH_MAX])
{
    nd_config_text elsewhere;
    return as_checkpoint_error(search(path, NULL, elsewhere, out));
}

/* Replaces a link of the program by the step it leads to: a run that is training moves it on. */
static void follow_link(char path[ND_CHECKPOINT_PATH_MAX])
{
    char target[ND_CHECKPOINT_NAME_MAX];
    int64_t step;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    const ssize_t got = readlink(path, target, sizeof target - 1);
    target[got > 0 ? got : 0] = '\0';
    char *const slash = strrchr(path, '/'), *const name = slash ? slash + 1 : path;
    if (nd_checkpoint_name_parse(target, "", &step))
        snprintf(name, (size_t)(ND_CHECKPOINT_PATH_MAX - (name - path)), "%s", target);
}

nd_status nd_checkpoint_resolve(const char *path, nd_log *log, char out[ND_CHECKPOINT_PATH_MAX])
{
    nd_config_text elsewhere;
    ND_TRY(as_checkpoint_error(search(path, log, elsewhere, out)));
    follow_link(out);
    if (out[0])
        return ND_OK;
    return ND_FAIL(ND_ECHECKPOINT,
                   "%.200s: not a checkpoint: it has no readable manifest.json, and there is no "
                   "complete checkpoint in it or in its checkpoints%s%.200s",
                   path, elsewhere[0] ? " in " : "", elsewhere);
}

nd_status nd_checkpoint_supersede_one(const char *directory, int64_t step,
                                      char name[ND_CHECKPOINT_NAME_MAX])
{
    char from[ND_CHECKPOINT_PATH_MAX], to[ND_CHECKPOINT_PATH_MAX];
    bool taken = true;
    ND_TRY(nd_checkpoint_step_path(from, directory, "", step));
    for (int number = 1; taken; number++) {
        nd_checkpoint_name(name, ND_CHECKPOINT_SUPERSEDED, step);
        if (number > 1)
            snprintf(name + strlen(name), ND_CHECKPOINT_NAME_MAX - strlen(name), "_%03d", number);
        ND_TRY(nd_checkpoint_join(to, directory, name));
        if (nd_path_exists(to, &taken) != ND_OK)
            return ND_ECHECKPOINT;
    }
    return nd_rename_new(from, to, NULL) == ND_OK ? ND_OK : ND_ECHECKPOINT;
}

static void undo_one(const char *directory, int64_t step, const char *name)
{
    char from[ND_CHECKPOINT_PATH_MAX], to[ND_CHECKPOINT_PATH_MAX];
    if (nd_checkpoint_join(from, directory, name) == ND_OK &&
        nd_checkpoint_step_path(to, directory, "", step) == ND_OK)
        nd_rename_new(from, to, NULL);
}

/* Steps of the list from `first` on, which are after `step`. */
static nd_status supersede(const char *directory, const nd_checkpoint_steps *steps, int first,
                           int64_t step, nd_log *log)
{
    ND_AUTOFREE char(*names)[ND_CHECKPOINT_NAME_MAX] =
        calloc((size_t)(steps->count - first), sizeof *names);
    int64_t latest = -1;
    bool foreign;
    int moved = first;
    ND_FAIL_IF(!names, ND_ENOMEM, "no memory for names of checkpoints");
    nd_status status = nd_checkpoint_latest_read(directory, &latest, &foreign);
    if (status == ND_OK && latest >= steps->list[first])
        status =
            nd_checkpoint_latest_write(directory, first > 0 ? steps->list[first - 1] : -1, NULL);
    for (; status == ND_OK && moved < steps->count; moved++) {
        nd_fault_point_of(0, steps->list[moved], "supersede");
        status = nd_checkpoint_supersede_one(directory, steps->list[moved], names[moved - first]);
    }
    if (status == ND_OK) {
        for (int i = first; i < moved; i++)
            nd_log_line(log, "moved   %s/step_%08lld, which is after step %lld, to %s", directory,
                        (long long)steps->list[i], (long long)step, names[i - first]);
    } else {
        for (int i = moved - 2; i >= first; i--) /* the last one failed */
            undo_one(directory, steps->list[i], names[i - first]);
        if (latest >= 0)
            nd_checkpoint_latest_write(directory, latest, NULL);
    }
    return status;
}

/* Removes directories that are not checkpoints from the list, from `first` on. */
static nd_status drop_foreign(const char *directory, nd_checkpoint_steps *steps, int first)
{
    int left = first;
    for (int i = first; i < steps->count; i++) {
        nd_checkpoint_inspection standing;
        ND_TRY(nd_checkpoint_inspect(directory, steps->list[i], &standing));
        if (standing.of_step)
            steps->list[left++] = steps->list[i];
    }
    steps->count = left;
    return ND_OK;
}

/* Without it a run that a crash ended just before this would leave an earlier one's name there, if
 * nothing is left to train. */
static nd_status name_latest(const char *directory, int64_t step)
{
    int64_t latest;
    bool foreign;
    ND_TRY(nd_checkpoint_latest_read(directory, &latest, &foreign));
    return latest == step ? ND_OK : nd_checkpoint_latest_write(directory, step, NULL);
}

nd_status nd_checkpoint_supersede(const char *directory, int64_t step, nd_log *log)
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    int first = 0;
    ND_TRY(nd_checkpoint_steps_list(directory, "", &steps));
    while (first < steps.count && steps.list[first] <= step)
        first++;
    ND_TRY(drop_foreign(directory, &steps, first));
    ND_TRY(first < steps.count ? supersede(directory, &steps, first, step, log) : ND_OK);
    return first > 0 && steps.list[first - 1] == step ? name_latest(directory, step) : ND_OK;
}

/* Whatever stays is removed after the next save, or named then. */
static nd_status remove_unfinished(const char *directory)
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    ND_TRY(nd_checkpoint_steps_list(directory, ND_CHECKPOINT_UNFINISHED, &steps));
    for (int i = 0; i < steps.count; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        nd_status status =
            nd_checkpoint_step_path(path, directory, ND_CHECKPOINT_UNFINISHED, steps.list[i]);
        ND_IF_OK(nd_directory_remove(path));
        if (status != ND_OK)
            nd_error_clear();
    }
    return ND_OK;
}

nd_status nd_checkpoint_recover(const char *directory)
{
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps steps = {0};
    nd_status status = ND_OK;
    ND_TRY(nd_checkpoint_steps_list(directory, ND_CHECKPOINT_REPLACED, &steps));
    for (int i = 0; status == ND_OK && i < steps.count; i++) {
        char from[ND_CHECKPOINT_PATH_MAX], to[ND_CHECKPOINT_PATH_MAX];
        bool taken = true;
        status = nd_checkpoint_step_path(from, directory, ND_CHECKPOINT_REPLACED, steps.list[i]);
        ND_IF_OK(nd_checkpoint_step_path(to, directory, "", steps.list[i]));
        ND_IF_OK(nd_path_exists(to, &taken));
        if (status == ND_OK && !taken)
            status = nd_rename_new(from, to, NULL);
    }
    ND_IF_OK(remove_unfinished(directory));
    return status == ND_EIO ? ND_ECHECKPOINT : status;
}
