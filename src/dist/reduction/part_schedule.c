#include "dist/reduction/part_schedule.h"

#include "core/base/grow.h"
#include "dist/reduction/gradient_wire.h"

#include <stdlib.h>
#include <string.h>

void nd_part_schedule_destroy(nd_part_schedule *s)
{
    free(s->acts);
    free(s->walked);
    free(s->bytes);
    free(s->merged);
    memset(s, 0, sizeof *s);
}

/* Room for one act more. */
static nd_status grow(nd_part_act **acts, size_t *capacity, int64_t count)
{
    nd_part_act *grown = nd_grown(*acts, capacity, (size_t)count + 1, sizeof *grown);
    ND_FAIL_IF(!grown, ND_ENOMEM, "no memory for %lld messages of a reduction",
               (long long)count + 1);
    *acts = grown;
    return ND_OK;
}

static nd_status take_pieces(nd_part_schedule *s, const nd_comm_piece *pieces, int64_t count)
{
    if (count > s->pieces_capacity) {
        size_t *bytes = realloc(s->bytes, (size_t)count * sizeof *bytes);
        s->bytes = bytes ? bytes : s->bytes;
        int *merged = realloc(s->merged, (size_t)count * sizeof *merged);
        s->merged = merged ? merged : s->merged;
        ND_FAIL_IF(!bytes || !merged, ND_ENOMEM, "no memory for a reduction of %lld pieces",
                   (long long)count);
        s->pieces_capacity = count;
    }
    for (int64_t i = 0; i < count; i++) {
        s->bytes[i] = nd_gradient_wire_bytes(pieces[i].format, pieces[i].count);
        s->merged[i] = pieces[i].merged;
    }
    return ND_OK;
}

/* The part that is walked. */
typedef struct walker {
    nd_part_schedule *schedule;
    nd_part part;
    int64_t number;
    nd_gradient_wire format;
} walker;

static nd_status note(void *context, const nd_tree_act *tree)
{
    const walker *w = context;
    nd_part_schedule *s = w->schedule;
    ND_TRY(grow(&s->walked, &s->capacity, s->count));
    nd_part_act act = {*tree, w->part.piece, w->number, w->part.at, w->part.bytes};
    if (tree->finished) {
        act.at = sizeof(float) * (size_t)nd_gradient_wire_values(w->format, act.at);
        act.bytes = sizeof(float) * (size_t)nd_gradient_wire_values(w->format, act.bytes);
    }
    s->walked[s->count++] = act;
    return ND_OK;
}

static nd_status walk(nd_part_schedule *s, const nd_comm *comm, nd_comm_split split,
                      nd_comm_piece *pieces)
{
    nd_part_order order = s->order;
    walker w = {.schedule = s};
    s->count = 0;
    for (; nd_part_next(&order, &w.part); w.number++) {
        nd_comm_piece *piece = &pieces[w.part.piece];
        const nd_tree tree = nd_tree_of(comm, split, piece, w.part.turn);
        int slot;
        w.format = piece->format;
        ND_TRY(nd_tree_walk(comm->rank, &tree, note, &w, &slot));
        piece->result = slot >= 0 ? piece->slots[slot] : NULL;
    }
    return ND_OK;
}

/* Stable. */
static nd_status sort_by_level(nd_part_schedule *s)
{
    int64_t next[ND_PART_LEVELS];
    ND_TRY(grow(&s->acts, &s->acts_capacity, s->count));
    memset(s->starts, 0, sizeof s->starts);
    for (int64_t i = 0; i < s->count; i++)
        s->starts[s->walked[i].tree.level + 1]++;
    for (int level = 0; level < ND_PART_LEVELS; level++)
        s->starts[level + 1] += s->starts[level];
    memcpy(next, s->starts, sizeof next);
    for (int64_t i = 0; i < s->count; i++)
        s->acts[next[s->walked[i].tree.level]++] = s->walked[i];
    return ND_OK;
}

nd_status nd_part_schedule_make(nd_part_schedule *s, const nd_comm *comm, size_t part_bytes,
                                nd_comm_split split, nd_comm_piece *pieces, int64_t count)
{
    ND_TRY(take_pieces(s, pieces, count));
    s->order = nd_part_order_of(s->bytes, s->merged, count, part_bytes);
    ND_TRY(walk(s, comm, split, pieces));
    return sort_by_level(s);
}
