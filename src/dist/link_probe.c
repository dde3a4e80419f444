#include "dist/link_probe.h"

#include "dist/transport/wire_sizes.h"

#include <math.h>
#include <stdlib.h>

enum {
    SHORT_ROUNDS = 8,
    LONG_ROUNDS = 2,
    DEVICE_ROUNDS = 16,
    TRIES = 3,
    SHORT = 8,
    LONG_MIN = 16 << 10,
    LONG_MAX = 4 << 20,
    DEVICE_LONG_MAX = 16 << 20,
    SHORT_PART = 16 << 10,
    PARTS_MIN = 40 /* whose time stands out from the noise */
};

/* Long compared with the resolution of the clock and the scheduler's time slice. */
static const double enough = 8e-3;

typedef struct probe {
    nd_comm *comm;
    nd_backend *device; /* whose memory is sent; NULL: the host's */
    size_t longest;
    void *memory; /* [2][longest] */
    double *all;  /* [ranks] */
} probe;

static nd_status take_memory(probe *p)
{
    p->all = calloc((size_t)p->comm->size, sizeof *p->all);
    if (p->device)
        ND_TRY(p->device->ops.allocate(p->device, 2 * p->longest, &p->memory));
    else
        p->memory = calloc(2, p->longest);
    return ND_CHECK(p->memory && p->all, ND_ENOMEM, "no memory to measure links");
}

static void release_memory(probe *p)
{
    if (p->device)
        p->device->ops.release(p->device, p->memory, 2 * p->longest);
    else
        free(p->memory);
    free(p->all);
}

static nd_status slowest(const probe *p, double mine, double *of_all)
{
    ND_TRY(p->comm->ops.allgather(p->comm, p->all, &mine, sizeof mine));
    *of_all = 0.0;
    for (int r = 0; r < p->comm->size; r++)
        *of_all = fmax(*of_all, p->all[r]);
    return ND_OK;
}

/* A device's messages are waited for after the `last` of a try: in a step they are enqueued ahead,
 * too, and the host sees late that they have ended. */
static nd_status exchange(const probe *p, const nd_comm_exchange *x, bool last)
{
    nd_comm *comm = p->comm;
    ND_TRY((p->device ? comm->ops.begin_exchange_device : comm->ops.begin_exchange)(comm, x));
    if (p->device && !last)
        return ND_OK;
    ND_TRY(comm->ops.finish(comm));
    return p->device ? p->device->ops.synchronize(p->device) : ND_OK;
}

/* Seconds to send `bytes` to one rank while receiving as many from another, averaged over rounds:
 * the fastest of TRIES, because the first ones include waiting for late ranks. */
static nd_status time_exchange(const probe *p, size_t bytes, int to, int from, double *seconds)
{
    nd_comm *comm = p->comm;
    char *in = (char *)p->memory + p->longest;
    const nd_comm_exchange x = {p->memory, bytes, to, in, bytes, from};
    const int rounds = p->device ? DEVICE_ROUNDS : bytes == SHORT ? SHORT_ROUNDS : LONG_ROUNDS;
    double fastest = INFINITY, before = 0.0;
    for (int i = 0; i <= TRIES * rounds; i++) {
        if (i % rounds == 1)
            before = comm->wait_seconds;
        ND_TRY(exchange(p, &x, i % rounds == 0));
        if (i > 0 && i % rounds == 0)
            fastest = fmin(fastest, (comm->wait_seconds - before) / rounds);
    }
    return slowest(p, fastest, seconds);
}

/* Seconds that a part takes beside its bytes: what `bytes` bytes take longer in SHORT_PART bytes
 * than the `whole` time. */
static nd_status time_part(const probe *p, size_t bytes, int to, int from, double whole,
                           double *seconds)
{
    nd_comm *comm = p->comm;
    const size_t parts = comm->part_bytes, usual = nd_wire_part_bytes(comm);
    const int64_t more = nd_wire_parts(bytes, SHORT_PART) - nd_wire_parts(bytes, usual);
    double shorter;
    *seconds = 0.0;
    if (p->device || more < PARTS_MIN)
        return ND_OK;
    comm->part_bytes = SHORT_PART;
    const nd_status status = time_exchange(p, bytes, to, from, &shorter);
    comm->part_bytes = parts;
    *seconds = status == ND_OK ? fmax(0.0, (shorter - whole) / (double)more) : 0.0;
    return status;
}

/* `sharing` ranks share the link. */
static nd_status time_link(const probe *p, int to, int from, int sharing, nd_link *link)
{
    double first, longest = 0.0;
    size_t bytes = LONG_MIN;
    ND_TRY(time_exchange(p, SHORT, to, from, &first));
    for (;; bytes *= 4) {
        ND_TRY(time_exchange(p, bytes, to, from, &longest));
        if (longest - first >= enough || bytes == p->longest)
            break;
    }
    double part;
    ND_TRY(time_part(p, bytes, to, from, longest, &part));
    const double parts = (double)nd_wire_parts(bytes, nd_wire_part_bytes(p->comm)) * part;
    link->latency = first;
    link->per_message = part / sharing;
    link->per_byte = fmax(longest - first - parts, 1e-9) / ((double)bytes * sharing);
    return ND_OK;
}

nd_status nd_links_probe(nd_comm *comm, nd_link *between, nd_link *within)
{
    const int local = comm->local_size, first = comm->rank - comm->local_rank;
    const bool overlap = comm->overlap;
    probe p = {.comm = comm, .device = comm->ops.begin_exchange_device ? comm->device : NULL};
    p.longest = p.device ? DEVICE_LONG_MAX : LONG_MAX;
    comm->overlap = false; /* the caller's own time is measured */
    nd_status status = take_memory(&p);
    ND_IF_OK(time_link(&p, (comm->rank + local) % comm->size,
                       (comm->rank + comm->size - local) % comm->size, local, between));
    if (status == ND_OK)
        *within = *between;
    if (local > 1)
        ND_IF_OK(time_link(&p, first + (comm->local_rank + 1) % local,
                           first + (comm->local_rank + local - 1) % local, 1, within));
    comm->overlap = overlap;
    release_memory(&p);
    return status;
}
