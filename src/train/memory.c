#include "train/memory.h"

#include <stdio.h>
#include <unistd.h>

const char *nd_memory_category_name(nd_memory_category category)
{
    static const char *const names[ND_MEMORY_COUNT] = {"codes",     "masters",     "gradients",
                                                       "optimizer", "activations", "wire"};
    return names[category];
}

size_t nd_memory_resident(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%lu %lu", &pages, &resident) != 2)
        resident = 0;
    fclose(file);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t nd_memory_resident_peak(void)
{
    char line[256];
    unsigned long kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lu kB", &kilobytes) == 1)
            break;
    fclose(file);
    return (size_t)kilobytes * 1024;
}
