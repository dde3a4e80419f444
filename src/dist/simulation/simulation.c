#include "dist/simulation/simulation.h"

#include "dist/comm_messages.h"
#include "dist/simulation/transport_simulated.h"

#include <stdlib.h>
#include <string.h>

struct nd_simulation {
    nd_simulated_net net;
    nd_simulated_rank main;
    void *context;
    nd_error error; /* of the rank that failed first */
    double end;
};

/* Knows the network of the running ranks, for nd_comm_ops.abort, which only gets the comm. */
typedef struct simulated_comm {
    nd_comm base;
    nd_simulated_net *net;
} simulated_comm;

static void abort_all(nd_comm *comm, int exit_code)
{
    (void)exit_code;
    ((simulated_comm *)comm)->net->aborted = true;
}

static nd_status create_comm(nd_simulation *s, int rank, nd_comm **comm)
{
    const nd_links *links = &s->net.links;
    nd_transport *transport = NULL;
    simulated_comm *made = calloc(1, sizeof *made);
    ND_FAIL_IF(!made, ND_ENOMEM, "no memory for the communicator of rank %d", rank);
    made->net = &s->net;
    made->base.rank = rank;
    made->base.size = links->ranks;
    made->base.host_ranks = links->ranks % links->hosts == 0 ? links->ranks / links->hosts : 0;
    for (int r = 0; r < links->ranks; r++)
        if (nd_links_host(links, r) == nd_links_host(links, rank)) {
            made->base.local_rank += r < rank;
            made->base.local_size++;
        }
    const nd_status status = nd_transport_simulated_create(&s->net, &made->base, &transport);
    if (status != ND_OK) {
        free(made);
        return status;
    }
    *comm = &made->base;
    return nd_comm_over_messages(*comm, "simulated", transport,
                                 (nd_comm_shutdown){.abort = abort_all});
}

static nd_status run_rank(nd_simulation *s, int rank)
{
    nd_comm *comm = NULL;
    ND_TRY(create_comm(s, rank, &comm));
    const nd_status status = s->main(s, comm, s->context);
    nd_comm_destroy(comm);
    return status;
}

static void fiber_main(void *context, int fiber)
{
    nd_simulation *s = context;
    const nd_status status = run_rank(s, fiber);
    const double now = nd_fibers_now(s->net.fibers);
    s->end = now > s->end ? now : s->end;
    if (status != ND_OK && s->error.status == ND_OK)
        s->error = *nd_error_get();
    nd_error_clear();
}

static void tell(const nd_simulation *s, nd_simulated_costs *costs)
{
    const size_t bytes = (size_t)s->net.links.hosts * sizeof(double);
    costs->seconds = s->end;
    if (costs->sent)
        memcpy(costs->sent, s->net.links.sent, bytes);
    if (costs->received)
        memcpy(costs->received, s->net.links.received, bytes);
}

nd_status nd_simulation_run(const nd_simulated_machine *machine, nd_simulated_rank main,
                            void *context, nd_simulated_costs *costs)
{
    nd_simulation *s = calloc(1, sizeof *s);
    ND_FAIL_IF(!s, ND_ENOMEM, "no memory for a simulation");
    s->main = main;
    s->context = context;
    nd_status status = nd_simulated_net_create(machine, &s->net);
    ND_IF_OK(nd_fibers_create(machine->ranks, fiber_main, s, &s->net.fibers));
    if (status == ND_OK) {
        nd_fibers_run(s->net.fibers);
        if (costs)
            tell(s, costs);
        status = s->error.status;
        if (status != ND_OK)
            nd_error_set(&s->error);
    }
    nd_fibers_destroy(s->net.fibers);
    nd_simulated_net_destroy(&s->net);
    free(s);
    return status;
}

double nd_simulation_now(const nd_simulation *s)
{
    return nd_fibers_now(s->net.fibers);
}

void nd_simulation_compute(nd_simulation *s, double seconds)
{
    nd_fibers_sleep(s->net.fibers, nd_fibers_now(s->net.fibers) + seconds);
}
