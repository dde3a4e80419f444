#include "core/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local nd_error last_error;

nd_status nd_error_raise(nd_status status, const char *file, int line, const char *format, ...)
{
    if (last_error.status != ND_OK)
        return last_error.status;
    last_error.status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error.message, sizeof last_error.message, format, arguments);
    va_end(arguments);
    snprintf(last_error.trace, sizeof last_error.trace, "  at %s:%d\n", file, line);
    return status;
}

void nd_error_add_trace(const char *file, int line, const char *expression)
{
    const size_t used = strlen(last_error.trace);
    snprintf(last_error.trace + used, sizeof last_error.trace - used, "  in %s:%d: %s\n", file,
             line, expression);
}

const nd_error *nd_error_get(void)
{
    return &last_error;
}

void nd_error_set(const nd_error *error)
{
    last_error = *error;
}

void nd_error_clear(void)
{
    memset(&last_error, 0, sizeof last_error);
}

nd_status nd_error_tolerate(nd_status status)
{
    if (status == ND_ENOMEM)
        return status;
    nd_error_clear();
    return ND_OK;
}

nd_status nd_error_mark_shared(nd_status status)
{
    last_error.shared = 1;
    return status;
}

int nd_error_exit_code(nd_status status)
{
    return status <= ND_ESTOPPED ? (int)status : 1;
}

void nd_autofree(void *pointer)
{
    void *memory;
    memcpy(&memory, pointer, sizeof memory);
    free(memory);
}
