#include "train/fault_points.h"

#if ND_FAULT_POINTS
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The next fault in ND_FAULT from *at on. */
static bool next_fault(const char **at, char fault[128])
{
    if (!*at || !**at)
        return false;
    const size_t length = strcspn(*at, ",");
    snprintf(fault, 128, "%.*s", (int)length, *at);
    *at += length + ((*at)[length] == ',');
    return true;
}

static bool fault_of(int at_rank, int64_t at_step, const char *kind, const char *point)
{
    const char *at = getenv("ND_FAULT");
    char fault[128], what[16], where[32];
    long long step, rank;
    while (next_fault(&at, fault))
        if (sscanf(fault, "%15[a-z]@%31[a-z_]:step=%lld:rank=%lld", what, where, &step, &rank) ==
                4 &&
            strcmp(what, kind) == 0 && strcmp(where, point) == 0 && step == at_step &&
            rank == at_rank)
            return true;
    return false;
}

bool nd_fault_requested(const nd_comm *comm, const char *kind, const char *point)
{
    return fault_of(comm->rank, comm->step, kind, point);
}

static _Thread_local double slept; /* seconds */

static void take(useconds_t microseconds)
{
    usleep(microseconds);
    slept += 1e-6 * microseconds;
}

double nd_fault_seconds(const nd_comm *comm)
{
    const char *faults = getenv("ND_FAULT");
    struct timespec used;
    if (!faults || !strstr(faults, "clock@processor"))
        return nd_seconds();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec + slept + comm->wait_seconds;
}

void nd_fault_point_of(int rank, int64_t step, const char *point)
{
    if (fault_of(rank, step, "kill", point))
        kill(getpid(), SIGKILL);
    if (fault_of(rank, step, "stop", point))
        kill(getpid(), SIGSTOP);
    if (fault_of(rank, step, "slow", point))
        take(50000);
    if (fault_of(rank, step, "slower", point))
        take(200000);
}

void nd_fault_point(const nd_comm *comm, const char *point)
{
    nd_fault_point_of(comm->rank, comm->step, point);
}

double nd_fault_value(const char *name, int64_t first_sample, int64_t samples, double value,
                      double spike)
{
    const char *at = getenv("ND_FAULT");
    char fault[128], kind[16], wanted[32];
    long long first, last;
    while (next_fault(&at, fault))
        if (sscanf(fault, "%15[a-z]@%31[a-z_]:samples=%lld-%lld", kind, wanted, &first, &last) ==
                4 &&
            strcmp(wanted, name) == 0 && first_sample <= last && first_sample + samples > first)
            return strcmp(kind, "nan") == 0 ? (double)NAN : value + spike;
    return value;
}
#else
/* ISO C forbids an empty file. */
typedef int nd_fault_points_are_off;
#endif
