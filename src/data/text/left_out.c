#include "data/text/left_out.h"

#include <stdarg.h>

/* Singular, plural, and advice (NULL: none). */
static const char *const descriptions[ND_LEFT_COUNT][3] = {
    [ND_LEFT_HIDDEN] = {"hidden directory", "hidden directories",
                        "name one as an input to read it"},
    [ND_LEFT_BINARY] = {"file that is not text", "files that are not text",
                        "--binary reads them as they are"},
    [ND_LEFT_LINK] = {"link that leads nowhere or back to itself",
                      "links that lead nowhere or back to themselves", NULL},
    [ND_LEFT_SPECIAL] = {"device, pipe or socket", "devices, pipes and sockets",
                         "name one as an input to read it"},
    [ND_LEFT_REPEATED] = {"file that was reached twice", "files that were reached twice",
                          "each is read once"},
    [ND_LEFT_OWN] = {"file of the output directory", "files of the output directory", NULL},
    [ND_LEFT_LINE] = {"bad line of JSON Lines", "bad lines of JSON Lines", NULL},
};

void nd_left_out_add(nd_left_out *left_out, nd_left_out_kind kind, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (left_out->count[kind]++ == 0)
        vsnprintf(left_out->first[kind], sizeof left_out->first[kind], format, arguments);
    va_end(arguments);
}

void nd_left_out_print(const nd_left_out *left_out, const char *prefix, FILE *out)
{
    for (int kind = 0; kind < ND_LEFT_COUNT; kind++) {
        const int64_t count = left_out->count[kind];
        const char *advice = descriptions[kind][2];
        if (count > 0)
            fprintf(out, "%sleft out: %lld %s (%s%s)%s%s\n", prefix, (long long)count,
                    descriptions[kind][count > 1], count > 1 ? "first: " : "",
                    left_out->first[kind], advice ? "; " : "", advice ? advice : "");
    }
}
