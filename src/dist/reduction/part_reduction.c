#include "dist/reduction/part_reduction.h"

#include "dist/reduction/grad_compression.h"
#include "dist/reduction/gradient_wire.h"
#include "dist/reduction/part_schedule.h"

#include <stdlib.h>

struct nd_part_reduction {
    nd_comm *comm;
    nd_wire *wire;
    nd_gradient_transfer transfer;
    nd_part_schedule schedule;
    const nd_comm_piece *pieces; /* of the reduction at hand, as `queue` */
    nd_comm_queue *queue;
    nd_grad_compressor compressor;
    const char *subject; /* last told */
};

nd_status nd_part_reduction_create(nd_comm *comm, nd_wire *wire, nd_part_reduction **reduction)
{
    nd_part_reduction *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for reductions");
    made->comm = comm;
    made->wire = wire;
    ND_RETURN_MADE(nd_gradient_transfer_create(comm, &made->transfer), made,
                   nd_part_reduction_destroy, reduction);
}

void nd_part_reduction_destroy(nd_part_reduction *r)
{
    if (!r)
        return;
    nd_gradient_transfer_destroy(&r->transfer);
    nd_part_schedule_destroy(&r->schedule);
    free(r);
}

static void tell_subject(nd_part_reduction *r, const nd_comm_piece *piece)
{
    if (r->subject != piece->name)
        nd_wire_subject(r->wire, piece->name);
    r->subject = piece->name;
}

/* Sends that were started, that are at acts behind this rank, and that have left; receives that
 * were started, and taken; where the next of both is among the acts. */
typedef struct progress {
    int64_t sends, passed, left, next_send;
    int64_t receives, taken, next_receive;
} progress;

static nd_status open_receives(nd_part_reduction *r, progress *p)
{
    for (; p->next_receive < r->schedule.count && p->receives < p->taken + ND_WIRE_DEPTH;
         p->next_receive++) {
        const nd_part_act *a = &r->schedule.acts[p->next_receive];
        if (a->tree.kind == ND_TREE_RECEIVE || a->tree.kind == ND_TREE_TAKE)
            ND_TRY(
                nd_wire_start_receive(r->wire, p->receives++, NULL, (int)a->bytes, a->tree.peer));
    }
    return ND_OK;
}

static nd_status finish_sends(nd_part_reduction *r, progress *p)
{
    for (; p->left < p->sends; p->left++)
        ND_TRY(nd_wire_finish_send(r->wire, p->left));
    return ND_OK;
}

/* The piece of an act as it is sent: finished sums are not rounded. */
static nd_comm_piece piece_of(const nd_part_reduction *r, const nd_part_act *a)
{
    nd_comm_piece piece = r->pieces[a->piece];
    if (a->tree.finished) {
        piece.format = ND_GRADIENT_WIRE_FP32;
        piece.residual = NULL;
    }
    return piece;
}

static nd_status receive(nd_part_reduction *r, const nd_part_act *a, progress *p)
{
    const nd_comm_piece piece = piece_of(r, a);
    ND_TRY(nd_wire_finish_receive(r->wire, p->taken));
    const size_t came = (size_t)nd_wire_received_bytes(r->wire);
    const void *part = nd_wire_received(r->wire, p->taken++);
    if (came < a->bytes)
        return nd_grad_decompress(&piece, a->tree.slot, part, came, a->at, a->bytes,
                                  a->tree.kind == ND_TREE_RECEIVE);
    return a->tree.kind == ND_TREE_TAKE
               ? nd_gradient_part_take(&r->transfer, &piece, a->tree.slot, part, a->at, a->bytes)
               : nd_gradient_part_add(&r->transfer, &piece, a->tree.slot, part, a->at, a->bytes);
}

