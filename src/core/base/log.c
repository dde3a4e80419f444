#include "core/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

enum { TIME_LENGTH = 20 }; /* "2026-01-31 23:59:59 " */

static void put_time(FILE *out)
{
    char text[TIME_LENGTH + 1] = "";
    const time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S ", &local);
    fputs(text, out);
}

static void clear_progress(nd_log *log)
{
    if (log->progress_width > 0 && log->terminal)
        fprintf(log->terminal, "\r%*s\r", log->progress_width, "");
    log->progress_width = 0;
}

/* A log that cannot be written must not stop the run: reports it once to the other output. */
static void check_output(nd_log *log, FILE **output, FILE *other, bool *failed, const char *name)
{
    if (fflush(*output) == 0 && !ferror(*output))
        return;
    const int reason = errno;
    clearerr(*output);
    if (!*failed && other)
        fprintf(other, "warning: cannot write %s: %s; training continues\n", name,
                strerror(reason));
    *failed = true;
    if (output == &log->terminal && (reason == EPIPE || reason == EIO || reason == EBADF))
        *output = NULL; /* nobody reads it any more */
}

static void check_outputs(nd_log *log)
{
    if (log->terminal)
        check_output(log, &log->terminal, log->file, &log->terminal_failed,
                     "the log to standard output");
    if (log->file)
        check_output(log, &log->file, log->terminal, &log->file_failed, "training.log");
}

void nd_log_line(nd_log *log, const char *format, ...)
{
    FILE *const outputs[] = {log->terminal, log->file};
    clear_progress(log);
    for (int i = 0; i < 2; i++) {
        if (!outputs[i])
            continue;
        put_time(outputs[i]);
        va_list arguments;
        va_start(arguments, format);
        vfprintf(outputs[i], format, arguments);
        va_end(arguments);
        fputc('\n', outputs[i]);
    }
    check_outputs(log);
}

void nd_log_replay(nd_log *log, const char *text)
{
    fputs(text, log->file);
    check_outputs(log);
}

void nd_log_redraw(nd_log *log, const char *text)
{
    if (!log->terminal || !log->animated)
        return;
    const int width = (int)strlen(text);
    const int padding = log->progress_width > width ? log->progress_width - width : 0;
    fprintf(log->terminal, "\r%s%*s", text, padding, "");
    log->progress_width = width;
    check_outputs(log);
}

void nd_log_progress(nd_log *log, const char *text)
{
    FILE *const plain[] = {log->file, log->animated ? NULL : log->terminal};
    for (int i = 0; i < 2; i++) {
        if (!plain[i])
            continue;
        put_time(plain[i]);
        fprintf(plain[i], "%s\n", text);
    }
    check_outputs(log);
    nd_log_redraw(log, text);
}
