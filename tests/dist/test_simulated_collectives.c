/* The collectives of the comm contract, but for sums, among up to 1024 simulated ranks. */
#include "dist/transport/wire_sizes.h"
#include "simulated_jobs.h"

#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = 256 };

static char byte_at(size_t i, int rank)
{
    return (char)(i * 31 + i / 4096 + (size_t)rank * 7);
}

static nd_status check_broadcast(nd_comm *comm, size_t bytes, int root)
{
    char *data = calloc(1, bytes + 1);
    for (size_t i = 0; comm->rank == root && i < bytes; i++)
        data[i] = byte_at(i, root);
    ND_TRY(comm->ops.broadcast(comm, data, bytes, root));
    for (size_t i = 0; i < bytes; i++)
        ND_HOLDS(data[i] == byte_at(i, root));
    free(data);
    return ND_OK;
}

static nd_status check_allgather(nd_comm *comm, size_t bytes)
{
    char *mine = malloc(bytes), *all = malloc(bytes * (size_t)comm->size);
    for (size_t i = 0; i < bytes; i++)
        mine[i] = byte_at(i, comm->rank);
    ND_TRY(comm->ops.allgather(comm, all, mine, bytes));
    for (int r = 0; r < comm->size; r++)
        for (size_t i = 0; i < bytes; i += 1 + bytes / 97)
            ND_HOLDS(all[(size_t)r * bytes + i] == byte_at(i, r));
    free(mine);
    free(all);
    return ND_OK;
}

static nd_status check_gather(nd_comm *comm, int root)
{
    const int size = comm->size;
    size_t *bytes = calloc((size_t)size, sizeof *bytes), total = 0;
    for (int r = 0; r < size; r++)
        total += bytes[r] = (size_t)(r % 3) * 11;
    char mine[22], *all = malloc(total + 1), *at = all;
    for (size_t i = 0; i < bytes[comm->rank]; i++)
        mine[i] = byte_at(i, comm->rank);
    ND_TRY(comm->ops.gather(comm, all, mine, bytes, root));
    for (int r = 0; comm->rank == root && r < size; at += bytes[r++])
        for (size_t i = 0; i < bytes[r]; i++)
            ND_HOLDS(at[i] == byte_at(i, r));
    free(bytes);
    free(all);
    return ND_OK;
}

/* Bytes of all lengths, none too, from ranks in no order. */
static nd_status check_broadcast_each(nd_comm *comm, size_t unit)
{
    const int size = comm->size;
    void **buffers = calloc((size_t)size, sizeof *buffers);
    size_t *bytes = calloc((size_t)size, sizeof *bytes);
    for (int r = 0; r < size; r++) {
        bytes[r] = (size_t)(r * 5 % 7) * unit;
        buffers[r] = malloc(bytes[r] + 1);
        for (size_t i = 0; r == comm->rank && i < bytes[r]; i++)
            ((char *)buffers[r])[i] = byte_at(i, r);
    }
    const uint64_t before = comm->bytes_sent;
    ND_TRY(nd_comm_broadcast_each(comm, buffers, bytes));
    size_t total = 0;
    for (int r = 0; r < size; r++) {
        for (size_t i = 0; i < bytes[r]; i++)
            ND_HOLDS(((char *)buffers[r])[i] == byte_at(i, r));
        total += bytes[r];
        free(buffers[r]);
    }
    ND_HOLDS(comm->bytes_sent - before == (size > 1 ? total - bytes[(comm->rank + 1) % size] : 0));
    free(buffers);
    free(bytes);
    return ND_OK;
}

static nd_status check_collectives(nd_simulation *simulation, nd_comm *comm, void *context)
{
    (void)simulation, (void)context;
    const int last = comm->size - 1;
    ND_TRY(comm->ops.barrier(comm));
    ND_TRY(check_broadcast(comm, 0, 0));
    ND_TRY(check_broadcast(comm, 5000, last / 2));
    if (comm->size <= 64)
        ND_TRY(check_broadcast(comm, (size_t)5 * ND_WIRE_PART_BYTES + 77, last));
    ND_TRY(check_allgather(comm, 16));
    if (comm->size <= 64)
        ND_TRY(check_allgather(comm, ND_WIRE_RING_BYTES + 3));
    ND_TRY(check_gather(comm, last));
    ND_TRY(check_broadcast_each(comm, 11));
    if (comm->size <= 8)
        ND_TRY(check_broadcast_each(comm, 2 * ND_WIRE_PART_BYTES + 1));
    comm->part_bytes = PART_BYTES;
    if (comm->size <= 64)
        ND_TRY(check_broadcast_each(comm, 500));
    return comm->ops.barrier(comm);
}

