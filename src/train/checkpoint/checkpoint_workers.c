#include "train/checkpoint/checkpoint_parts.h"

#include <stdlib.h>
#include <string.h>

int64_t nd_checkpoint_workers(const nd_checkpoint *c)
{
    int64_t workers = 0;
    for (int64_t i = 0; i < c->tensor_count; i++) {
        char *end;
        const char *part = c->tensors[i].part;
        const int64_t k = part[0] == 'w' ? strtoll(part + 1, &end, 10) : 0;
        if (part[0] == 'w' && strcmp(end, ".master") == 0 && k >= workers)
            workers = k + 1;
    }
    return workers;
}

static void describe(int64_t workers, char text[64])
{
    if (workers > 1)
        snprintf(text, 64, "%lld workers", (long long)workers);
    else
        snprintf(text, 64, "%s",
                 workers == 1 ? "1 worker with sync_every > 1"
                              : "no workers (workers = 1, sync_every = 1)");
}

nd_status nd_checkpoint_check_workers(const nd_run *run, const nd_checkpoint *c)
{
    const int64_t was = nd_checkpoint_workers(c), is = run->rounds ? run->rounds->workers : 0;
    char theirs[64], ours[64];
    if (was == 0 || was == is)
        return ND_OK;
    describe(was, theirs);
    describe(is, ours);
    return ND_FAIL(
        ND_ECHECKPOINT,
        "%s: is of a run with %s, but this configuration has %s; each worker has masters "
        "and optimizer state of its own: choose [dist] workers = %lld%s, or start from a "
        "checkpoint of a run without workers",
        c->directory, theirs, ours, (long long)was, was == 1 ? " and sync_every > 1" : "");
}
