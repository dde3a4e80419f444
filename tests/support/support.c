#include "support/support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

const char *nd_test_directory(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/nd_test_XXXXXX");
    cr_assert(mkdtemp(path) != NULL, "mkdtemp failed");
    return path;
}

void nd_test_remove_directory(const char *path)
{
    cr_assert(strncmp(path, "/tmp/nd_test_", 13) == 0, "refusing to remove %s", path);
    nd_test_shell(NULL, 0, "rm -rf '%s'", path);
}

int nd_test_shell(char *output, size_t size, const char *format, ...)
{
    char command[8192];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(command, sizeof command - 8, format, arguments);
    va_end(arguments);
    cr_assert(length > 0 && (size_t)length < sizeof command - 8, "command too long");
    strcat(command, " 2>&1");
    FILE *pipe = popen(command, "r");
    cr_assert(pipe != NULL, "popen failed");
    size_t used = 0;
    char chunk[4096];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, pipe)) > 0) {
        for (size_t i = 0; i < got && used + 1 < size; i++)
            output[used++] = chunk[i];
    }
    if (size > 0)
        output[used] = '\0';
    const int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int nd_test_mpirun(char *output, size_t size, int ranks, const char *format, ...)
{
    char command[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    return nd_test_shell(output, size,
                         "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                         "OMP_NUM_THREADS=1 mpirun --oversubscribe -np %d %s",
                         ranks, command);
}

void nd_test_processes_left(char *left, size_t size, const char *pattern)
{
    nd_test_shell(
        left, size,
        "for i in $(seq 100); do "
        "left=$(ps -eo stat,args | grep -v -e ^Z -e grep -e 'sh -c' | grep '%s') || break; "
        "sleep 0.1; done; echo -n \"$left\"",
        pattern);
}

char *nd_test_read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    const size_t got = fread(text, 1, (size_t)size, file);
    fclose(file);
    text[got] = '\0';
    if (bytes)
        *bytes = got;
    return text;
}

void nd_test_write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    cr_assert(file != NULL, "cannot write %s", path);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}
