/* The log that people read during a run. Only rank 0 writes it; errors of any rank go to standard
 * error. A line begins with the local time, "2026-01-31 23:59:59 ". An output that cannot be
 * written (a full disk, a broken pipe) is not an error: the other output reports it once. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

typedef struct nd_log {
    FILE *terminal;                    /* standard output of rank 0, else NULL */
    FILE *file;                        /* RUN/training.log of rank 0, else NULL */
    bool animated;                     /* output is a terminal: redraw the progress line in place */
    bool terminal_failed, file_failed; /* reported on the other output */
    int progress_width;                /* columns of the progress line now on screen, 0 for none */
} nd_log;

/* Writes one line to terminal and file and adds the newline. A progress line on screen is cleared
 * first. */
void nd_log_line(nd_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes text of whole lines to the file only, which must be open. */
void nd_log_replay(nd_log *log, const char *text);

/* Redraws the progress line on a terminal; elsewhere, and in the file, a plain line. */
void nd_log_progress(nd_log *log, const char *text);

/* Redraws the progress line between the lines of the log; writes nothing except to a terminal. */
void nd_log_redraw(nd_log *log, const char *text);
