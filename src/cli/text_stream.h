/* Prints generated text as soon as it is final. Incomplete characters are held back, and so is text
 * that may be the beginning of the stop text. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct nd_text_stream {
    FILE *out;
    const char *stop; /* the stop text; NULL or empty: none */
    char *held;       /* text not printed yet */
    size_t held_bytes, capacity;
    size_t printed; /* bytes so far */
} nd_text_stream;

/* Adds text and prints what is final. *stopped: the stop text appeared; all text before it is
 * printed, and the stream is at its end. Errors: ND_ENOMEM, ND_EIO. */
nd_status nd_text_stream_put(nd_text_stream *stream, const char *text, size_t bytes, bool *stopped);

/* Prints the rest and frees the stream's memory. */
void nd_text_stream_end(nd_text_stream *stream);
