/* The links of a job's hosts, as clocks: when what is sent has left and when it is there.
 *
 * A message of n bytes takes alpha + n beta seconds (Hockney, Parallel Computing 20, 1994) where nothing else is
 * on its way. Between hosts it passes the sending host's link out and the receiving host's link in, which all
 * ranks of a host share; within a host the port out of one rank and the port in of another. Each carries one
 * message at a time, in the order in which they ask, and the two directions do not disturb each other. Switches
 * hold what waits for a link in. */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

typedef struct nd_link {
    double latency;  /* alpha: seconds a message */
    double per_byte; /* beta: seconds a byte */
} nd_link;

typedef struct nd_links {
    int ranks, hosts; /* consecutive ranks share a host */
    nd_link between,
        within; /* of a host to all others, each way; of a rank to another of its host */
    double *port_out, *port_in; /* [ranks] when free */
    double *out, *in;           /* [hosts] when free */
    double *sent, *received;    /* [hosts] bytes to and from other hosts */
} nd_links;

/* All free at 0. Errors: ND_ENOMEM; ND_EINTERNAL where there are no ranks, or more hosts than ranks. */
nd_status nd_links_create(nd_link between, nd_link within, int ranks, int hosts, nd_links *links);
void nd_links_destroy(nd_links *links);

int nd_links_host(const nd_links *links, int rank);

/* Carries `bytes` that both ranks are ready for at `ready`. Ask in the order of `ready`. *away: when the sender has
 * nothing left to send; *here: when all has arrived. */
void nd_links_carry(nd_links *links, int from, int to, double bytes, double ready, double *away,
                    double *here);
