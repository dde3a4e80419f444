#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

void nd_cli_print_error(int rank)
{
    const nd_error *error = nd_error_get();
    if (error->status == ND_OK || error->message[0] == '\0')
        return;
    if (rank >= 0)
        fprintf(stderr, "nanochat_dist: rank %d: error: %s\n", rank, error->message);
    else
        fprintf(stderr, "nanochat_dist: error: %s\n", error->message);
    if (getenv("ND_TRACE"))
        fputs(error->trace, stderr);
    fflush(stderr);
}

nd_status nd_cli_flush_output(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return ND_OK;
    return ND_FAIL(ND_EIO, "cannot write to standard output%s%s", errno ? ": " : "",
                   errno ? strerror(errno) : "");
}

nd_status nd_cli_close_output(void)
{
    ND_TRY(nd_cli_flush_output());
    return ND_CHECK(fclose(stdout) == 0 || errno == EBADF, ND_EIO,
                    "cannot write to standard output: %s", strerror(errno));
}

void nd_cli_discard_output(void)
{
    __fpurge(stdout);
    clearerr(stdout);
}

nd_status nd_cli_shutdown(nd_comm *comm, nd_status status)
{
    const bool failed = status != ND_OK && status != ND_ESTOPPED;
    if (nd_comm_fails_alone(comm, status)) {
        nd_cli_print_error(comm->rank);
        comm->ops.abort(comm, nd_error_exit_code(status));
    }
    if (failed && comm->size > 1) {
        /* mpirun ends the job when the first rank exits, so all wait until rank 0 has printed the
         * shared error. */
        if (comm->rank == 0)
            nd_cli_print_error(-1);
        comm->ops.barrier(comm);
        nd_error_clear(); /* so that main does not print it again */
    }
    nd_comm_destroy(comm);
    return status;
}
