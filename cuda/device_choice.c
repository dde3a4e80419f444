#include "device_choice.h"

#include <string.h>

static bool names_one(const char *visible)
{
    return visible && visible[0] && !strchr(visible, ',');
}

nd_status nd_choose_device(bool wanted, int devices, const char *visible, int local_rank,
                           int local_size, const char *reason, int *device)
{
    *device = -1;
    if (devices == 0 && wanted)
        return ND_FAIL(ND_ECONFIG,
                       "[hardware] target = cuda, but this host has no CUDA device: %s; use target "
                       "= cpu or auto",
                       reason);
    if (devices == 0)
        return ND_OK;
    if (devices == 1 && names_one(visible)) {
        *device = 0;
        return ND_OK;
    }
    if (local_size > devices)
        return ND_FAIL(ND_ECONFIG,
                       "%d ranks on this host, %d GPU%s: a rank needs a GPU of its own; start %d "
                       "rank%s on a host, or set [hardware] target = cpu",
                       local_size, devices, devices == 1 ? "" : "s", devices,
                       devices == 1 ? "" : "s");
    *device = local_rank;
    return ND_OK;
}
