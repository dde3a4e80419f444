#include "train/checkpoint/checkpoint_parts.h"

#include <stdlib.h>
#include <string.h>

static const size_t row_bytes = ND_CHECKPOINT_PARTS_MAX * sizeof(nd_written_tensor);

static nd_written_tensor *row_of(const nd_save *s, int64_t param)
{
    return s->tensors + param * ND_CHECKPOINT_PARTS_MAX;
}

/* Copies the rows of what `rank` owns to `packed`, or back from there; returns their bytes. */
static size_t move_rows(const nd_save *s, int rank, char *packed, bool back)
{
    const nd_ownership *own = &s->run->own;
    size_t used = 0;
    for (int64_t i = 0; i < own->count; i++) {
        if (nd_ownership_saver(own, i) != rank)
            continue;
        if (packed && back)
            memcpy(row_of(s, i), packed + used, row_bytes);
        else if (packed)
            memcpy(packed + used, row_of(s, i), row_bytes);
        used += row_bytes;
    }
    return used;
}

static nd_status gather_rows(nd_save *s, size_t *bytes, char *mine, char *all)
{
    nd_comm *comm = s->run->comm;
    for (int r = 0; r < comm->size; r++)
        bytes[r] = move_rows(s, r, NULL, false);
    move_rows(s, comm->rank, mine, false);
    ND_TRY(comm->ops.gather(comm, all, mine, bytes, 0));
    for (int r = 0; comm->rank == 0 && r < comm->size; all += bytes[r++])
        move_rows(s, r, all, true);
    for (int r = 0; r < comm->size; r++)
        bytes[r] = sizeof s->summary;
    return comm->ops.gather(comm, s->summaries, &s->summary, bytes, 0);
}

nd_status nd_save_gather(nd_save *s)
{
    const nd_comm *comm = s->run->comm;
    size_t *bytes = calloc((size_t)comm->size, sizeof *bytes);
    char *mine = malloc(move_rows(s, comm->rank, NULL, false) + 1);
    char *all = malloc(comm->rank == 0 ? (size_t)s->run->own.count * row_bytes + 1 : 1);
    const nd_status status = bytes && mine && all
                                 ? gather_rows(s, bytes, mine, all)
                                 : ND_FAIL(ND_ENOMEM, "no memory for the checkpoint's tables");
    free(bytes);
    free(mine);
    free(all);
    return status;
}
