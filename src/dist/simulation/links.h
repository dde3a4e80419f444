/* A model of the links between a job's hosts: when a message has left and when it arrives.
 *
 * A message of n bytes takes alpha + n beta seconds (Hockney, Parallel Computing 20, 1994) on idle
 * links, and occupies them for n beta. Between hosts it passes the outgoing link of the sending
 * host and the incoming link of the receiving host, which all ranks of a host share; within a host
 * it passes the sender's outgoing and the receiver's incoming port. Each carries one message at a
 * time, in the order of requests, and the two directions are independent. Switches buffer what
 * waits for an incoming link. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_link {
    double latency;  /* alpha: seconds per message */
    double per_byte; /* beta: seconds per byte */
    /* seconds for which a message occupies the link beside its bytes; 0 in Hockney's model */
    double per_message;
} nd_link;

typedef struct nd_links {
    int ranks, hosts; /* consecutive ranks share a host */
    nd_link between;  /* of a host to all others, in each direction */
    nd_link within;   /* of a rank to another on its host */
    /* time between hosts of compressed gradients over that of as many other bytes; 0 where none are
     * compressed, as nd_links_create leaves it */
    double compressed;
    double *port_out, *port_in; /* [ranks] time when each becomes free */
    double *out, *in;           /* [hosts] time when each becomes free */
    double *sent, *received;    /* [hosts] bytes to and from other hosts */
} nd_links;

/* Creates idle links at time 0; nd_links_destroy frees them. Errors: ND_ENOMEM; ND_EINTERNAL when
 * there are no ranks, or more hosts than ranks. */
nd_status nd_links_create(nd_link between, nd_link within, int ranks, int hosts, nd_links *links);
void nd_links_destroy(nd_links *links);

int nd_links_host(const nd_links *links, int rank);

/* A message of `bytes` bytes from one rank to another. */
typedef struct nd_link_message {
    int from, to;
    double bytes;
    bool gradients; /* of a reduction */
} nd_link_message;

/* Carries a message for which both ranks are ready at time `ready`; call in the order of `ready`.
 * *away: when the sender is free; *here: when all bytes have arrived. Returns the seconds for which
 * the message occupies each link. */
double nd_links_carry(nd_links *links, const nd_link_message *message, double ready, double *away,
                      double *here);
