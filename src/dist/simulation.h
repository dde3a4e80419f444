/* A whole job in one process: the third implementation of the comm contract. Every rank is a fiber
 * (dist/fibers.h), messages go through memory, and their time passes on the clocks of hosts' links
 * (dist/links.h). Above the transport it is the code that runs under MPI.
 *
 * A send is held back until its receive is started, which MPI may do too: what depends on the buffers of an MPI
 * library stands still here. Ranks that wait for each other without end fail with ND_EPEER, at once. */
#pragma once

#include "dist/comm.h"
#include "dist/links.h"

typedef struct nd_simulated_machine {
    int ranks, hosts;        /* as in nd_links */
    nd_link between, within; /* likewise */
    double add_per_byte;     /* seconds to add a byte that arrived in a reduction */
    double delay;  /* after each message a rank stands still for up to so many seconds ... */
    uint64_t seed; /* ... at random */
} nd_simulated_machine;

/* What a run took. */
typedef struct nd_simulated_costs {
    double seconds; /* until the last rank was done */
    double *sent,
        *received; /* in: [hosts] or NULL. Bytes of each host to and from others, parts of barriers
                                too */
} nd_simulated_costs;

typedef struct nd_simulation nd_simulation;

/* What a rank does; its error is that of the run. */
typedef nd_status (*nd_simulated_rank)(nd_simulation *simulation, nd_comm *comm, void *context);

/* Runs `main` once on every rank, and returns when all have returned. `costs` may be NULL. Errors: of the rank that
 * failed first; ND_ENOMEM; ND_EINTERNAL for ranks and hosts that do not fit each other. */
nd_status nd_simulation_run(const nd_simulated_machine *machine, nd_simulated_rank main,
                            void *context, nd_simulated_costs *costs);

/* Of the rank that calls it: its clock, and so many seconds of computing. */
double nd_simulation_now(const nd_simulation *simulation);
void nd_simulation_compute(nd_simulation *simulation, double seconds);
