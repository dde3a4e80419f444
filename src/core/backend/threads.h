/* How many threads OpenMP takes: those of the part of the machine that this process may use. */
#pragma once

#include <sys/types.h>

/* What determines the number of threads. */
typedef struct nd_machine_share {
    int own_cores;     /* this process is bound to; hardware threads of a core count once */
    int all_cores;     /* shared by the ranks of this machine */
    double processors; /* quota shared by the ranks; INFINITY: none */
    int ranks;         /* on this machine */
    int omp_threads;   /* first number of OMP_NUM_THREADS; 0: not set or unusable */
} nd_machine_share;

/* OMP_NUM_THREADS if set, else an even share of the cores that this process can use; at least 1. */
int nd_machine_share_threads(const nd_machine_share *share);

/* The first number of a value of OMP_NUM_THREADS (NULL: not set); 0 unless it is 1 to 4096. */
int nd_machine_omp_threads(const char *value);

/* The number of threads for this process, one of `ranks` on this machine; at most OMP_THREAD_LIMIT.
 * `launcher`: the process that started the ranks; 0: unknown. */
int nd_machine_threads(int ranks, pid_t launcher);

/* OpenMP threads spin for milliseconds at each barrier before they sleep, which stalls ranks and
 * programs that share their cores (an evaluation beside other load took ten times as long). The
 * library reads its environment before main, so the program executes itself again with a limit,
 * unless the user has set OMP_WAIT_POLICY or GOMP_SPINCOUNT. To be called first in main. */
void nd_machine_limit_spinning(char **argv);
