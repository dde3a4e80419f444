/* Parameters owned by rows, in snapshots: every rank's rows stay in its own file as slices, because
 * rank 0 cannot read other hosts' memory. On disk tensors are whole (checkpoint_rows.c). */
#include "train/checkpoint/checkpoint_parts.h"

#include <stdlib.h>
#include <string.h>

static int64_t shared_params(const nd_save *s)
{
    int64_t count = 0;
    for (int64_t i = 0; i < s->run->own.count; i++)
        count += s->run->own.rows[i] != NULL;
    return count;
}

int64_t nd_save_slices_max(const nd_save *s)
{
    return s->durable ? 0 : shared_params(s) * ND_CHECKPOINT_PARTS_MAX * s->run->comm->size;
}

static void pack(const nd_save *s, nd_written_tensor *mine)
{
    for (int64_t i = 0; i < s->run->own.count; i++) {
        if (!s->run->own.rows[i])
            continue;
        memcpy(mine, nd_save_row(s, 0, i), ND_CHECKPOINT_PARTS_MAX * sizeof *mine);
        mine += ND_CHECKPOINT_PARTS_MAX;
    }
}

nd_status nd_save_gather_slices(nd_save *s)
{
    nd_comm *comm = s->run->comm;
    const size_t count = (size_t)shared_params(s) * ND_CHECKPOINT_PARTS_MAX;
    ND_AUTOFREE nd_written_tensor *mine = calloc(count + 1, sizeof *mine);
    ND_AUTOFREE size_t *bytes = calloc((size_t)comm->size, sizeof *bytes);
    if (comm->rank == 0)
        s->slices = calloc(count * (size_t)comm->size + 1, sizeof *s->slices);
    ND_TRY(nd_comm_agree(comm, ND_CHECK(mine && bytes && (comm->rank > 0 || s->slices), ND_ENOMEM,
                                        "no memory for tables of slices")));
    if (count == 0)
        return ND_OK;
    pack(s, mine);
    for (int r = 0; r < comm->size; r++)
        bytes[r] = count * sizeof *mine;
    return comm->ops.gather(comm, s->slices, mine, bytes, 0);
}

/* The slices of parameter `index`, which is the `turn`th owned by rows. */
static nd_status collect_param(nd_save *s, int64_t index, int64_t turn)
{
    const nd_run *run = s->run;
    const nd_param *param = &run->model->params.list[index];
    const int64_t row = shared_params(s) * ND_CHECKPOINT_PARTS_MAX;
    nd_optimizer_state whole[ND_CHECKPOINT_PARTS_MAX];
    int parts;
    ND_TRY(nd_checkpoint_whole_parts(run, index, whole, &parts));
    for (int r = 0; r < run->own.ranks; r++) {
        const nd_row_span span = nd_ownership_span(&run->own, index, r, param->rows);
        for (int p = 0; p < parts; p++) {
            const nd_written_tensor *w = &s->slices[r * row + turn * ND_CHECKPOINT_PARTS_MAX + p];
            if (span.count == 0 || !w->part[0])
                continue;
            nd_checkpoint_tensor *t = nd_save_list_tensor(s, index, w, r);
            t->whole_rows = whole[p].view.rows;
            t->whole_cols = whole[p].view.cols;
            t->from = (int64_t)nd_checkpoint_row_at(param, whole[p].view, span.first);
        }
    }
    return ND_OK;
}

nd_status nd_save_collect_slices(nd_save *s)
{
    int64_t turn = 0;
    if (s->durable)
        return ND_OK;
    for (int64_t i = 0; i < s->run->own.count; i++)
        if (s->run->own.rows[i])
            ND_TRY(collect_param(s, i, turn++));
    return ND_OK;
}

static size_t bytes_of(const nd_checkpoint_tensor *t)
{
    return (size_t)(t->rows * t->cols) * nd_dtype_size(t->dtype);
}

bool nd_checkpoint_slice_touches(const nd_checkpoint_tensor *t, size_t from, size_t bytes)
{
    const size_t first = (size_t)t->from, end = first + bytes_of(t);
    return bytes > 0 && first < from + bytes && from < end;
}

/* Copies the bytes of the range that slice `index` holds. */
static nd_status read_slice(const nd_checkpoint *c, int64_t index, size_t from, size_t bytes,
                            char *out, size_t *found)
{
    const nd_checkpoint_tensor *t = &c->tensors[index];
    const size_t first = (size_t)t->from, end = first + bytes_of(t);
    ND_AUTOFREE char *values = malloc(bytes_of(t));
    ND_FAIL_IF(!values, ND_ENOMEM, "no memory to read %s (%zu bytes)", t->param, bytes_of(t));
    ND_TRY(nd_checkpoint_read(c, index, values));
    const size_t start = first > from ? first : from;
    const size_t stop = end < from + bytes ? end : from + bytes;
    memcpy(out + (start - from), values + (start - first), stop - start);
    *found += stop - start;
    return ND_OK;
}

nd_status nd_checkpoint_read_range(const nd_checkpoint *c, int64_t index, size_t from, size_t bytes,
                                   void *out)
{
    const nd_checkpoint_tensor *first = &c->tensors[index];
    size_t found = 0;
    for (int64_t i = 0; i < c->tensor_count; i++) {
        const nd_checkpoint_tensor *t = &c->tensors[i];
        if (strcmp(t->param, first->param) == 0 && strcmp(t->part, first->part) == 0 &&
            nd_checkpoint_slice_touches(t, from, bytes))
            ND_TRY(read_slice(c, i, from, bytes, out, &found));
    }
    return ND_CHECK(found == bytes, ND_ECHECKPOINT, "%s: %s of %s: %zu of %zu bytes are there",
                    c->directory, first->part, first->param, found, bytes);
}
