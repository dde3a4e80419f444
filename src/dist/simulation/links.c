#include "dist/simulation/links.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

nd_status nd_links_create(nd_link between, nd_link within, int ranks, int hosts, nd_links *links)
{
    memset(links, 0, sizeof *links);
    ND_FAIL_IF(hosts < 1 || ranks < hosts, ND_EINTERNAL, "%d ranks on %d hosts", ranks, hosts);
    double *clocks = calloc(2 * (size_t)ranks + 4 * (size_t)hosts, sizeof *clocks);
    ND_FAIL_IF(!clocks, ND_ENOMEM, "no memory for the links of %d ranks", ranks);
    *links = (nd_links){.ranks = ranks,
                        .hosts = hosts,
                        .between = between,
                        .within = within,
                        .port_out = clocks,
                        .port_in = clocks + ranks,
                        .out = clocks + 2 * (size_t)ranks,
                        .in = clocks + 2 * (size_t)ranks + hosts,
                        .sent = clocks + 2 * ((size_t)ranks + hosts),
                        .received = clocks + 2 * ((size_t)ranks + hosts) + hosts};
    return ND_OK;
}

void nd_links_destroy(nd_links *links)
{
    free(links->port_out);
    memset(links, 0, sizeof *links);
}

int nd_links_host(const nd_links *links, int rank)
{
    return (int)((int64_t)rank * links->hosts / links->ranks);
}

double nd_links_carry(nd_links *links, const nd_link_message *m, double ready, double *away,
                      double *here)
{
    const int a = nd_links_host(links, m->from), b = nd_links_host(links, m->to);
    const nd_link link = a == b ? links->within : links->between;
    const bool shorter = a != b && m->gradients && links->compressed > 0.0;
    const double takes =
        link.per_message + m->bytes * link.per_byte * (shorter ? links->compressed : 1.0);
    double *out = a == b ? &links->port_out[m->from] : &links->out[a];
    double *in = a == b ? &links->port_in[m->to] : &links->in[b];
    const double begin = fmax(ready, *out);
    *out = *away = begin + takes;
    *in = fmax(begin, *in) + takes;
    *here = *in + link.latency;
    if (a != b) {
        links->sent[a] += m->bytes;
        links->received[b] += m->bytes;
    }
    return takes;
}
