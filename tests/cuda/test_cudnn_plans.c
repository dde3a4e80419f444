/* The graphs of attention before the real cuDNN, for GPUs that are described and not there: the
 * library compiles its kernels and finishes the plans. Skipped where the library is missing.
 * Nothing is run. */
#include "support/support.h"

#include "cudnn_attention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cudnn_plans, .timeout = 300);

/* As cuDNN describes a device; what differs between devices is filled in. */
static const char DESCRIPTION[] =
    "{\"deviceName\":\"%s\",\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,"
    "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
    "\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"warpSize\":32,"
    "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":%d,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"smClockRateKHz\":1700000,\"memClockRateKHz\":2000000,"
    "\"l2CacheSize\":52428800,\"totalGlobalMem\":85000000000}";

typedef struct gpu {
    const char *name;
    int capability, multiprocessors, shared, blocks, threads;
} gpu;

static const gpu h100 = {"NVIDIA H100 80GB HBM3", 90, 132, 232448, 32, 2048};
static const gpu a100 = {"NVIDIA A100-SXM4-80GB", 80, 108, 166912, 32, 2048};
static const gpu l40s = {"NVIDIA L40S", 89, 142, 101376, 24, 1536};

/* NULL, after a line that says why, where cuDNN cannot be opened. */
static nd_cudnn *described(const gpu *d)
{
    char json[1024];
    nd_cudnn *cudnn = NULL;
    snprintf(json, sizeof json, DESCRIPTION, d->name, 10 * d->capability, d->multiprocessors,
             d->shared, d->blocks, d->threads);
    nd_error_clear();
    if (nd_cudnn_create_described(json, d->capability, &cudnn) == ND_OK)
        return cudnn;
    cr_assert(strstr(nd_error_get()->message, "cannot be opened") != NULL ||
                  strstr(nd_error_get()->message, "too old") != NULL,
              "%s", nd_error_get()->message);
    cr_skip_test("%s", nd_error_get()->message);
    return NULL;
}

/* Both directions of a shape have plans on a device, the second within `mib` MiB of workspace. */
static void check_plans(nd_cudnn *cudnn, const gpu *d, nd_cudnn_shape s, double mib)
{
    for (int backward = 0; backward < 2; backward++) {
        nd_cudnn_plan *plan = NULL, *again = NULL;
        s.backward = backward;
        ND_ASSERT_OK(nd_cudnn_plan_for(cudnn, &s, &plan));
        const char *reason = nd_cudnn_plan_reason(plan);
        cr_assert(reason == NULL, "%s, %lld x %lld, head_dim %lld: %s", d->name,
                  (long long)s.sequences, (long long)s.length, (long long)s.head_dim, reason);
        const double taken = (double)nd_cudnn_plan_workspace(plan) / 1048576.0;
        cr_log_info("%s %s %lld x %lld, %lld heads over %lld of %lld: engine %lld, %zu bytes\n",
                    d->name, backward ? "backward" : "forward", (long long)s.sequences,
                    (long long)s.length, (long long)s.heads, (long long)s.kv_heads,
                    (long long)s.head_dim, (long long)nd_cudnn_plan_engine(plan),
                    nd_cudnn_plan_workspace(plan));
        cr_assert(taken <= (backward ? mib : 1.0), "%g MiB", taken);
        ND_ASSERT_OK(nd_cudnn_plan_for(cudnn, &s, &again));
        cr_assert(plan == again && plan == nd_cudnn_plan_known(cudnn, &s));
    }
}

static void check_device(const gpu *d)
{
    nd_cudnn *cudnn = described(d);
    check_plans(cudnn, d, (nd_cudnn_shape){8, 2048, 16, 4, 64, false}, 300.0); /* E3 */
    check_plans(cudnn, d, (nd_cudnn_shape){4, 2048, 32, 8, 128, false}, 300.0);
    if (d == &h100) {
        check_plans(cudnn, d, (nd_cudnn_shape){2, 200, 6, 6, 96, false}, 4.0);
        check_plans(cudnn, d, (nd_cudnn_shape){2, 17, 4, 2, 16, false}, 1.0);
    }
    nd_cudnn_destroy(cudnn);
}

