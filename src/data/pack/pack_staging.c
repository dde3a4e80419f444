#include "data/pack/pack_staging.h"

#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "data/data_directory.h"
#include "data/pack/pack_present.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_TRIES = 100 };

static const char lock_name[] = "lock";

bool nd_pack_staging_owns(const char *name)
{
    const char *digits = strncmp(name, "train_", 6) == 0 ? name + 6
                         : strncmp(name, "val_", 4) == 0 ? name + 4
                                                         : "";
    const size_t count = strspn(digits, "0123456789");
    const char *rest = digits + count;
    return count >= 5 && (strcmp(rest, ".h5") == 0 || strcmp(rest, ".h5" ND_TEMPORARY_SUFFIX) == 0);
}

static nd_status remove_file(const char *directory, const char *name)
{
    char path[PATH_MAX];
    ND_TRY(nd_data_path(directory, "", name, path));
    ND_FAIL_IF(unlink(path) != 0 && errno != ENOENT, ND_EIO, "%s: cannot remove this file: %s",
               path, strerror(errno));
    return ND_OK;
}

/* Removes a file of the staging directory unless it is the lock. */
static nd_status remove_unfinished(void *context, const char *name)
{
    const nd_pack_staging *s = context;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, lock_name) == 0)
        return ND_OK;
    return remove_file(s->path, name);
}

/* Tries again when the pack that held the lock removes the file, whose lock then means nothing. */
static nd_status take_lock(nd_pack_staging *s)
{
    char path[PATH_MAX];
    ND_TRY(nd_data_path(s->path, "", lock_name, path));
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct stat info;
        ND_FAIL_IF(mkdir(s->path, 0777) != 0 && errno != EEXIST, ND_EIO,
                   "%s: cannot make this directory: %s", s->path, strerror(errno));
        s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (s->lock < 0 && errno == ENOENT)
            continue;
        ND_FAIL_IF(s->lock < 0, ND_EIO, "%s: cannot make this file: %s", path, strerror(errno));
        ND_FAIL_IF(
            flock(s->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK, ND_EDATA,
            "%s: another pack is writing here; wait until it has ended, or give another directory",
            s->out);
        if (fstat(s->lock, &info) == 0 && info.st_nlink > 0)
            return ND_OK;
        close(s->lock);
        s->lock = -1;
    }
    return ND_FAIL(ND_EIO, "%s: this file disappears each time it is created", path);
}

nd_status nd_pack_staging_confirm(const nd_pack_staging *s)
{
    char path[PATH_MAX];
    ND_TRY(nd_data_path(s->path, "", lock_name, path));
    return ND_CHECK(nd_path_is_open_file(path, s->lock), ND_EDATA,
                    "%s was renamed or removed while this pack wrote there; nothing was published: "
                    "pack again",
                    s->out);
}

nd_status nd_pack_staging_open(const char *out, nd_pack_staging *staging)
{
    char index[PATH_MAX];
    bool complete;
    *staging = (nd_pack_staging){.out = out, .lock = -1};
    ND_TRY(nd_data_path(out, "", ND_PACK_STAGING, staging->path));
    ND_TRY(nd_data_path(staging->path, "", ND_SHARD_INDEX_NAME, index));
    ND_TRY(nd_directory_create(out));
    nd_status status = take_lock(staging);
    ND_IF_OK(nd_data_exists(index, &complete));
    ND_IF_OK(complete ? nd_pack_staging_publish(staging) : ND_OK);
    ND_IF_OK(nd_data_directory_list(staging->path, remove_unfinished, staging));
    if (status != ND_OK && staging->lock >= 0) {
        close(staging->lock);
        staging->lock = -1;
    }
    return status;
}

static nd_status move_to_output(const nd_pack_staging *s, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    ND_TRY(nd_data_path(s->path, "", name, from));
    ND_TRY(nd_data_path(s->out, "", name, to));
    if (rename(from, to) != 0 && errno != ENOENT) /* ENOENT: moved before an interruption */
        return ND_FAIL(ND_EIO, "%s: cannot rename %s to this: %s", to, from, strerror(errno));
    return ND_OK;
}

typedef struct replacing {
    const nd_pack_staging *staging;
    const nd_shard_index *index;
    const nd_pack_present *present; /* in OUT */
} replacing;

static nd_status remove_replaced(void *context, const char *name)
{
    const replacing *r = context;
    if (!nd_pack_staging_owns(name))
        return ND_OK;
    for (size_t i = 0; i < r->index->count; i++)
        if (strcmp(r->index->shards[i].name, name) == 0)
            return ND_OK;
    if (nd_shard_name_matches(name, ""))
        ND_TRY(nd_pack_present_may_go(r->present, name));
    return remove_file(r->staging->out, name);
}

static nd_status publish(nd_pack_staging *s, const nd_shard_index *index, const replacing *r)
{
    for (size_t i = 0; i < index->count; i++)
        ND_TRY(nd_pack_present_may_go(r->present, index->shards[i].name));
    for (size_t i = 0; i < index->count; i++)
        ND_TRY(move_to_output(s, index->shards[i].name));
    ND_TRY(move_to_output(s, "tokenizer.model"));
    ND_TRY(nd_path_sync(s->out));
    ND_TRY(nd_data_directory_list(s->out, remove_replaced, (void *)r));
    ND_TRY(move_to_output(s, ND_SHARD_INDEX_NAME));
    return nd_path_sync(s->out);
}

nd_status nd_pack_staging_publish(nd_pack_staging *staging)
{
    char path[PATH_MAX];
    ND_AUTOFREE void *text = NULL;
    size_t size;
    ND_CLEANUP(nd_shard_index_free) nd_shard_index index = {0};
    ND_CLEANUP(nd_pack_present_close) nd_pack_present present = {0};
    const replacing r = {staging, &index, &present};
    ND_TRY(nd_pack_staging_confirm(staging));
    ND_TRY(nd_data_path(staging->path, "", ND_SHARD_INDEX_NAME, path));
    ND_TRY(nd_read_whole_file(path, ND_EIO, &text, &size));
    ND_TRY(nd_shard_index_parse(text, size, path, &index));
    ND_TRY(nd_pack_present_open(staging->out, &present));
    return publish(staging, &index, &r);
}

void nd_pack_staging_close(nd_pack_staging *staging)
{
    char index[PATH_MAX];
    bool complete = true;
    if (staging->lock < 0)
        return;
    const nd_error before = *nd_error_get(); /* kept: errors below do not count */
    if (nd_pack_staging_confirm(staging) == ND_OK &&
        nd_data_path(staging->path, "", ND_SHARD_INDEX_NAME, index) == ND_OK &&
        nd_data_exists(index, &complete) == ND_OK && !complete)
        nd_directory_remove(staging->path);
    nd_error_set(&before);
    close(staging->lock);
    staging->lock = -1;
}
