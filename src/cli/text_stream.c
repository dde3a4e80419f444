#include "cli/text_stream.h"

#include "core/base/grow.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bytes at the end of `text` that are the beginning of an incomplete UTF-8 character. */
static size_t incomplete_character_bytes(const char *text, size_t bytes)
{
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        const uint8_t byte = (uint8_t)text[bytes - back];
        if ((byte & 0xc0) == 0x80)
            continue;
        const size_t whole = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
        return whole > back ? back : 0;
    }
    return 0;
}

/* Bytes at the end of `text` that are the beginning of `stop`. */
static size_t partial_stop_bytes(const char *stop, const char *text, size_t bytes)
{
    const size_t whole = strlen(stop);
    for (size_t part = whole - 1 < bytes ? whole - 1 : bytes; part > 0; part--)
        if (memcmp(text + bytes - part, stop, part) == 0)
            return part;
    return 0;
}

static nd_status print_bytes(nd_text_stream *s, size_t bytes)
{
    ND_FAIL_IF(fwrite(s->held, 1, bytes, s->out) != bytes || fflush(s->out) != 0, ND_EIO,
               "cannot print what was generated: %s", strerror(errno));
    memmove(s->held, s->held + bytes, s->held_bytes - bytes);
    s->held_bytes -= bytes;
    s->printed += bytes;
    return ND_OK;
}

nd_status nd_text_stream_put(nd_text_stream *s, const char *text, size_t bytes, bool *stopped)
{
    const bool stops = s->stop && s->stop[0];
    *stopped = false;
    char *grown = nd_grown(s->held, &s->capacity, s->held_bytes + bytes + 1, 1);
    ND_FAIL_IF(!grown, ND_ENOMEM, "no memory for generated text");
    s->held = grown;
    memcpy(s->held + s->held_bytes, text, bytes);
    s->held_bytes += bytes;
    if (stops) {
        const char *found = memmem(s->held, s->held_bytes, s->stop, strlen(s->stop));
        if (found) {
            *stopped = true;
            ND_TRY(print_bytes(s, (size_t)(found - s->held)));
            s->held_bytes = 0;
            return ND_OK;
        }
    }
    size_t uncertain = stops ? partial_stop_bytes(s->stop, s->held, s->held_bytes) : 0;
    const size_t cut = incomplete_character_bytes(s->held, s->held_bytes);
    uncertain = cut > uncertain ? cut : uncertain;
    return print_bytes(s, s->held_bytes - uncertain);
}

void nd_text_stream_end(nd_text_stream *s)
{
    if (s->held_bytes > 0)
        fwrite(s->held, 1, s->held_bytes, s->out);
    fflush(s->out);
    free(s->held);
    *s = (nd_text_stream){.out = s->out, .stop = s->stop};
}
