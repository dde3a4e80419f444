/* Where a run's checkpoints are: one answer for every command. */
#include "core/base/log.h"
#include "train/checkpoint/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool join(char path[ND_CHECKPOINT_PATH_MAX], const char *directory, const char *name)
{
    return snprintf(path, ND_CHECKPOINT_PATH_MAX, "%s%s", directory, name) < ND_CHECKPOINT_PATH_MAX;
}

static bool is_checkpoint(const char *path)
{
    char manifest[ND_CHECKPOINT_PATH_MAX];
    return join(manifest, path, "/manifest.json") && access(manifest, F_OK) == 0;
}

/* What `latest` names, or without a usable one the newest whole checkpoint; false when there is none. */
static bool newest_in(const char *directory, char out[ND_CHECKPOINT_PATH_MAX])
{
    nd_log log = {.terminal = stderr};
    if (join(out, directory, "/latest") && is_checkpoint(out))
        return true;
    if (nd_checkpoint_newest(directory, &log, out) != ND_OK)
        nd_error_clear(); /* it names the damaged ones in the log */
    return out[0] != '\0';
}

/* [logging] checkpoint_dir of a run's config.ini; "" when there is none. */
static void configured_directory(const char *run, nd_config_text directory)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    nd_config *config = malloc(sizeof *config);
    directory[0] = '\0';
    if (config && join(path, run, "/config.ini") && access(path, F_OK) == 0) {
        nd_config_defaults(config);
        if (nd_config_read_file(config, path) == ND_OK)
            strcpy(directory, config->logging.checkpoint_dir);
        else
            nd_error_clear();
    }
    free(config);
}

nd_status nd_checkpoint_resolve(const char *path, char out[ND_CHECKPOINT_PATH_MAX])
{
    nd_config_text elsewhere;
    char inside[ND_CHECKPOINT_PATH_MAX];
    if (is_checkpoint(path) && join(out, path, ""))
        return ND_OK;
    configured_directory(path, elsewhere);
    if ((elsewhere[0] && newest_in(elsewhere, out)) ||
        (join(inside, path, "/checkpoints") && newest_in(inside, out)) || newest_in(path, out))
        return ND_OK;
    return ND_FAIL(ND_ECHECKPOINT,
                   "%.200s: no checkpoint: it has no readable manifest.json, and there is no whole "
                   "checkpoint in it, in its checkpoints%s%.200s",
                   path, elsewhere[0] ? " or in its checkpoint_dir " : "", elsewhere);
}
