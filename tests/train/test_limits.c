/* What the machine gives a process less of than expected: stack, processors, memory. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static char output[16384];

TestSuite(limits, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

Test(limits, a_small_stack_does_for_thousands_of_micro_batches)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "{ ulimit -s 256; %s --config %s --run-dir %s/run --total-steps 1 --n-samples 16384 "
        "--set training.batch_size=16384 --set training.seq_length=4 --set model.hidden_dim=8 "
        "--set model.num_layers=1 --set model.num_heads=2 --set logging.eval_interval=0 "
        "--set logging.checkpoint_at_end=false --set training.use_mtp=true; }",
        ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* A real control group, of whichever version this machine has. */
Test(limits, a_quota_of_one_processor_gives_one_thread)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "{ g=/sys/fs/cgroup/cpu/nd_test_$$; "
        "mkdir $g 2>/dev/null && echo 100000 > $g/cpu.cfs_quota_us || "
        "{ g=/sys/fs/cgroup/nd_test_$$; mkdir $g && echo 100000 100000 > $g/cpu.max; } || exit 77; "
        "unset OMP_NUM_THREADS; (sh -c 'echo $PPID' > $g/cgroup.procs && %s --config %s "
        "--run-dir %s/run --total-steps 1); code=$?; rmdir $g; exit $code; }",
        ND_BINARY, nd_test_here.config, nd_test_here.directory);
    if (code == 77)
        cr_skip_test("no right to make a control group here");
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    cr_assert(strstr(output, " 1 thread;") != NULL, "%s", output);
}

Test(limits, an_empty_omp_num_threads_is_none)
{
    const int code = nd_test_shell(output, sizeof output,
                                   "OMP_NUM_THREADS= taskset -c 0 %s --config %s --run-dir %s/run "
                                   "--total-steps 1",
                                   ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    cr_assert(strstr(output, " 1 thread;") != NULL, "%s", output);
}

static int threads_with(const char *variables)
{
    const int code =
        nd_test_shell(output, sizeof output,
                      "unset OMP_NUM_THREADS; %s %s --config %s --run-dir %s/run "
                      "--total-steps 1",
                      variables, ND_BINARY, nd_test_here.config, nd_test_here.directory);
    const char *line = strstr(output, "compute CPU with "),
               *count = line ? strchr(line, ',') : NULL;
    cr_assert(code == 0 && count, "exit %d: %s", code, output);
    return atoi(count + 1);
}

Test(limits, openmp_decides_how_many_threads_there_can_be)
{
    cr_assert_eq(threads_with("OMP_PROC_BIND=close"), threads_with(""), "bound, but not to one");
    cr_assert_eq(threads_with("OMP_PLACES={0}"), 1);
    cr_assert_eq(threads_with("OMP_THREAD_LIMIT=1"), 1);
}

static bool bf16_instructions_pay(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    return !__builtin_cpu_is("intel");
#else
    return false;
#endif
}

/* With each limit the log names the instruction set in force, and what `auto` chose for it. */
Test(limits, auto_chooses_the_precisions_that_are_fastest_with_the_instruction_set)
{
    const struct {
        const char *isa, *chosen;
    } cases[] = {
        {"generic", "fp32, backward the same"},
        {"dotprod", "fp32, backward int8"},
        {"avx2", "fp32, backward int8"},
        {"avx2_vnni", "fp32, backward int8"},
        {"avx512", "fp32, backward int8"},
        {"avx512_vnni", "fp32, backward int8"},
        {"avx512_bf16", bf16_instructions_pay() ? "bf16, backward int8" : "fp32, backward int8"},
        {"amx", "bf16, backward int8"}};
    int ran = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = nd_test_shell(
            output, sizeof output,
            "%s --config %s --run-dir %s/run%zu --total-steps 1 --set hardware.cpu_isa=%s "
            "--set hardware.precision=auto --set hardware.backward_precision=auto",
            ND_BINARY, nd_test_here.config, nd_test_here.directory, i, cases[i].isa);
        if (code != 0) {
            cr_assert(strstr(output, "this CPU lacks it") || strstr(output, "is for x86 CPUs") ||
                          strstr(output, "is limited to"),
                      "exit %d: %s", code, output);
            continue;
        }
        char found[64], expected[64];
        const char *line = strstr(output, "compute CPU with "), *chosen;
        cr_assert(line && sscanf(line, "compute CPU with %63[a-z0-9_]", found) == 1, "%s", output);
        cr_assert_str_eq(found, cases[i].isa);
        snprintf(expected, sizeof expected, "precision %s\n", cases[i].chosen);
        chosen = strstr(line, "precision ");
        cr_assert(chosen && strncmp(chosen, expected, strlen(expected)) == 0, "%s", output);
        ran++;
    }
    cr_assert_gt(ran, 0);
}

