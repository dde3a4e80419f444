#include "core/base/program_files.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_readable_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode) && access(path, R_OK) == 0;
}

nd_status nd_program_file_find(const char *const *places, int count, const char *name,
                               const char *what, char *path, size_t size)
{
    char tried[4 * PATH_MAX] = "", program[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash)
        *slash = '\0';
    for (int i = 0; i < count; i++) {
        const bool here = places[i][0] == '\0' || name[0] == '/';
        const int used =
            snprintf(path, size, "%s%s%s", here ? "" : program, here ? "" : places[i], name);
        if (used > 0 && (size_t)used < size && is_readable_file(path))
            return ND_OK;
        const size_t at = strlen(tried);
        snprintf(tried + at, sizeof tried - at, "%s%s", i ? ", " : "", path);
        if (name[0] == '/')
            break;
    }
    return ND_FAIL(ND_ECONFIG, "%s '%.200s': no readable file; tried %s", what, name, tried);
}
