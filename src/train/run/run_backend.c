#include "train/run/run_backend.h"

#include "core/backend/threads.h"
#include "dist/device.h"
#include "dist/launcher.h"

#include <stdlib.h>

nd_status nd_run_create_backend(const nd_config *config, const nd_comm *comm, nd_backend **backend)
{
    const nd_device_choice choice = {(nd_target)config->hardware.target,
                                     (nd_attention_choice)config->hardware.attention_backend};
    ND_TRY(nd_device_backend_create(choice, comm, backend));
    if (*backend)
        return ND_OK;
    const nd_cpu_backend_options options = {
        .threads = config->hardware.threads > 0
                       ? (int)config->hardware.threads
                       : nd_machine_threads(comm->local_size, nd_launcher_process()),
        .isa = (nd_cpu_isa)config->hardware.cpu_isa,
    };
    return nd_cpu_backend_create(&options, backend);
}

nd_status nd_run_share_traits(nd_comm *comm, nd_backend *backend)
{
    nd_backend_traits *t = &backend->traits;
    const bool on_host = backend->ops.host_memory;
    const bool mine[] = {t->fast_bf16, t->fast_int8_gradients, on_host};
    ND_AUTOFREE bool(*all)[3] = calloc((size_t)comm->size, sizeof mine);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for the traits of %d ranks", comm->size);
    ND_TRY(comm->ops.allgather(comm, all, mine, sizeof mine));
    for (int r = 0; r < comm->size; r++) {
        t->fast_bf16 &= all[r][0];
        t->fast_int8_gradients &= all[r][1];
        ND_FAIL_IF(all[r][2] != on_host, ND_ECONFIG,
                   "rank %d computes on a %s and rank %d on a %s; set [hardware] target to cpu or "
                   "cuda",
                   comm->rank, on_host ? "CPU" : "GPU", r, on_host ? "GPU" : "CPU");
    }
    return ND_OK;
}

void nd_run_resolve_precision(nd_config *config, const nd_backend *backend)
{
    const bool gpu = config->hardware.target == ND_TARGET_CUDA; /* be it in a plan, on a CPU */
    const bool bf16 = gpu || backend->traits.fast_bf16;
    const bool int8 = gpu || backend->traits.fast_int8_gradients;
    if (config->hardware.precision == ND_PRECISION_AUTO)
        config->hardware.precision = bf16 ? ND_PRECISION_BF16 : ND_PRECISION_FP32;
    if (config->hardware.backward_precision == ND_BACKWARD_AUTO)
        config->hardware.backward_precision =
            int8 && config->model.group_size == 0 ? ND_BACKWARD_INT8 : ND_BACKWARD_SAME;
}
