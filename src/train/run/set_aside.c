#include "train/run/set_aside.h"

#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_names.h"
#include "train/fault_points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH = ND_SET_ASIDE_PATH_MAX };
#define UNFINISHED ".tmp_previous_"
#define FINISHED "previous_"

/* The files of a run, besides its checkpoints. */
static const char *const run_files[] = {"metrics.jsonl", "training.log", "config.ini",
                                        "tensorboard", "snapshot_hosts"};
enum { RUN_FILES = sizeof run_files / sizeof run_files[0] };

static nd_status join(char path[PATH], const char *directory, const char *name)
{
    if (snprintf(path, PATH, "%s/%s", directory, name) >= PATH)
        return ND_FAIL(ND_EIO, "%s/%s: the path is too long", directory, name);
    return ND_OK;
}

static nd_status numbered(char path[PATH], const char *directory, const char *stem, int number)
{
    char name[48];
    snprintf(name, sizeof name, "%s%03d", stem, number);
    return join(path, directory, name);
}

/* Where files and checkpoints are before step 3. */
static nd_status unfinished(const nd_set_aside *p, char files[PATH], char steps[PATH])
{
    ND_TRY(numbered(files, p->run, UNFINISHED, p->number));
    return p->apart ? numbered(steps, p->checkpoints, UNFINISHED, p->number)
                    : join(steps, files, "checkpoints");
}

/* Whether it is a checkpoint, superseded or not. Links and files of such names are the user's. */
static nd_status is_checkpoint(const char *directory, const char *name, bool *is)
{
    char path[PATH];
    *is = nd_checkpoint_name_parse(name, "", NULL) || nd_checkpoint_name_superseded(name);
    if (!*is)
        return ND_OK;
    ND_TRY(join(path, directory, name));
    return nd_path_is_directory(path, is);
}

static nd_status move(const char *from, const char *to, const char *name, bool *apart)
{
    char here[PATH], there[PATH];
    ND_TRY(join(here, from, name));
    ND_TRY(join(there, to, name));
    return nd_rename_new(here, there, apart);
}

static nd_status move_files(const nd_set_aside *p, const char *to)
{
    for (int i = 0; i < RUN_FILES; i++) {
        char path[PATH];
        bool exists;
        ND_TRY(join(path, p->run, run_files[i]));
        ND_TRY(nd_path_exists(path, &exists));
        if (exists)
            ND_TRY(move(p->run, to, run_files[i], NULL));
    }
    return ND_OK;
}

/* `latest` is absent while its target is being moved, so that it never dangles. */
static nd_status move_steps(const nd_set_aside *p, const nd_names *names, const char *to,
                            bool *apart)
{
    char name[ND_CHECKPOINT_NAME_MAX], path[PATH];
    int64_t latest;
    bool foreign, is, moved;
    ND_TRY(nd_checkpoint_latest_read(p->checkpoints, &latest, &foreign));
    ND_TRY(nd_directory_create(to));
    if (latest >= 0)
        ND_TRY(nd_checkpoint_latest_write(p->checkpoints, -1, NULL));
    for (int i = 0; i < names->count; i++) {
        ND_TRY(is_checkpoint(p->checkpoints, names->list[i], &is));
        if (is)
            ND_TRY(move(p->checkpoints, to, names->list[i], apart));
        nd_fault_point_of(0, i, "aside_step");
    }
    if (latest < 0)
        return ND_OK;
    nd_checkpoint_name(name, "", latest);
    ND_TRY(join(path, to, name));
    ND_TRY(nd_path_exists(path, &moved));
    return moved ? nd_checkpoint_latest_write(to, latest, NULL) : ND_OK;
}

/* Finds whether there is anything to move, and names that may be checkpoints. */
static nd_status find_files(const nd_set_aside *p, nd_names *names, bool *found)
{
    int64_t latest;
    bool foreign, is;
    ND_TRY(nd_checkpoint_latest_read(p->checkpoints, &latest, &foreign));
    *found = latest >= 0;
    for (int i = 0; i < RUN_FILES; i++) {
        char path[PATH];
        ND_TRY(join(path, p->run, run_files[i]));
        ND_TRY(nd_path_exists(path, &is));
        *found |= is;
    }
    ND_TRY(nd_directory_names(p->checkpoints, names));
    for (int i = 0; i < names->count; i++) {
        ND_TRY(is_checkpoint(p->checkpoints, names->list[i], &is));
        *found |= is;
    }
    return ND_OK;
}

/* The lowest number unused in both directories. */
static nd_status choose_number(nd_set_aside *p)
{
    const char *const directories[] = {p->run, p->checkpoints};
    const char *const stems[] = {FINISHED, UNFINISHED};
    bool taken = true;
    for (p->number = 0; taken;) {
        p->number++;
        taken = false;
        for (int i = 0; i < 4; i++) {
            char path[PATH];
            bool exists;
            ND_TRY(numbered(path, directories[i / 2], stems[i % 2], p->number));
            ND_TRY(nd_path_exists(path, &exists));
            taken |= exists;
        }
    }
    return ND_OK;
}

