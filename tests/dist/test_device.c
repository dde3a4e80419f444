#include "dist/device.h"
#include "support/support.h"

static nd_comm *solo(void)
{
    nd_comm *comm;
    ND_ASSERT_OK(nd_comm_create_solo(&comm));
    return comm;
}

Test(device, a_rank_that_is_to_use_the_cpu_gets_no_device)
{
    nd_comm *comm = solo();
    nd_backend *backend = (nd_backend *)comm; /* anything but NULL */
    ND_ASSERT_OK(
        nd_device_backend_create((nd_device_choice){.target = ND_TARGET_CPU}, comm, &backend));
    cr_assert(backend == NULL);
    nd_comm_destroy(comm);
}

Test(device, what_lies_in_host_memory_keeps_travelling_by_the_comm_itself)
{
    nd_comm *comm = solo();
    const nd_comm_ops before = comm->ops;
    nd_backend *cpu;
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 1}, &cpu));
    cr_assert_not(nd_device_owns(cpu));
    nd_comm_set_device(comm, cpu);
    ND_ASSERT_OK(nd_device_attach(comm));
    cr_assert(comm->ops.reduce_to_owners == before.reduce_to_owners);
    cr_assert(comm->ops.broadcast_device == before.broadcast_device);
    nd_device_detach(comm);
    cr_assert(comm->ops.reduce_to_owners == before.reduce_to_owners);
    nd_comm_destroy(comm);
    nd_backend_destroy(cpu);
}

/* NCCL with one rank waits, too: for its own calls. */
Test(device, a_comm_of_one_rank_has_the_default_timeout)
{
    nd_comm *comm = solo();
    cr_assert_eq(comm->timeout_seconds, (double)ND_COMM_TIMEOUT_DEFAULT);
    nd_comm_destroy(comm);
}
