#include "core/base/machine.h"

#include "core/base/close.h"
#include "core/base/error.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool nd_first_line(const char *path, char *text, size_t size)
{
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "re");
    text[0] = '\0';
    if (!file || !fgets(text, (int)size, file))
        return false;
    text[strcspn(text, "\n")] = '\0';
    return true;
}

static bool read_text(const char *directory, const char *name, char *text, size_t size)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path &&
           nd_first_line(path, text, size);
}

/* A limit in bytes; SIZE_MAX for "max" and for missing files. */
static size_t read_bytes(const char *directory, const char *name)
{
    char text[64];
    unsigned long long bytes;
    return read_text(directory, name, text, sizeof text) && sscanf(text, "%llu", &bytes) == 1
               ? (size_t)bytes
               : SIZE_MAX;
}

/* Processors in a list such as "0-3,8,10-11"; 0 if it is not one. */
static int count_list(const char *text)
{
    int count = 0, first, last, used;
    while (sscanf(text, "%d%n", &first, &used) == 1) {
        text += used;
        last = first;
        if (*text == '-' && sscanf(++text, "%d%n", &last, &used) == 1)
            text += used;
        if (first < 0 || last < first || last - first > 1 << 20)
            return 0;
        count += last - first + 1;
        if (*text++ != ',')
            break;
    }
    return count;
}

/* Bytes of a group in pages of files, by the names of its two lists of them: the kernel takes them
 * back before it kills anything. */
static size_t file_bytes(const char *directory, const char *inactive, const char *active)
{
    char path[PATH_MAX], name[64];
    unsigned long long bytes;
    size_t sum = 0;
    if (snprintf(path, sizeof path, "%s/memory.stat", directory) >= (int)sizeof path)
        return 0;
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "re");
    while (file && fscanf(file, "%63s %llu", name, &bytes) == 2)
        if (strcmp(name, inactive) == 0 || strcmp(name, active) == 0)
            sum += (size_t)bytes;
    return sum;
}

/* `used` without `files`, the pages of files. */
static void lower_memory_limit(nd_cgroup *g, size_t limit, size_t used, size_t files)
{
    if (used != SIZE_MAX)
        used -= files < used ? files : used;
    const size_t remaining = limit == SIZE_MAX  ? SIZE_MAX
                             : used == SIZE_MAX ? limit
                             : used < limit     ? limit - used
                                                : 0;
    if (remaining < g->memory_remaining)
        g->memory_remaining = remaining;
}

/* Reads one group's files, of either version. */
static void read_group(nd_cgroup *g, const char *directory)
{
    static const char *const sets[] = {"cpuset.cpus.effective", "cpuset.effective_cpus",
                                       "cpuset.cpus"};
    char text[4096], period_text[64];
    double quota = 0.0, period = 0.0;
    bool limited = read_text(directory, "cpu.max", text, sizeof text) &&
                   sscanf(text, "%lf %lf", &quota, &period) == 2;
    if (!limited && read_text(directory, "cpu.cfs_quota_us", text, sizeof text) &&
        read_text(directory, "cpu.cfs_period_us", period_text, sizeof period_text))
        limited = sscanf(text, "%lf", &quota) == 1 && sscanf(period_text, "%lf", &period) == 1;
    if (limited && quota > 0.0 && period > 0.0 && quota / period < g->processors)
        g->processors = quota / period;
    for (size_t i = 0; g->processor_set == 0 && i < sizeof sets / sizeof sets[0]; i++)
        if (read_text(directory, sets[i], text, sizeof text))
            g->processor_set = count_list(text);
    lower_memory_limit(g, read_bytes(directory, "memory.max"),
                       read_bytes(directory, "memory.current"),
                       file_bytes(directory, "inactive_file", "active_file"));
    lower_memory_limit(g, read_bytes(directory, "memory.limit_in_bytes"),
                       read_bytes(directory, "memory.usage_in_bytes"),
                       file_bytes(directory, "total_inactive_file", "total_active_file"));
}

/* Reads the group at root/controller/path and its parents. In a container the path may be one of
 * the host that is not visible: then only the root, the container's own group, exists. */
static void read_groups(nd_cgroup *g, const char *root, const char *controller, const char *path)
{
    char directory[PATH_MAX];
    const int base =
        snprintf(directory, sizeof directory, "%s%s%s", root, *controller ? "/" : "", controller);
    const int length = snprintf(directory, sizeof directory, "%s%s%s%s", root,
                                *controller ? "/" : "", controller, path);
    if (length >= (int)sizeof directory)
        return;
    for (;;) {
        read_group(g, directory);
        char *slash = strrchr(directory + base, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

nd_cgroup nd_cgroup_read(const char *membership, const char *root)
{
    nd_cgroup g = {.processors = INFINITY, .memory_remaining = SIZE_MAX};
    char line[PATH_MAX];
    ND_CLEANUP(nd_close_file) FILE *file = fopen(membership, "re");
    while (file && fgets(line, sizeof line, file)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        names++;
        read_groups(&g, root, names, strcmp(path, "/") == 0 ? "" : path);
        /* "cpu,cpuacct" is also mounted under each name alone. */
        for (char *name = strtok(names, ","); name; name = strtok(NULL, ","))
            read_groups(&g, root, name, strcmp(path, "/") == 0 ? "" : path);
    }
    return g;
}

nd_cgroup nd_cgroup_of_process(void)
{
    return nd_cgroup_read("/proc/self/cgroup", "/sys/fs/cgroup");
}
