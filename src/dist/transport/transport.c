#include "dist/transport/transport.h"

#include <stdio.h>

const char *nd_collective_name(int kind)
{
    static const char *const names[ND_COLLECTIVE_COUNT] = {
        "nothing",  "a barrier",        "a broadcast", "an allgather",
        "a gather", "a tree reduction", "an exchange"};
    return kind >= 0 && kind < ND_COLLECTIVE_COUNT ? names[kind] : names[ND_COLLECTIVE_NONE];
}

int nd_situation_describe(char *text, size_t size, const nd_situation *s, const char *waits)
{
    return snprintf(
        text, size, "rank %d in step %lld, phase %s, %s rank %d in %s%s%s (collective %lld)",
        s->rank, (long long)s->step, s->phase, waits, s->waits_for, nd_collective_name(s->kind),
        s->subject[0] ? " of " : "", s->subject, (long long)s->sequence);
}