/* Moves everything in `from` except `left` back to `to`, then removes `from`. */
static nd_status move_back(const char *from, const char *to, const char *left)
{
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    ND_TRY(nd_directory_names(from, &names));
    for (int i = 0; i < names.count; i++)
        if (strcmp(names.list[i], left) != 0)
            ND_TRY(move(from, to, names.list[i], NULL));
    rmdir(from); /* fails if it is absent or not empty */
    return ND_OK;
}

static nd_status undo(const nd_set_aside *p)
{
    char files[PATH], steps[PATH];
    ND_CLEANUP(nd_checkpoint_steps_free) nd_checkpoint_steps list = {0};
    int64_t latest;
    bool foreign;
    ND_TRY(unfinished(p, files, steps));
    ND_TRY(nd_checkpoint_latest_write(steps, -1, NULL));
    ND_TRY(move_back(steps, p->checkpoints, ""));
    ND_TRY(move_back(files, p->run, "checkpoints"));
    ND_TRY(nd_checkpoint_latest_read(p->checkpoints, &latest, &foreign));
    if (latest >= 0 || foreign)
        return ND_OK;
    ND_TRY(nd_checkpoint_steps_list(p->checkpoints, "", &list));
    latest = list.count > 0 ? list.list[list.count - 1] : -1;
    return nd_checkpoint_latest_write(p->checkpoints, latest, &foreign);
}

static nd_status collect(const nd_set_aside *p, const nd_names *names, bool *apart)
{
    char files[PATH], steps[PATH];
    ND_TRY(unfinished(p, files, steps));
    ND_TRY(nd_directory_create(files));
    nd_fault_point_of(0, 0, "aside_files");
    ND_TRY(move_files(p, files));
    ND_TRY(move_steps(p, names, steps, apart));
    nd_fault_point_of(0, 0, "aside_moved");
    ND_TRY(nd_path_sync(steps));
    return nd_path_sync(files);
}

/* Step 3 in CHECKPOINTS; nothing to do if checkpoints moved with the files. */
static nd_status finish_steps(const nd_set_aside *p)
{
    char from[PATH], to[PATH];
    bool exists;
    ND_TRY(numbered(from, p->checkpoints, UNFINISHED, p->number));
    ND_TRY(numbered(to, p->checkpoints, FINISHED, p->number));
    ND_TRY(nd_path_exists(from, &exists));
    if (exists)
        ND_TRY(nd_rename_new(from, to, NULL));
    return nd_path_sync(p->checkpoints);
}

static nd_status finish(const nd_set_aside *p)
{
    char from[PATH], to[PATH];
    ND_TRY(numbered(from, p->run, UNFINISHED, p->number));
    ND_TRY(numbered(to, p->run, FINISHED, p->number));
    ND_TRY(nd_rename_new(from, to, NULL));
    nd_fault_point_of(0, 0, "aside_finish");
    nd_status status = finish_steps(p);
    ND_IF_OK(nd_path_sync(p->run));
    if (status != ND_OK)
        nd_rename_new(to, from, NULL);
    return status;
}

static nd_status attempt(nd_set_aside *p, const nd_names *names, bool *apart)
{
    ND_TRY(choose_number(p));
    nd_status status = collect(p, names, apart);
    ND_IF_OK(finish(p));
    if (status != ND_OK)
        undo(p);
    return status;
}

nd_status nd_set_aside_run(nd_set_aside *p)
{
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    bool found = false, apart = false;
    p->number = 0;
    nd_status status = find_files(p, &names, &found);
    if (status == ND_OK && found)
        status = attempt(p, &names, &apart);
    if (status != ND_OK && apart && !p->apart) {
        nd_error_clear();
        p->apart = true;
        status = attempt(p, &names, &apart);
    }
    return status;
}

/* The number of an unfinished directory, 0 for other names. */
static int number_of(const char *name)
{
    int number = 0, end = 0;
    if (sscanf(name, UNFINISHED "%9d%n", &number, &end) != 1 || name[end] != '\0')
        return 0;
    return number;
}

/* `directory` is RUN or CHECKPOINTS. */
static nd_status recover_in(nd_set_aside p, const char *directory)
{
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    ND_TRY(nd_directory_names(directory, &names));
    for (int i = 0; i < names.count; i++) {
        char path[PATH];
        bool finished;
        p.number = number_of(names.list[i]);
        if (p.number == 0)
            continue;
        ND_TRY(numbered(path, p.run, FINISHED, p.number));
        ND_TRY(nd_path_exists(path, &finished));
        ND_TRY(finished ? finish_steps(&p) : undo(&p));
    }
    return ND_OK;
}

nd_status nd_set_aside_recover(const nd_set_aside *p)
{
    nd_set_aside places = *p;
    places.apart = true; /* first, for directories in CHECKPOINTS */
    ND_TRY(recover_in(places, p->checkpoints));
    places.apart = false;
    return recover_in(places, p->run);
}
