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
    ND_FAIL_IF(
        devices == 0 && wanted, ND_ECONFIG,
        "[hardware] target = cuda, but this host has no CUDA device: %s; use target = cpu or auto",
        reason);
    if (devices == 0)
        return ND_OK;
    if (devices == 1 && names_one(visible)) {
        *device = 0;
        return ND_OK;
    }
    ND_FAIL_IF(local_size > devices, ND_ECONFIG,
               "%d ranks on this host, %d GPU%s: a rank needs a GPU of its own; start %d rank%s on "
               "a host, or set [hardware] target = cpu",
               local_size, devices, devices == 1 ? "" : "s", devices, devices == 1 ? "" : "s");
    *device = local_rank;
    return ND_OK;
}
