#include "dist/weights/ring.h"

/* A stream of parts: those of one rank after those of the rank at its right, from `owner` to the
 * left. */
typedef struct stream {
    int owner, size;
    int64_t part;          /* of the owner's, the next */
    int64_t number, count; /* of the stream */
} stream;

typedef struct ring {
    nd_wire *wire;
    int rank, size, first;
    size_t part_bytes;
    void *const *buffers;
    const size_t *bytes;
} ring;

static stream stream_of(const ring *r, int first)
{
    stream s = {.owner = first, .size = r->size};
    const int last = (first + 1) % r->size; /* has its own */
    for (int i = 0; i < r->size; i++)
        if (i != last)
            s.count += nd_wire_parts(r->bytes[i], r->part_bytes);
    return s;
}

/* The next part. */
static char *next(const ring *r, stream *s, int *length)
{
    while (s->part == nd_wire_parts(r->bytes[s->owner], r->part_bytes)) {
        s->owner = (s->owner + s->size - 1) % s->size;
        s->part = 0;
    }
    *length = nd_wire_part_length(r->bytes[s->owner], s->part, r->part_bytes);
    s->number++;
    return (char *)r->buffers[s->owner] + nd_wire_part_start(s->part++, r->part_bytes);
}

static nd_status receive_next(const ring *r, stream *in)
{
    int length;
    const int64_t number = in->number;
    char *data = next(r, in, &length);
    return nd_wire_start_receive(r->wire, number, data, length,
                                 r->first + (r->rank + r->size - 1) % r->size);
}

static nd_status send_next(const ring *r, stream *out)
{
    int length;
    const int64_t number = out->number;
    if (number >= ND_WIRE_DEPTH)
        ND_TRY(nd_wire_finish_send(r->wire, number - ND_WIRE_DEPTH));
    const char *data = next(r, out, &length);
    return nd_wire_start_send(r->wire, number, data, length, r->first + (r->rank + 1) % r->size);
}

/* Starts sends up to ND_WIRE_DEPTH ahead of the round: its own parts, and what it has taken of
 * others. */
static nd_status send_ahead(const ring *r, stream *out, int64_t round, int64_t taken)
{
    const int64_t own = nd_wire_parts(r->bytes[r->rank], r->part_bytes);
    while (out->number < out->count && out->number < round + ND_WIRE_DEPTH &&
           out->number < own + taken)
        ND_TRY(send_next(r, out));
    return ND_OK;
}

static nd_status go_round(const ring *r)
{
    stream in = stream_of(r, (r->rank + r->size - 1) % r->size), out = stream_of(r, r->rank);
    const bool has_own = r->bytes[r->rank] > 0;
    for (int64_t i = 0; i < in.count || i < out.count; i++) {
        const int64_t taken = i < in.count ? i : in.count;
        while (in.number < in.count && in.number < i + ND_WIRE_DEPTH)
            ND_TRY(receive_next(r, &in));
        if (has_own)
            ND_TRY(send_ahead(r, &out, i, taken));
        if (i < in.count)
            ND_TRY(nd_wire_finish_receive(r->wire, i));
        if (!has_own)
            ND_TRY(send_ahead(r, &out, i, taken + 1));
    }
    for (int64_t i = out.count > ND_WIRE_DEPTH ? out.count - ND_WIRE_DEPTH : 0; i < out.count; i++)
        ND_TRY(nd_wire_finish_send(r->wire, i));
    return ND_OK;
}

nd_status nd_ring_broadcast_each(nd_wire *wire, int rank, int size, int first, void *const *buffers,
                                 const size_t *bytes)
{
    const ring r = {wire, rank, size, first, nd_wire_message_bytes(wire), buffers, bytes};
    if (size == 1)
        return ND_OK;
    const nd_status status = go_round(&r);
    if (status != ND_OK)
        nd_wire_cancel(wire);
    return status;
}
