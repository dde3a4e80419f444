#include "train/checkpoint/checkpoint_names.h"

#include "core/base/directory.h"
#include "core/base/durable_file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void nd_checkpoint_name(char name[ND_CHECKPOINT_NAME_MAX], const char *prefix, int64_t step)
{
    snprintf(name, ND_CHECKPOINT_NAME_MAX, "%sstep_%08lld", prefix, (long long)step);
}

void nd_checkpoint_directory(const nd_config *config, char *path, size_t size)
{
    if (config->logging.checkpoint_dir[0])
        snprintf(path, size, "%s", config->logging.checkpoint_dir);
    else
        snprintf(path, size, "%s/checkpoints", config->logging.run_dir);
}

nd_status nd_checkpoint_join(char path[ND_CHECKPOINT_PATH_MAX], const char *directory,
                             const char *name)
{
    return ND_CHECK((size_t)snprintf(path, ND_CHECKPOINT_PATH_MAX, "%s/%s", directory, name) <
                        ND_CHECKPOINT_PATH_MAX,
                    ND_ECHECKPOINT, "%s/%s: the path is too long", directory, name);
}

nd_status nd_checkpoint_step_path(char path[ND_CHECKPOINT_PATH_MAX], const char *directory,
                                  const char *prefix, int64_t step)
{
    char name[ND_CHECKPOINT_NAME_MAX];
    nd_checkpoint_name(name, prefix, step);
    return nd_checkpoint_join(path, directory, name);
}

bool nd_checkpoint_name_parse(const char *name, const char *prefix, int64_t *step)
{
    char written[ND_CHECKPOINT_NAME_MAX];
    const size_t skip = strlen(prefix) + strlen("step_");
    if (strlen(name) <= skip || name[skip] < '0' || name[skip] > '9')
        return false;
    const int64_t number = strtoll(name + skip, NULL, 10);
    nd_checkpoint_name(written, prefix, number);
    if (strcmp(name, written) != 0)
        return false;
    if (step)
        *step = number;
    return true;
}

bool nd_checkpoint_name_superseded(const char *name)
{
    char stem[ND_CHECKPOINT_NAME_MAX];
    int end = 0;
    const char *number = strrchr(name, '_');
    if (nd_checkpoint_name_parse(name, ND_CHECKPOINT_SUPERSEDED, NULL))
        return true;
    if (!number || sscanf(number, "_%*9[0-9]%n", &end) != 0 || end < 4 || number[end] != '\0')
        return false;
    return (size_t)snprintf(stem, sizeof stem, "%.*s", (int)(number - name), name) < sizeof stem &&
           nd_checkpoint_name_parse(stem, ND_CHECKPOINT_SUPERSEDED, NULL);
}

/* The caller gets file errors as ND_ECHECKPOINT. */
static nd_status as_checkpoint_error(nd_status status)
{
    return status == ND_EIO ? ND_ECHECKPOINT : status;
}

static int compare(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static nd_status collect(const char *directory, const char *prefix, const nd_names *names,
                         nd_checkpoint_steps *steps)
{
    steps->list = calloc((size_t)names->count + 1, sizeof *steps->list);
    ND_FAIL_IF(!steps->list, ND_ENOMEM, "no memory for the checkpoints of %s", directory);
    for (int i = 0; i < names->count; i++) {
        char path[ND_CHECKPOINT_PATH_MAX];
        bool is;
        int64_t step;
        if (!nd_checkpoint_name_parse(names->list[i], prefix, &step))
            continue;
        ND_TRY(nd_checkpoint_join(path, directory, names->list[i]));
        ND_TRY(nd_path_is_directory(path, &is));
        if (is)
            steps->list[steps->count++] = step;
        else if (step > steps->left_out)
            steps->left_out = step;
    }
    qsort(steps->list, (size_t)steps->count, sizeof *steps->list, compare);
    return ND_OK;
}

nd_status nd_checkpoint_steps_list(const char *directory, const char *prefix,
                                   nd_checkpoint_steps *steps)
{
    nd_names names;
    *steps = (nd_checkpoint_steps){.left_out = -1};
    nd_status status = nd_directory_names(directory, &names);
    ND_IF_OK(collect(directory, prefix, &names, steps));
    nd_names_free(&names);
    if (status != ND_OK) {
        free(steps->list);
        *steps = (nd_checkpoint_steps){.left_out = -1};
    }
    return as_checkpoint_error(status);
}

void nd_checkpoint_steps_free(nd_checkpoint_steps *steps)
{
    free(steps->list);
}

nd_status nd_checkpoint_latest_read(const char *directory, int64_t *step, bool *foreign)
{
    char path[PATH_MAX], target[PATH_MAX];
    *step = -1;
    snprintf(path, sizeof path, "%s/latest", directory);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    *foreign = length >= 0 || errno == EINVAL;
    ND_FAIL_IF(length < 0 && errno != EINVAL && errno != ENOENT && errno != ENOTDIR, ND_ECHECKPOINT,
               "cannot stat %s: %s", path, strerror(errno));
    target[length > 0 ? length : 0] = '\0';
    *foreign = *foreign && !nd_checkpoint_name_parse(target, "", step);
    return ND_OK;
}

nd_status nd_checkpoint_latest_write(const char *directory, int64_t step, bool *unsupported)
{
    char name[ND_CHECKPOINT_NAME_MAX], path[PATH_MAX];
    int64_t before;
    bool foreign, without = false;
    ND_TRY(nd_checkpoint_latest_read(directory, &before, &foreign));
    if (unsupported)
        *unsupported = foreign;
    if (foreign || before == step)
        return ND_OK;
    nd_checkpoint_name(name, "", step);
    if (step >= 0)
        ND_TRY(as_checkpoint_error(nd_durable_link(directory, "latest", name, &without)));
    if (unsupported)
        *unsupported = without;
    if (step >= 0)
        return ND_OK;
    snprintf(path, sizeof path, "%s/latest", directory);
    return ND_CHECK(unlink(path) == 0 || errno == ENOENT, ND_ECHECKPOINT, "cannot remove %s: %s",
                    path, strerror(errno));
}
