/* A progress bar on standard error, or a plain line every ten seconds if that is not a terminal. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_progress {
    bool shown, terminal;
    int64_t total; /* bytes, -1 when unknown */
    double start, last;
} nd_progress;

/* `shown`: false shows nothing. `total`: bytes of the whole work, -1 when unknown. */
nd_progress nd_progress_start(bool shown, int64_t total);
/* Shows `done` bytes and `tokens` tokens since the start, at most ten times a second. */
void nd_progress_show(nd_progress *progress, int64_t done, int64_t tokens);
/* Shows the final state and leaves it on screen. */
void nd_progress_end(nd_progress *progress, int64_t done, int64_t tokens);
