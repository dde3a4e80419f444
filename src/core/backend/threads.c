#include "core/backend/threads.h"

#include "core/base/error.h"
#include "core/base/machine.h"

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS_MAX = 4096 };

/* The first hardware thread of this processor's core. */
static int first_sibling(int processor)
{
    char path[96], siblings[64];
    int first;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             processor);
    return nd_first_line(path, siblings, sizeof siblings) && sscanf(siblings, "%d", &first) == 1
               ? first
               : processor;
}

/* All processors that OpenMP binds threads to; false: it binds none. */
static bool places(size_t bytes, cpu_set_t *set)
{
    const int count = omp_get_num_places();
    CPU_ZERO_S(bytes, set);
    for (int place = 0; place < count; place++) {
        const int size = omp_get_place_num_procs(place);
        ND_AUTOFREE int *processors = calloc((size_t)size + 1, sizeof *processors);
        if (!processors)
            return false;
        omp_get_place_proc_ids(place, processors);
        for (int i = 0; i < size; i++)
            CPU_SET_S((size_t)processors[i], bytes, set);
    }
    return count > 0;
}

/* Undoes that OpenMP, asked to bind threads, has bound this one to the first of its places. */
static void unbind(void)
{
    const size_t bytes = CPU_ALLOC_SIZE(CPU_SETSIZE * 8);
    cpu_set_t *set = CPU_ALLOC(CPU_SETSIZE * 8);
    if (set && places(bytes, set))
        sched_setaffinity(0, bytes, set);
    CPU_FREE(set);
}

/* Cores among the processors that process `id` (0: this one) is bound to; 0 if unknown. */
static int bound_cores(pid_t id)
{
    const size_t bytes = CPU_ALLOC_SIZE(CPU_SETSIZE * 8);
    cpu_set_t *set = CPU_ALLOC(CPU_SETSIZE * 8), *cores = CPU_ALLOC(CPU_SETSIZE * 8);
    int count = 0;
    if (set && cores &&
        ((id == 0 && places(bytes, set)) || sched_getaffinity(id, bytes, set) == 0)) {
        CPU_ZERO_S(bytes, cores);
        for (int p = 0; p < CPU_SETSIZE * 8; p++)
            if (CPU_ISSET_S((size_t)p, bytes, set))
                CPU_SET_S((size_t)first_sibling(p), bytes, cores);
        count = CPU_COUNT_S(bytes, cores);
    }
    CPU_FREE(set);
    CPU_FREE(cores);
    return count;
}

int nd_machine_omp_threads(const char *value)
{
    char *end;
    if (!value)
        return 0;
    const long number = strtol(value, &end, 10);
    while (*end == ' ')
        end++;
    return end != value && (*end == '\0' || *end == ',') && number >= 1 && number <= THREADS_MAX
               ? (int)number
               : 0;
}

int nd_machine_share_threads(const nd_machine_share *s)
{
    if (s->omp_threads > 0)
        return s->omp_threads;
    double share = s->own_cores > 0 ? s->own_cores : s->all_cores;
    share = fmin(share, (double)s->all_cores / s->ranks);
    share = fmin(share, s->processors / s->ranks);
    return share >= 1.0 ? (int)fmin(share, THREADS_MAX) : 1;
}

int nd_machine_threads(int ranks, pid_t launcher)
{
    const nd_cgroup group = nd_cgroup_of_process();
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    nd_machine_share s = {.own_cores = bound_cores(0),
                          .all_cores = online > 0 ? (int)online : 1,
                          .processors = group.processors,
                          .ranks = ranks > 0 ? ranks : 1,
                          .omp_threads = nd_machine_omp_threads(getenv("OMP_NUM_THREADS"))};
    /* A launcher that binds its ranks is not bound itself, whereas a batch system or taskset binds
     * the launcher as well. */
    const int launched = launcher > 0 ? bound_cores(launcher) : 0;
    if (launched >= s.own_cores && launched > 0 && launched < s.all_cores)
        s.all_cores = launched;
    if (group.processor_set > 0 && group.processor_set < s.all_cores)
        s.all_cores = group.processor_set;
    if (s.own_cores > s.all_cores)
        s.all_cores = s.own_cores;
    const int share = nd_machine_share_threads(&s), limit = omp_get_thread_limit();
    return share < limit ? share : limit;
}

void nd_machine_limit_spinning(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    unbind(); /* else OpenMP finds one core to bind all its threads to */
    if (setenv("GOMP_SPINCOUNT", "10000", 1) == 0)
        execv("/proc/self/exe", argv); /* returns only on failure (no /proc): threads then spin */
}
