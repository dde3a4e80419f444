#include "train/checkpoint/checkpoint_parts.h"

#include <stdlib.h>
#include <string.h>

static const size_t row_bytes = ND_CHECKPOINT_PARTS_MAX * sizeof(nd_written_tensor);

/* Copies the table rows of what `rank` writes to `packed`, or back; returns their bytes. */
static size_t move_rows(const nd_save *s, int rank, char *packed, bool back)
{
    const int64_t units = nd_checkpoint_units(s->run);
    size_t used = 0;
    for (int64_t at = 0; at < s->run->own.count * units; at++) {
        if (nd_checkpoint_writer(s->run, at % units, at / units) != rank)
            continue;
        nd_written_tensor *row = nd_save_row(s, at % units, at / units);
        if (packed && back)
            memcpy(row, packed + used, row_bytes);
        else if (packed)
            memcpy(packed + used, row, row_bytes);
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
    ND_AUTOFREE size_t *bytes = calloc((size_t)comm->size, sizeof *bytes);
    ND_AUTOFREE char *mine = malloc(move_rows(s, comm->rank, NULL, false) + 1);
    ND_AUTOFREE char *all = malloc(
        comm->rank == 0 ? (size_t)(s->run->own.count * nd_checkpoint_units(s->run)) * row_bytes + 1
                        : 1);
    ND_FAIL_IF(!bytes || !mine || !all, ND_ENOMEM, "no memory for the checkpoint's tables");
    return gather_rows(s, bytes, mine, all);
}
