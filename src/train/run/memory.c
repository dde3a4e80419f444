#include "train/run/memory.h"

#include "core/base/close.h"
#include "core/base/machine.h"

#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

const char *nd_memory_category_name(nd_memory_category category)
{
    static const char *const names[ND_MEMORY_COUNT] = {"codes",     "masters",     "gradients",
                                                       "optimizer", "activations", "wire"};
    return names[category];
}

/* Resident pages in /proc/self/statm: all, and those of files and shared memory. */
static void read_statm(size_t *resident, size_t *shared)
{
    char line[128];
    *resident = *shared = 0;
    if (nd_first_line("/proc/self/statm", line, sizeof line))
        sscanf(line, "%*u %zu %zu", resident, shared);
    *resident *= (size_t)sysconf(_SC_PAGESIZE);
    *shared *= (size_t)sysconf(_SC_PAGESIZE);
}

size_t nd_memory_resident(void)
{
    size_t resident, shared;
    read_statm(&resident, &shared);
    return resident;
}

size_t nd_memory_program(size_t counted)
{
    size_t resident, shared;
    read_statm(&resident, &shared);
    const struct mallinfo2 heap = mallinfo2();
    const size_t held = heap.uordblks + heap.hblkhd;
    return shared + (held > counted ? held - counted : 0);
}

size_t nd_memory_available(void)
{
    char line[256];
    unsigned long kilobytes = 0;
    size_t machine = 0;
    ND_CLEANUP(nd_close_file) FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lu kB", &kilobytes) == 1 ||
            sscanf(line, "SwapFree: %lu kB", &kilobytes) == 1)
            machine += (size_t)kilobytes * 1024;
    const size_t group = nd_cgroup_of_process().memory_remaining;
    if (machine == 0)
        return group;
    return machine < group ? machine : group;
}

size_t nd_memory_resident_peak(void)
{
    char line[256];
    unsigned long kilobytes = 0;
    ND_CLEANUP(nd_close_file) FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lu kB", &kilobytes) == 1)
            break;
    return (size_t)kilobytes * 1024;
}
