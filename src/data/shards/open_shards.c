#include "data/shards/open_shards.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { OPEN_MIN = 4, OPEN_MAX = 4096, OPEN_SHARE = 4 /* of the files that the process may open */ };

typedef struct entry {
    int fd;    /* -1: closed */
    int users; /* reading from it now */
    uint64_t used;
} entry;

struct nd_open_shards {
    const nd_shard *shards;
    pthread_mutex_t mutex; /* guards what follows */
    int count, open, limit;
    uint64_t clock;
    entry entries[]; /* [count] */
};

nd_status nd_open_shards_create(const nd_shard *shards, int count, nd_open_shards **open)
{
    struct rlimit files;
    *open = NULL;
    nd_open_shards *o = calloc(1, sizeof *o + (size_t)count * sizeof *o->entries);
    ND_FAIL_IF(!o, ND_ENOMEM, "no memory for a table of %d shards", count);
    const rlim_t share =
        getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur / OPEN_SHARE : OPEN_MIN;
    o->limit = share < OPEN_MIN ? OPEN_MIN : share > OPEN_MAX ? OPEN_MAX : (int)share;
    o->shards = shards;
    o->count = count;
    for (int i = 0; i < count; i++)
        o->entries[i].fd = -1;
    pthread_mutex_init(&o->mutex, NULL);
    *open = o;
    return ND_OK;
}

void nd_open_shards_close(nd_open_shards *open)
{
    if (!open)
        return;
    for (int i = 0; i < open->count; i++)
        if (open->entries[i].fd >= 0)
            close(open->entries[i].fd);
    pthread_mutex_destroy(&open->mutex);
    free(open);
}

/* Closes the least recently used file. False when every open file is being read. */
static bool close_oldest(nd_open_shards *o)
{
    entry *oldest = NULL;
    for (int i = 0; i < o->count; i++) {
        entry *e = &o->entries[i];
        if (e->fd >= 0 && e->users == 0 && (!oldest || e->used < oldest->used))
            oldest = e;
    }
    if (!oldest)
        return false;
    close(oldest->fd);
    oldest->fd = -1;
    o->open--;
    return true;
}

/* The caller holds the mutex. */
static nd_status open_entry(nd_open_shards *o, int number)
{
    entry *e = &o->entries[number];
    if (o->open >= o->limit)
        close_oldest(o);
    while (e->fd < 0) {
        ND_TRY(nd_shard_reopen_file(&o->shards[number], &e->fd));
        ND_FAIL_IF(e->fd < 0 && !close_oldest(o), ND_EDATA,
                   "%s: cannot open this file: the process or the machine has too many open; raise "
                   "`ulimit -n`",
                   o->shards[number].path);
    }
    o->open++;
    return ND_OK;
}

nd_status nd_open_shards_read(nd_open_shards *open, int number, int64_t first, int64_t count,
                              int32_t *tokens)
{
    entry *e = &open->entries[number];
    pthread_mutex_lock(&open->mutex);
    nd_status status = e->fd >= 0 ? ND_OK : open_entry(open, number);
    const int fd = e->fd;
    e->users += status == ND_OK;
    e->used = ++open->clock;
    pthread_mutex_unlock(&open->mutex);
    ND_TRY(status);
    status = nd_shard_read_from(&open->shards[number], fd, first, count, tokens);
    pthread_mutex_lock(&open->mutex);
    e->users--;
    pthread_mutex_unlock(&open->mutex);
    return status;
}
