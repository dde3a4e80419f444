/* The part of the machine that this process may use: the processors it is bound to, and what its control group
 * (versions 1 and 2) leaves it of processor time and memory. */
#pragma once

#include <stddef.h>

/* Limits of a control group and of all groups above it. */
typedef struct nd_cgroup {
    double processors;       /* its quota, in processors; INFINITY: none */
    int processor_set;       /* processors that its set holds; 0: not known */
    size_t memory_remaining; /* bytes before the tightest limit; SIZE_MAX: none */
} nd_cgroup;

/* `membership` has the lines of /proc/self/cgroup, `root` is where the groups' files are. What cannot be
 * read limits nothing. */
nd_cgroup nd_cgroup_read(const char *membership, const char *root);

/* The same of this process. */
nd_cgroup nd_cgroup_of_process(void);

/* What the choice of threads rests on. */
typedef struct nd_machine_share {
    int own_cores; /* that this process is bound to, hardware threads of one core counted once */
    int all_cores; /* of the processors that the ranks of this machine share */
    double processors; /* quota they share; INFINITY: none */
    int ranks;         /* on this machine */
    int omp_threads;   /* first number of OMP_NUM_THREADS; 0: not set, empty or no number */
} nd_machine_share;

/* OMP_NUM_THREADS where it says something, else an even share that this process can really run at once;
 * at least 1. */
int nd_machine_share_threads(const nd_machine_share *share);

/* The first number of a value of OMP_NUM_THREADS (NULL: not set); 0 when it is none from 1 to 4096. */
int nd_machine_omp_threads(const char *value);

/* The number of threads for this process, one of `ranks` on this machine. */
int nd_machine_threads(int ranks);
