/* Links that are measured, on simulated ones whose figures are known. */
#include "dist/link_probe.h"
#include "dist/simulation/simulation.h"
#include "support/support.h"

typedef struct found {
    nd_link between, within;
    int ranks; /* that found the same */
} found;

static nd_status probe(nd_simulation *simulation, nd_comm *comm, void *context)
{
    found *f = context;
    nd_link between, within;
    (void)simulation;
    comm->overlap = true;
    ND_TRY(nd_links_probe(comm, &between, &within));
    if (!comm->overlap)
        return ND_FAIL(ND_EINTERNAL, "the comm no longer overlaps");
    if (f->ranks == 0) {
        f->between = between;
        f->within = within;
    }
    f->ranks += f->between.latency == between.latency && f->between.per_byte == between.per_byte &&
                f->within.latency == within.latency && f->within.per_byte == within.per_byte;
    return ND_OK;
}

static void check(int ranks, int hosts, nd_link between, nd_link within)
{
    const nd_simulated_machine machine = {
        .ranks = ranks, .hosts = hosts, .between = between, .within = within};
    found f = {0};
    nd_error_clear();
    cr_assert_eq(nd_simulation_run(&machine, probe, &f, NULL), ND_OK, "%s",
                 nd_error_get()->message);
    cr_assert_eq(f.ranks, ranks, "%d of %d ranks found the same", f.ranks, ranks);
    /* a short message takes both */
    const double measured[] = {f.between.latency, f.between.per_byte, f.within.latency,
                               f.within.per_byte};
    const double given[] = {between.latency + between.per_message, between.per_byte,
                            within.latency + within.per_message, within.per_byte};
    for (int i = 0; i < (ranks > hosts ? 4 : 2); i++)
        cr_assert_float_eq(measured[i] / given[i], 1.0, 0.1,
                           "%d ranks on %d hosts, %d: %g, given %g", ranks, hosts, i, measured[i],
                           given[i]);
    cr_assert_float_eq(f.between.per_message, between.per_message, 1e-6, "a part: %g, given %g",
                       f.between.per_message, between.per_message);
}

Test(link_probe, finds_latency_and_bandwidth_between_hosts_and_within_them)
{
    const nd_link slow = {50e-6, 8e-8, 0}, ethernet = {20e-6, 8e-10, 0}, fast = {5e-6, 2e-11, 0},
                  memory = {1e-6, 1e-10, 0};
    check(2, 2, ethernet, memory);
    check(4, 2, slow, memory);
    check(4, 2, ethernet, memory);
    check(24, 3, ethernet, memory);
    check(64, 8, fast, memory);
}

Test(link_probe, finds_what_a_part_costs_beside_its_bytes)
{
    const nd_link fast = {5e-6, 2e-10, 2e-5}, ethernet = {50e-6, 8e-9, 4e-5},
                  slow = {500e-6, 8e-7, 0.0};
    check(2, 2, fast, fast);
    check(3, 3, ethernet, ethernet);
    check(2, 2, slow, slow);
}
