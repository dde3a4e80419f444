/* Simulated jobs of tests: from one rank to 1024. */
#pragma once

#include "dist/simulation/simulation.h"
#include "support/support.h"

static const int sizes[] = {1, 2, 3, 8, 64, 1024};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* 100 Gbit/s and 5 us between hosts of eight ranks, ten times as fast within. */
static inline nd_simulated_machine machine_of(int ranks)
{
    return (nd_simulated_machine){.ranks = ranks,
                                  .hosts = (ranks + 7) / 8,
                                  .between = {5e-6, 8e-11},
                                  .within = {1e-6, 8e-12},
                                  .add_per_byte = 1e-12};
}

static inline void run(const nd_simulated_machine *machine, nd_simulated_rank main, void *context,
                       nd_simulated_costs *costs)
{
    nd_error_clear();
    const nd_status status = nd_simulation_run(machine, main, context, costs);
    cr_assert_eq(status, ND_OK, "%d ranks: %s\n%s", machine->ranks, nd_error_get()->message,
                 nd_error_get()->trace);
}
