#include "train/replay.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    unsigned char key[ND_REPLAY_KEY_MAX];
    size_t size; /* 0: free */
    int64_t used;
    nd_recording *recording; /* NULL: seen once */
} entry;

struct nd_replay {
    nd_backend *backend;
    nd_log *log;
    entry entries[ND_REPLAY_KEPT];
    int64_t clock;
    bool given_up;
    nd_replay_counts counts;
};

nd_status nd_replay_create(nd_backend *backend, nd_log *log, nd_replay **replay)
{
    nd_replay *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for the table of recordings");
    made->backend = backend;
    made->log = log;
    *replay = made;
    return ND_OK;
}

static void drop(nd_replay *r, entry *e)
{
    if (e->recording)
        r->backend->ops.release_recording(r->backend, e->recording);
    e->recording = NULL;
}

void nd_replay_destroy(nd_replay *r)
{
    if (!r)
        return;
    for (int i = 0; i < ND_REPLAY_KEPT; i++)
        drop(r, &r->entries[i]);
    free(r);
}

nd_replay_counts nd_replay_counted(const nd_replay *r)
{
    return r->counts;
}

static entry *find(nd_replay *r, const void *key, size_t size)
{
    for (int i = 0; i < ND_REPLAY_KEPT; i++)
        if (r->entries[i].size == size && memcmp(r->entries[i].key, key, size) == 0)
            return &r->entries[i];
    return NULL;
}

/* Replaces the least recently used entry. */
static entry *insert(nd_replay *r, const void *key, size_t size)
{
    entry *e = &r->entries[0];
    for (int i = 1; i < ND_REPLAY_KEPT; i++)
        if (r->entries[i].used < e->used)
            e = &r->entries[i];
    drop(r, e);
    memcpy(e->key, key, size);
    e->size = size;
    return e;
}

static void give_up(nd_replay *r)
{
    nd_log_line(r->log, "warning: CUDA graphs are off from here on, ops run one by one: %s",
                nd_error_get()->message);
    nd_error_clear();
    for (int i = 0; i < ND_REPLAY_KEPT; i++)
        drop(r, &r->entries[i]);
    r->given_up = true;
}

/* e->recording stays NULL if recording is impossible. */
static nd_status record(nd_replay *r, entry *e, nd_replay_work work, void *context)
{
    nd_backend *b = r->backend;
    bool can = false;
    ND_TRY(b->ops.record(b, &can));
    ND_FAIL_IF(!can, ND_EINTERNAL, "the %s backend cannot record ops", b->ops.name);
    const nd_status status = work(context);
    const nd_status ended = b->ops.record_end(b, status == ND_OK ? &e->recording : NULL);
    ND_TRY(status);
    ND_TRY(ended);
    r->counts.recorded++;
    return ND_OK;
}

/* *done: a recording was replayed. */
static nd_status play(nd_replay *r, entry *e, bool *done)
{
    bool stale = false;
    if (!e->recording)
        return ND_OK;
    ND_TRY(r->backend->ops.replay(r->backend, e->recording, &stale));
    if (stale)
        drop(r, e);
    *done = !stale;
    r->counts.replayed += *done;
    return ND_OK;
}

nd_status nd_replay_run(nd_replay *r, const void *key, size_t size, nd_replay_work work,
                        void *context)
{
    bool done = false;
    ND_FAIL_IF(size > ND_REPLAY_KEY_MAX, ND_EINTERNAL, "a key of %zu bytes", size);
    entry *e = r->given_up ? NULL : find(r, key, size);
    if (r->given_up)
        return work(context);
    if (!e) {
        insert(r, key, size)->used = ++r->clock;
        return work(context);
    }
    e->used = ++r->clock;
    ND_TRY(play(r, e, &done));
    if (done)
        return ND_OK;
    if (record(r, e, work, context) == ND_OK)
        return play(r, e, &done);
    give_up(r);
    return work(context);
}
