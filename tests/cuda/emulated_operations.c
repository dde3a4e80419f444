#include "emulated_operations.h"

#include "dist/reduction/gradient_wire.h"

#include <stdlib.h>

static nd_emulated_range range_of(const void *from, size_t bytes, bool written)
{
    return (nd_emulated_range){from, (const char *)from + bytes, written};
}

nd_status nd_emulated_ranges(nd_emulated_operation *o)
{
    const int most = o->kind == ND_EMULATED_GROUP ? o->count : 3 * o->count;
    o->ranges = calloc((size_t)most + 1, sizeof *o->ranges);
    ND_FAIL_IF(!o->ranges, ND_ENOMEM, "no memory for %d ranges", most);
    for (int i = 0; o->kind == ND_EMULATED_GROUP && i < o->count; i++) {
        const nd_emulated_message *m = &o->of.messages[i];
        o->ranges[o->range_count++] = range_of(m->data, m->bytes, m->receives);
    }
    for (int i = 0; o->kind != ND_EMULATED_GROUP && i < o->count; i++) {
        const nd_gradient_part *part = &o->of.parts[i];
        const size_t values = (size_t)part->count * sizeof(float);
        const size_t wire = nd_gradient_wire_bytes((nd_gradient_wire)part->format, part->count);
        o->ranges[o->range_count++] = range_of(part->values, values, o->kind == ND_EMULATED_ADD);
        o->ranges[o->range_count++] = range_of(part->wire, wire, o->kind == ND_EMULATED_ENCODE);
        if (part->residual)
            o->ranges[o->range_count++] = range_of(part->residual, 1, true);
    }
    return ND_OK;
}

bool nd_emulated_clash(const nd_emulated_operation *a, const nd_emulated_operation *b)
{
    for (int i = 0; i < a->range_count; i++)
        for (int j = a == b ? i + 1 : 0; j < b->range_count; j++) {
            const nd_emulated_range *x = &a->ranges[i], *y = &b->ranges[j];
            if ((x->written || y->written) && x->from < y->to && y->from < x->to)
                return true;
        }
    return false;
}

void nd_emulated_compute(const nd_emulated_operation *o)
{
    for (int i = o->count - 1; i >= 0; i--) {
        const nd_gradient_part *part = &o->of.parts[i];
        if (o->kind == ND_EMULATED_ENCODE)
            nd_gradient_wire_encode((nd_gradient_wire)part->format, part->wire, part->values,
                                    part->residual, part->count);
        else
            nd_gradient_wire_add((nd_gradient_wire)part->format, part->values, part->wire,
                                 part->count);
    }
}

void nd_emulated_operation_free(nd_emulated_operation *o)
{
    if (o->kind == ND_EMULATED_GROUP)
        free(o->of.messages);
    else if (o->kind != ND_EMULATED_AFTER)
        free(o->of.parts);
    free(o->ranges);
}
