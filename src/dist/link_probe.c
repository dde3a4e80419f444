#include "dist/link_probe.h"

#include <math.h>
#include <stdlib.h>

enum {
    SHORT_ROUNDS = 8,
    LONG_ROUNDS = 2,
    TRIES = 3,
    SHORT = 8,
    LONG_MIN = 16 << 10,
    LONG_MAX = 4 << 20
};

/* Long compared with the resolution of the clock and the scheduler's time slice. */
static const double enough = 8e-3;

typedef struct probe {
    nd_comm *comm;
    char *memory; /* [2][LONG_MAX] */
    double *all;  /* [ranks] */
} probe;

static nd_status slowest(const probe *p, double mine, double *of_all)
{
    ND_TRY(p->comm->ops.allgather(p->comm, p->all, &mine, sizeof mine));
    *of_all = 0.0;
    for (int r = 0; r < p->comm->size; r++)
        *of_all = fmax(*of_all, p->all[r]);
    return ND_OK;
}

/* Seconds to send `bytes` to one rank while receiving as many from another, averaged over `rounds`:
 * the fastest of TRIES, because the first ones include waiting for late ranks. */
static nd_status time_exchange(const probe *p, size_t bytes, int to, int from, int rounds,
                               double *seconds)
{
    nd_comm *comm = p->comm;
    const nd_comm_exchange x = {p->memory, bytes, to, p->memory + LONG_MAX, bytes, from};
    double fastest = INFINITY, before = 0.0;
    for (int i = 0; i <= TRIES * rounds; i++) {
        if (i % rounds == 1)
            before = comm->wait_seconds;
        ND_TRY(comm->ops.begin_exchange(comm, &x));
        ND_TRY(comm->ops.finish(comm));
        if (i > 0 && i % rounds == 0)
            fastest = fmin(fastest, (comm->wait_seconds - before) / rounds);
    }
    return slowest(p, fastest, seconds);
}

/* `sharing` ranks share the link. */
static nd_status time_link(const probe *p, int to, int from, int sharing, nd_link *link)
{
    double first, longest = 0.0;
    size_t bytes = LONG_MIN;
    ND_TRY(time_exchange(p, SHORT, to, from, SHORT_ROUNDS, &first));
    for (;; bytes *= 4) {
        ND_TRY(time_exchange(p, bytes, to, from, LONG_ROUNDS, &longest));
        if (longest - first >= enough || bytes == LONG_MAX)
            break;
    }
    link->latency = first;
    link->per_byte = fmax(longest - first, 1e-9) / ((double)bytes * sharing);
    return ND_OK;
}

nd_status nd_links_probe(nd_comm *comm, nd_link *between, nd_link *within)
{
    const int local = comm->local_size, first = comm->rank - comm->local_rank;
    const bool overlap = comm->overlap;
    probe p = {.comm = comm,
               .memory = calloc(2, LONG_MAX),
               .all = calloc((size_t)comm->size, sizeof *p.all)};
    nd_status status = ND_OK;
    comm->overlap = false; /* the caller's own time is measured */
    if (!p.memory || !p.all)
        status = ND_FAIL(ND_ENOMEM, "no memory to measure links");
    ND_TRY_GOTO(status, done);
    ND_TRY_GOTO(time_link(&p, (comm->rank + local) % comm->size,
                          (comm->rank + comm->size - local) % comm->size, local, between),
                done);
    *within = *between;
    if (local > 1)
        ND_TRY_GOTO(time_link(&p, first + (comm->local_rank + 1) % local,
                              first + (comm->local_rank + local - 1) % local, 1, within),
                    done);
done:
    comm->overlap = overlap;
    free(p.memory);
    free(p.all);
    return status;
}
