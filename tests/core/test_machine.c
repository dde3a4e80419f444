/* What a process may use, read from control groups made for the test. */
#include "core/backend/threads.h"
#include "core/base/machine.h"
#include "support/support.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char root[64];

static void setup(void)
{
    strcpy(root, nd_test_directory());
}

static void teardown(void)
{
    nd_test_remove_directory(root);
}

TestSuite(machine, .init = setup, .fini = teardown);

static void put(const char *group, const char *name, const char *text)
{
    char path[512];
    cr_assert_eq(nd_test_shell(path, sizeof path, "mkdir -p %s/%s", root, group), 0, "%s", path);
    snprintf(path, sizeof path, "%s/%s/%s", root, group, name);
    nd_test_write_file(path, text, strlen(text));
}

/* The process is in the groups of these lines. */
static nd_cgroup in_groups(const char *membership)
{
    char path[512];
    put(".", "membership", membership);
    snprintf(path, sizeof path, "%s/membership", root);
    return nd_cgroup_read(path, root);
}

Test(machine, a_quota_of_version_2_is_the_tightest_of_all_groups_above)
{
    put("job", "cpu.max", "250000 100000\n");
    put("job/step", "cpu.max", "max 100000\n");
    put("job/step", "cpuset.cpus.effective", "0-3,8\n");
    put("job/step", "memory.max", "max\n");
    put("job/step", "memory.current", "1000\n");
    put("job", "memory.max", "5000\n");
    put("job", "memory.current", "3000\n");
    const nd_cgroup g = in_groups("0::/job/step\n");
    cr_assert_eq(g.processors, 2.5);
    cr_assert_eq(g.processor_set, 5);
    cr_assert_eq(g.memory_remaining, 2000);
}

Test(machine, a_quota_of_version_1_counts_whatever_its_mount_is_called)
{
    put("cpu/docker/x", "cpu.cfs_quota_us", "150000\n");
    put("cpu/docker/x", "cpu.cfs_period_us", "50000\n");
    put("memory/docker", "memory.limit_in_bytes", "4096\n");
    put("memory/docker", "memory.usage_in_bytes", "5000\n");
    put("cpuset", "cpuset.cpus", "2\n");
    const nd_cgroup g = in_groups("4:memory:/docker/x\n3:cpuset:/\n2:cpu,cpuacct:/docker/x\n"
                                  "1:name=systemd:/\n0::/\n");
    cr_assert_eq(g.processors, 3.0);
    cr_assert_eq(g.processor_set, 1);
    cr_assert_eq(g.memory_remaining, 0);
}

/* In a container the membership may name a group of the host; the files are the container's own. */
Test(machine, a_group_that_cannot_be_seen_leaves_the_root_of_the_container)
{
    put("cpu", "cpu.cfs_quota_us", "100000\n");
    put("cpu", "cpu.cfs_period_us", "100000\n");
    put("memory", "memory.limit_in_bytes", "1048576\n");
    const nd_cgroup g = in_groups("2:memory:/kubepods/pod1/c\n1:cpu:/kubepods/pod1/c\n");
    cr_assert_eq(g.processors, 1.0);
    cr_assert_eq(g.memory_remaining, 1048576);
}

/* The kernel takes such pages back before it kills anything. */
Test(machine, pages_of_files_do_not_count_as_taken)
{
    put("job", "memory.max", "5000\n");
    put("job", "memory.current", "4900\n");
    put("job", "memory.stat", "anon 900\nfile 4000\ninactive_file 3000\nactive_file 1000\n");
    put("memory/job", "memory.limit_in_bytes", "5000\n");
    put("memory/job", "memory.usage_in_bytes", "4500\n");
    put("memory/job", "memory.stat",
        "inactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 500\n");
    cr_assert_eq(in_groups("0::/job\n").memory_remaining, 4100);
    cr_assert_eq(in_groups("4:memory:/job\n").memory_remaining, 2000);
}

Test(machine, groups_without_limits_or_with_nonsense_limit_nothing)
{
    put(".", "cpu.max", "many 0\n");
    put("cpu", "cpu.cfs_quota_us", "-1\n");
    put("cpu", "cpu.cfs_period_us", "0\n");
    put(".", "memory.max", "\n");
    put(".", "cpuset.cpus.effective", "3-1\n");
    const nd_cgroup g = in_groups("nonsense\n1:cpu:/\n0::/\n"),
                    none = nd_cgroup_read("/none", root);
    cr_assert(isinf(g.processors) && isinf(none.processors));
    cr_assert_eq(g.processor_set, 0);
    cr_assert(g.memory_remaining == SIZE_MAX && none.memory_remaining == SIZE_MAX);
}

static int threads(int own, int all, double quota, int ranks, int omp)
{
    return nd_machine_share_threads(&(nd_machine_share){own, all, quota, ranks, omp});
}

Test(machine, threads_are_what_runs_at_once)
{
    cr_assert_eq(threads(16, 16, INFINITY, 1, 0), 16);
    cr_assert_eq(threads(16, 16, INFINITY, 4, 0), 4, "ranks of one machine share it");
    cr_assert_eq(threads(2, 16, INFINITY, 4, 0), 2, "a rank that is bound keeps to its cores");
    cr_assert_eq(threads(16, 16, 2.5, 1, 0), 2, "a quota counts");
    cr_assert_eq(threads(16, 16, 4.0, 2, 0), 2, "and is shared");
    cr_assert_eq(threads(1, 1, 0.5, 8, 0), 1, "there is always one");
    cr_assert_eq(threads(0, 8, INFINITY, 1, 0), 8, "not knowing the binding leaves the machine");
    cr_assert_eq(threads(16, 16, 2.0, 1, 7), 7, "OMP_NUM_THREADS decides");
}

Test(machine, omp_num_threads_counts_only_where_it_is_a_number)
{
    cr_assert_eq(nd_machine_omp_threads("4"), 4);
    cr_assert_eq(nd_machine_omp_threads("4,2"), 4);
    static const char *const bad[] = {NULL, "",   " ",  "all",
                                      "0",  "-3", "4x", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(nd_machine_omp_threads(bad[i]), 0, "'%s'", bad[i] ? bad[i] : "NULL");
}
