#include "dist/weights/changed_codes.h"

#include <string.h>

enum { SKIP = 127, SECOND = 128, WORD = 8 };

/* The first change at or after `at`. */
static int64_t next_change(const int8_t *before, const int8_t *now, int64_t count, int64_t at)
{
    for (; at + WORD <= count; at += WORD) {
        uint64_t a, b;
        memcpy(&a, before + at, WORD);
        memcpy(&b, now + at, WORD);
        if (a != b)
            break;
    }
    while (at < count && before[at] == now[at])
        at++;
    return at;
}

size_t nd_changed_codes_encode(const int8_t *before, const int8_t *now, int64_t count, uint8_t *out,
                               size_t capacity)
{
    size_t used = 0;
    int64_t from = 0;
    for (int64_t at = next_change(before, now, count, 0); at < count;
         from = at + 1, at = next_change(before, now, count, from)) {
        const size_t skips = (size_t)(at - from) / SKIP;
        if (used + skips + 1 > capacity)
            return capacity + 1;
        memset(out + used, SKIP, skips);
        used += skips;
        const int turn = (now[at] - before[at] + 3) % 3; /* 1 or 2 */
        out[used++] = (uint8_t)((at - from) % SKIP + (turn == 2 ? SECOND : 0));
    }
    return used;
}

nd_status nd_changed_codes_apply(int8_t *codes, int64_t count, const uint8_t *in, size_t bytes)
{
    int64_t at = 0;
    for (size_t i = 0; i < bytes; i++) {
        const int stay = in[i] & (SECOND - 1);
        at += stay;
        if (stay == SKIP)
            continue;
        ND_FAIL_IF(at >= count, ND_EPEER, "a change of code %lld of %lld arrived", (long long)at,
                   (long long)count);
        codes[at] = (int8_t)((codes[at] + 2 + in[i] / SECOND) % 3 - 1);
        at++;
    }
    return ND_OK;
}
