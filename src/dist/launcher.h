/* Which launcher started this process, and as one of how many, from environment variables. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <sys/types.h>

/* Whether a launcher started this process as one of several that MPI may join: mpirun (PRRTE), srun
 * with PMIx, or another MPI's process manager. */
bool nd_launcher_has_mpi(void);

/* "mpirun of Open MPI", "srun" ...; "none" when the process was started alone. Static storage. */
const char *nd_launcher_name(void);

/* The process that started this one: the nearest above it that is no rank's, as the shells of a
 * script around each rank are. 0: unknown. */
pid_t nd_launcher_process(void);

/* Checks that the launcher announced no more than the `size` processes that MPI joined; otherwise
 * each process would do the whole work alone, in the same directories. `library` names the MPI
 * library in the message. Not collective. Errors: ND_ECONFIG naming the launcher, its variable,
 * both numbers, and what to do. */
nd_status nd_launcher_check(int size, const char *library);
