/* How fast a job's links are (dist/links.h), by messages that ranks send each other before anything else. */
#pragma once

#include "dist/comm.h"
#include "dist/links.h"

/* Ranks of a host are consecutive, and every host has comm->local_size of them. *between: all ranks of a host send to
 * the next host at once and share its link; *within: each rank sends to another of its host, and where a host has one
 * rank it is *between. Of several rounds the fastest counts, and of all ranks the slowest: the same on all. Takes
 * a few tenths of a second on links from 1 Gbit/s on. Collective; nothing may be begun. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_links_probe(nd_comm *comm, nd_link *between, nd_link *within);
