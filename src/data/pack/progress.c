#include "data/pack/progress.h"

#include "core/base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 30 };

nd_progress nd_progress_start(bool shown, int64_t total)
{
    const double start = nd_seconds();
    return (nd_progress){shown, isatty(STDERR_FILENO) == 1, total, start, start};
}

static void draw(const nd_progress *p, int64_t done, int64_t tokens, double seconds)
{
    char bar[BAR_WIDTH + 1] = "", left[32] = "";
    const double rate = (double)done / (seconds > 1e-3 ? seconds : 1e-3);
    if (p->terminal)
        fputs("\r\033[K", stderr);
    fputs("pack ", stderr);
    if (p->total > 0) {
        const double part = done < p->total ? (double)done / (double)p->total : 1.0;
        const int filled = (int)(part * BAR_WIDTH);
        memset(bar, '.', BAR_WIDTH);
        memset(bar, '=', (size_t)filled);
        const int wait = rate > 0 ? (int)((double)(p->total - done) / rate) : 0;
        if (done < p->total)
            snprintf(left, sizeof left, "  %d:%02d left", wait / 60, wait % 60);
        if (p->terminal)
            fprintf(stderr, "[%s] ", bar);
        fprintf(stderr, "%3.0f%%  ", 100 * part);
    }
    fprintf(stderr, "%.1f MB  %.2f M tokens  %.1f MB/s%s", (double)done * 1e-6,
            (double)tokens * 1e-6, rate * 1e-6, left);
    if (!p->terminal)
        fputc('\n', stderr);
    fflush(stderr);
}

void nd_progress_show(nd_progress *progress, int64_t done, int64_t tokens)
{
    if (!progress->shown)
        return;
    const double at = nd_seconds();
    if (at - progress->last < (progress->terminal ? 0.1 : 10.0))
        return;
    progress->last = at;
    draw(progress, done, tokens, at - progress->start);
}

void nd_progress_end(nd_progress *progress, int64_t done, int64_t tokens)
{
    if (!progress->shown)
        return;
    draw(progress, done, tokens, nd_seconds() - progress->start);
    if (progress->terminal)
        fputc('\n', stderr);
}