static nd_status send(nd_part_reduction *r, const nd_part_act *a, progress *p)
{
    const nd_comm_piece piece = piece_of(r, a);
    const void *data = NULL;
    size_t bytes = a->bytes;
    for (; p->left + ND_WIRE_DEPTH <= p->sends; p->left++)
        ND_TRY(nd_wire_finish_send(r->wire, p->left));
    if (piece.format == ND_GRADIENT_WIRE_FP32 && !r->comm->device)
        data = nd_grad_compressor_encode(&r->compressor, r->comm, a->tree.peer,
                                         (const char *)piece.slots[a->tree.slot] + a->at,
                                         r->queue && nd_comm_queue_keeps_up(r->queue),
                                         nd_wire_send_buffer(r->wire, p->sends), &bytes);
    else
        ND_TRY(nd_gradient_part_make(&r->transfer, &piece, a->tree.slot,
                                     nd_wire_send_buffer(r->wire, p->sends), a->at, a->bytes));
    return nd_wire_start_send(r->wire, p->sends++, data, (int)bytes, a->tree.peer);
}

static nd_status add(nd_part_reduction *r, const nd_part_act *a)
{
    const nd_comm_piece *piece = &r->pieces[a->piece];
    const int64_t first = nd_gradient_wire_values(piece->format, a->at);
    return nd_tree_add(r->comm, piece->slots[a->tree.slot] + first,
                       piece->slots[a->tree.other] + first,
                       nd_gradient_wire_values(piece->format, a->bytes));
}

/* Sends of a level need nothing that is received in it. So they do not wait for receives before
 * them, whose senders would wait for these in turn, one message at a time. */
static nd_status send_ahead(nd_part_reduction *r, int64_t at, progress *p)
{
    const int level = r->schedule.acts[at].tree.level;
    for (; p->next_send < r->schedule.count && p->sends < p->passed + ND_WIRE_DEPTH &&
           r->schedule.acts[p->next_send].tree.level == level;
         p->next_send++)
        if (r->schedule.acts[p->next_send].tree.kind == ND_TREE_SEND)
            ND_TRY(send(r, &r->schedule.acts[p->next_send], p));
    p->passed += r->schedule.acts[at].tree.kind == ND_TREE_SEND;
    return ND_OK;
}

static nd_status work_off(nd_part_reduction *r)
{
    progress p = {0};
    r->subject = NULL;
    for (int64_t i = 0; i < r->schedule.count; i++) {
        const nd_part_act *a = &r->schedule.acts[i];
        /* A delivered sum replaces a slot that was sent at a lower level. */
        if (i > 0 && a->tree.level != r->schedule.acts[i - 1].tree.level)
            ND_TRY(finish_sends(r, &p));
        ND_TRY(open_receives(r, &p));
        ND_TRY(send_ahead(r, i, &p));
        tell_subject(r, &r->pieces[a->piece]);
        if (a->tree.kind == ND_TREE_ADD)
            ND_TRY(add(r, a));
        else if (a->tree.kind != ND_TREE_SEND)
            ND_TRY(receive(r, a, &p));
    }
    return finish_sends(r, &p);
}

nd_status nd_part_reduction_run(nd_part_reduction *r, nd_comm_queue *queue, nd_comm_split split,
                                nd_comm_piece *pieces, int64_t count)
{
    bool rounds = false;
    for (int64_t i = 0; i < count; i++)
        rounds |= pieces[i].format != ND_GRADIENT_WIRE_FP32;
    ND_TRY(nd_part_schedule_make(&r->schedule, r->comm,
                                 nd_reduction_part_bytes(nd_wire_part_bytes(r->comm), rounds),
                                 split, pieces, count));
    r->pieces = pieces;
    r->queue = queue;
    const double begun = nd_wire_now(r->wire);
    nd_wire_accept_shorter(r->wire, true);
    const nd_status status = work_off(r);
    nd_wire_accept_shorter(r->wire, false);
    nd_grad_compressor_measure(&r->compressor, nd_wire_now(r->wire) - begun);
    if (status != ND_OK)
        nd_wire_cancel(r->wire);
    return status;
}
