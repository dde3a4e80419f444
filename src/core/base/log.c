#include "core/base/log.h"

#include <stdarg.h>
#include <string.h>

static void clear_progress(nd_log *log)
{
    if (log->progress_width > 0 && log->terminal)
        fprintf(log->terminal, "\r%*s\r", log->progress_width, "");
    log->progress_width = 0;
}

void nd_log_line(nd_log *log, const char *format, ...)
{
    FILE *const outputs[] = {log->terminal, log->file};
    clear_progress(log);
    for (int i = 0; i < 2; i++) {
        if (!outputs[i])
            continue;
        va_list arguments;
        va_start(arguments, format);
        vfprintf(outputs[i], format, arguments);
        va_end(arguments);
        fputc('\n', outputs[i]);
        fflush(outputs[i]);
    }
}

void nd_log_redraw(nd_log *log, const char *text)
{
    if (!log->terminal || !log->animated)
        return;
    const int width = (int)strlen(text);
    const int padding = log->progress_width > width ? log->progress_width - width : 0;
    fprintf(log->terminal, "\r%s%*s", text, padding, "");
    fflush(log->terminal);
    log->progress_width = width;
}

void nd_log_progress(nd_log *log, const char *text)
{
    FILE *const plain[] = {log->file, log->animated ? NULL : log->terminal};
    for (int i = 0; i < 2; i++) {
        if (!plain[i])
            continue;
        fprintf(plain[i], "%s\n", text);
        fflush(plain[i]);
    }
    nd_log_redraw(log, text);
}
