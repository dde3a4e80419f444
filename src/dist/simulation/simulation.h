/* A whole job simulated in one process: the third implementation of the comm contract. Every rank
 * is a fiber (dist/simulation/fibers.h); messages go through memory, and their time is that of the
 * modelled links (dist/simulation/links.h). Everything above the transport is the code that runs
 * under MPI.
 *
 * A send is delayed until its receive has started, as MPI may do, too, so that code which relies on
 * MPI's internal buffers deadlocks here. A deadlock is reported at once as ND_EPEER. */
#pragma once

#include "dist/comm.h"
#include "dist/simulation/links.h"

typedef struct nd_simulated_machine {
    int ranks, hosts;        /* as in nd_links */
    nd_link between, within; /* as in nd_links */
    double compressed;       /* as in nd_links */
    double add_per_byte;     /* seconds to add a received byte in a reduction */
    double delay; /* each rank pauses for a random time up to this after each message, in seconds */
    uint64_t seed; /* of the random pauses */
} nd_simulated_machine;

/* The costs of a run. */
typedef struct nd_simulated_costs {
    double seconds; /* until the last rank was finished */
    /* in: [hosts] or NULL. Bytes from and to other hosts, including parts of barriers */
    double *sent, *received;
} nd_simulated_costs;

typedef struct nd_simulation nd_simulation;

/* The function that a rank runs; its error is the error of the run. */
typedef nd_status (*nd_simulated_rank)(nd_simulation *simulation, nd_comm *comm, void *context);

/* Runs `main` once on every rank and returns when all have returned. `costs` may be NULL. Errors:
 * that of the rank that failed first; ND_ENOMEM; ND_EINTERNAL when ranks and hosts do not match. */
nd_status nd_simulation_run(const nd_simulated_machine *machine, nd_simulated_rank main,
                            void *context, nd_simulated_costs *costs);

/* Called by a rank: its clock in seconds; and letting some pass as if computing. */
double nd_simulation_now(const nd_simulation *simulation);
void nd_simulation_compute(nd_simulation *simulation, double seconds);
