/* Messages between the fibers of a simulated job. */
#pragma once

#include "dist/simulation/fibers.h"
#include "dist/simulation/links.h"
#include "dist/simulation/simulation.h"
#include "dist/transport/transport.h"

typedef struct nd_simulated_endpoint nd_simulated_endpoint;

/* State shared by the ranks of a job. */
typedef struct nd_simulated_net {
    nd_simulated_machine machine;
    nd_fibers *fibers; /* not owned */
    nd_links links;
    nd_simulated_endpoint *ends; /* [ranks] messages in flight */
    bool aborted;
} nd_simulated_net;

/* Destroying frees links and ends, but not fibers. Errors: ND_ENOMEM, ND_EINTERNAL. */
nd_status nd_simulated_net_create(const nd_simulated_machine *machine, nd_simulated_net *net);
void nd_simulated_net_destroy(nd_simulated_net *net);

/* Creates the transport of comm->rank; its ops.destroy frees it. Errors: ND_ENOMEM. */
nd_status nd_transport_simulated_create(nd_simulated_net *net, nd_comm *comm,
                                        nd_transport **transport);
