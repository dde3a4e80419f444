/* Measures a job's links (dist/simulation/links.h) with messages between ranks. */
#pragma once

#include "dist/comm.h"
#include "dist/simulation/links.h"

/* Measures latency, time per byte and what a part of a long message costs beside its bytes (between
 * GPUs 0; so too where it would be lost in the noise), in memory of comm->device where the comm
 * sends from it (begin_exchange_device), else in host memory. *between: all ranks of a host send to
 * the next host at once and share its link. *within: each rank sends to another of its host; equal
 * to *between where hosts have one rank. Ranks of a host must be consecutive, comm->local_size on
 * every host. The result is the fastest of several rounds and the slowest of all ranks, the same on
 * all. Takes a few tenths of a second on links of at least 1 Gbit/s. Collective; no operation may
 * be in flight. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_links_probe(nd_comm *comm, nd_link *between, nd_link *within);
