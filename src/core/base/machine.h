/* What the kernel's files say: lines of them, and the processor time and memory that this process's
 * control group (version 1 or 2) allows. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The first line of a small file without its end; "" and false when it cannot be read. */
bool nd_first_line(const char *path, char *text, size_t size);

/* The tightest limits of a control group and all groups above it. */
typedef struct nd_cgroup {
    double processors;       /* its quota, in processors; INFINITY: none */
    int processor_set;       /* number of processors in its set; 0: not known */
    size_t memory_remaining; /* bytes left before the limit; SIZE_MAX: none */
} nd_cgroup;

/* `membership`: the path of /proc/self/cgroup or its like; `root`: the directory of the groups'
 * files. A file that cannot be read sets no limit. */
nd_cgroup nd_cgroup_read(const char *membership, const char *root);

/* The limits of this process. */
nd_cgroup nd_cgroup_of_process(void);