Test(cudnn_plans, are_finished_for_an_h100)
{
    check_device(&h100);
}

Test(cudnn_plans, are_finished_for_an_a100)
{
    check_device(&a100);
}

Test(cudnn_plans, are_finished_for_an_l40s)
{
    check_device(&l40s);
}

Test(cudnn_plans, a_shape_that_is_refused_has_a_reason)
{
    nd_cudnn *cudnn = described(&h100);
    nd_cudnn_plan *plan = NULL;
    const nd_cudnn_shape odd = {2, 64, 4, 4, 12, false}, long_one = {1, 16384, 32, 4, 128, true};
    ND_ASSERT_OK(nd_cudnn_plan_for(cudnn, &odd, &plan));
    cr_assert_str_eq(nd_cudnn_plan_reason(plan), "head_dim is not a multiple of 8");
    ND_ASSERT_OK(nd_cudnn_plan_for(cudnn, &long_one, &plan));
    cr_assert_str_eq(nd_cudnn_plan_reason(plan),
                     "so long a sequence takes more workspace than the 256 MiB allowed");
    nd_cudnn_destroy(cudnn);
}

Test(cudnn_plans, what_a_version_refuses_on_a_device_is_known_without_asking_it)
{
    static const struct {
        int64_t version;
        int capability;
        nd_cudnn_shape shape;
        const char *reason; /* NULL: nothing stands against it */
    } rows[] = {
        {91900, 90, {2, 64, 4, 2, 64, true}, NULL},
        {91900, 75, {2, 64, 4, 2, 64, false}, "no tensor cores"},
        {91900, 90, {2, 64, 4, 2, 20, false}, "multiple of 8"},
        {91900, 90, {2, 64, 4, 2, 256, true}, NULL},
        {91900, 80, {2, 64, 4, 2, 256, false}, "too large"},
        {91900, 90, {2, 64, 4, 2, 264, false}, "too large"},
        {91900, 90, {2, 1, 4, 2, 64, false}, "one token"},
        {91900, 100, {2, 64, 4, 2, 64, false}, NULL},
        {91900, 100, {2, 64, 4, 2, 64, true}, "the same bits only"},
        {91500, 90, {2, 130, 4, 2, 64, true}, "multiples of 128"},
        {91500, 90, {2, 130, 4, 2, 64, false}, NULL},
        {91501, 90, {2, 130, 4, 2, 64, true}, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *reason = nd_cudnn_refuses(rows[i].version, rows[i].capability, &rows[i].shape);
        if (rows[i].reason)
            cr_assert(reason != NULL && strstr(reason, rows[i].reason) != NULL, "row %zu: %s", i,
                      reason ? reason : "taken");
        else
            cr_assert(reason == NULL, "row %zu: %s", i, reason);
    }
}

/* Parts divide a batch without a rest, keep heads with their keys, and hold what they are given. */
Test(cudnn_plans, a_backward_pass_is_cut_into_equal_parts)
{
    const int64_t mib = 1 << 20;
    nd_cudnn_shape part;
    const nd_cudnn_shape forward = {8, 2048, 16, 4, 64, false}, back = {8, 2048, 16, 4, 64, true};
    cr_assert(nd_cudnn_part(&forward, mib, &part) && part.sequences == 8 && part.heads == 16);
    cr_assert(nd_cudnn_part(&back, 1024 * mib, &part) && part.sequences == 8 && part.heads == 16);
    cr_assert(nd_cudnn_part(&back, 256 * mib, &part) && part.sequences == 2 && part.heads == 16);
    cr_assert(nd_cudnn_part(&back, 1000 * mib, &part) && part.sequences == 4);
    cr_assert(nd_cudnn_part(&back, 64 * mib, &part) && part.sequences == 1 && part.heads == 8 &&
              part.kv_heads == 2);
    cr_assert(nd_cudnn_part(&back, 32 * mib, &part) && part.heads == 4 && part.kv_heads == 1);
    cr_assert_not(nd_cudnn_part(&back, 31 * mib, &part));
    const nd_cudnn_shape six = {1, 2048, 12, 6, 64, true};
    cr_assert(nd_cudnn_part(&six, 70 * mib, &part) && part.kv_heads == 3 && part.heads == 6);
}