Test(simulated_collectives, collectives_hold_their_contract_on_1_to_1024_ranks)
{
    for (int i = 0; i < SIZES; i++) {
        nd_simulated_machine machine = machine_of(sizes[i]);
        run(&machine, check_collectives, NULL, NULL);
        machine.delay = 1e-4;
        run(&machine, check_collectives, NULL, NULL);
    }
}

static nd_status time_one_message(nd_simulation *simulation, nd_comm *comm, void *context)
{
    char data[1000] = "";
    nd_simulation_compute(simulation, comm->rank == 0 ? 2.0 : 1.0);
    ND_TRY(comm->ops.broadcast(comm, data, sizeof data, 0));
    *(double *)context += comm->rank == 1 ? nd_simulation_now(simulation) : 0.0;
    ND_HOLDS(comm->rank == 0 || comm->wait_seconds > 2.0);
    return ND_OK;
}

/* The receiver has waited since 1 s, the sender comes at 2 s: 1 s of latency and 1 ms a byte. */
Test(simulated_collectives, a_message_takes_latency_and_bytes_from_when_both_ranks_are_there)
{
    double took = 0.0, sent[2], received[2];
    nd_simulated_costs costs = {.sent = sent, .received = received};
    const nd_simulated_machine machine = {
        .ranks = 2, .hosts = 2, .between = {1.0, 1e-3}, .within = {1e-6, 1e-9}};
    run(&machine, time_one_message, &took, &costs);
    cr_assert_float_eq(took, 4.0, 1e-9, "%g", took);
    cr_assert_float_eq(costs.seconds, 4.0, 1e-9);
    cr_assert_eq(sent[0], 1000);
    cr_assert_eq(received[1], 1000);
    cr_assert_eq(sent[1] + received[0], 0);
}

static nd_status leave_early(nd_simulation *simulation, nd_comm *comm, void *context)
{
    (void)simulation, (void)context;
    nd_comm_set_phase(comm, 12, "reduce");
    return comm->rank == 5 ? ND_OK : comm->ops.barrier(comm);
}

Test(simulated_collectives, ranks_that_wait_for_one_that_has_ended_fail_and_name_it)
{
    const nd_simulated_machine machine = machine_of(8);
    cr_assert_eq(nd_simulation_run(&machine, leave_early, NULL, NULL), ND_EPEER);
    const char *message = nd_error_get()->message;
    cr_assert(strstr(message, "in step 12, phase reduce, waits for rank") != NULL, "%s", message);
    cr_assert(strstr(message, "in a barrier") != NULL, "%s", message);
    nd_error_clear();
}

static nd_status differ(nd_simulation *simulation, nd_comm *comm, void *context)
{
    char data[8] = "";
    (void)simulation, (void)context;
    return comm->rank == 1 ? comm->ops.broadcast(comm, data, 7, 0)
                           : comm->ops.broadcast(comm, data, 8, 0);
}

Test(simulated_collectives, a_message_of_another_length_is_refused)
{
    const nd_simulated_machine machine = machine_of(2);
    cr_assert_eq(nd_simulation_run(&machine, differ, NULL, NULL), ND_EPEER);
    cr_assert(strstr(nd_error_get()->message, "8 bytes arrived, 7 were expected") != NULL, "%s",
              nd_error_get()->message);
    nd_error_clear();
}

Test(simulated_collectives, more_hosts_than_ranks_are_refused)
{
    const nd_simulated_machine machine = {.ranks = 2, .hosts = 3};
    cr_assert_eq(nd_simulation_run(&machine, differ, NULL, NULL), ND_EINTERNAL);
    nd_error_clear();
}