/* Keys and values of the whole context would take 512 MiB or more. */
Test(limits, a_sample_takes_memory_for_its_tokens_and_not_for_the_whole_context)
{
    struct rusage usage;
    const int code = nd_test_shell(
        output, sizeof output,
        "{ %s --config %s --run-dir %s/run --total-steps 1 --set model.max_seq_len=1048576 "
        "--set model.num_layers=8 && "
        "%s sample --checkpoint %s/run --max-tokens 10; }",
        ND_BINARY, nd_test_here.config, nd_test_here.directory, ND_BINARY, nd_test_here.directory);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    getrusage(RUSAGE_CHILDREN, &usage);
    cr_assert(usage.ru_maxrss < 300 * 1024, "%ld MiB", usage.ru_maxrss / 1024);
}

Test(limits, a_plan_of_the_most_steps_there_can_be_takes_no_longer_than_one_of_few)
{
    const int code =
        nd_test_shell(output, sizeof output,
                      "timeout 20 %s plan --config %s --set training.total_steps=9007199254740992 "
                      "--set training.use_mtp=true --set "
                      "training.mtp_schedule=thirds",
                      ND_BINARY, nd_test_here.config);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
}

/* The limit ends the run before it reads so much ahead. */
Test(limits, what_is_read_ahead_counts_as_memory)
{
    int code = nd_test_shell(output, sizeof output,
                             "%s --config %s --run-dir %s/run --total-steps 1 --set "
                             "training.prefetch_batches=4096",
                             ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "exit %d: %s", code, output);
    /* 4097 batches of 8 x 17 tokens of 4 bytes */
    cr_assert(strstr(output, ", loader 2.1, program ") != NULL, "%s", output);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ /* they take more at once */
    code = nd_test_shell(output, sizeof output,
                         "{ ulimit -v 20000000; %s --config %s --run-dir %s/more --total-steps 1 "
                         "--set training.prefetch_batches=4096 --set training.batch_size=65536 "
                         "--set training.seq_length=4096 --set model.max_seq_len=4096; }",
                         ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert(code != 0, "%s", output);
    cr_assert(strstr(output, "lower training.prefetch_batches") != NULL, "%s", output);
#endif
}

#if !defined __SANITIZE_ADDRESS__ &&                                                               \
    !defined __SANITIZE_THREAD__ /* these map more than any limit */
/* Whatever the limit, the program does not die of a signal; near it, it says why. */
Test(limits, too_little_address_space_ends_a_run_with_an_error_that_names_the_limit)
{
    nd_test_run_scripts(
        "export OMP_NUM_THREADS=1; run() { rm -rf run; ulimit -v $1; exec $B --config $C --run-dir "
        "$D/run --set model.hidden_dim=256 --set training.seq_length=64 --set "
        "hardware.precision=fp32 --total-steps $2 > log 2>&1; };"
        "begun() { until grep -q step run/metrics.jsonl 2> /dev/null; do sleep 0.1; done; };",
        "run unlimited 100000 & begun; peak=$(sed -n 's/VmPeak:[^0-9]*\\([0-9]*\\).*/\\1/p' "
        "  /proc/$!/status); kill -9 $!; wait $!; "
        "for percent in 65 80 85 90 95; do (run $((peak * percent / 100)) 1); x=$?;"
        "  [ $x -lt 128 ] || { cat log; echo $peak $percent: $x; exit 1; }; done; "
        "rm -rf run; run $((peak * 4 / 3)) 100000 & begun; kill -SEGV $!; wait $!; x=$?;"
        "grep -q 'MiB of address space (ulimit -v)' log && [ $x = 1 ] || { cat log; exit 2; }");
}
#endif
