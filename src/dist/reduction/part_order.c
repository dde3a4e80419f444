#include "dist/reduction/part_order.h"

#include "dist/transport/wire_sizes.h"

size_t nd_reduction_part_bytes(size_t part_bytes, bool rounds)
{
    const size_t most =
        ND_WIRE_PART_BYTES / sizeof(float); /* a format takes a byte a value at least */
    return rounds && part_bytes > most ? most : part_bytes;
}

nd_part_order nd_part_order_of(const size_t *bytes, const int *merged, int64_t count, size_t size)
{
    nd_part_order o = {
        .bytes = bytes, .merged = merged, .count = count, .size = size, .longest = 1};
    for (int64_t i = 0; i < count; i++) {
        const size_t first = bytes[i] < size ? bytes[i] : size;
        o.longest = first > o.longest ? first : o.longest;
    }
    return o;
}

bool nd_part_next(nd_part_order *o, nd_part *part)
{
    for (;; o->piece++) {
        if (o->piece == o->count) {
            if (!o->more)
                return false;
            o->more = false;
            o->piece = 0;
            o->index++;
        }
        const size_t bytes = o->bytes[o->piece];
        const int64_t parts = nd_wire_parts(bytes, o->size);
        if (o->index >= parts)
            continue;
        o->more |= parts > o->index + 1;
        size_t *before = &o->before[o->merged ? o->merged[o->piece] % ND_PART_TURNS : 0];
        *part = (nd_part){.piece = o->piece++,
                          .index = o->index,
                          .at = nd_wire_part_start(o->index, o->size),
                          .bytes = (size_t)nd_wire_part_length(bytes, o->index, o->size)};
        part->turn = (int64_t)((*before + part->bytes / 2) / o->longest);
        *before += part->bytes;
        return true;
    }
}
