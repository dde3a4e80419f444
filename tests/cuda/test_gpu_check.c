/* launch/gpu_check.sh with a GPU and a program that are played by scripts: what it calls passed. */
#include "support/support.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Runs the section `nccl` on a machine of `gpus` GPUs with `program` (of the shell) in the place of
 * what it starts. `output`: all that is written until nobody holds the script's output open.
 * Returns the code. */
static int check(char output[8192], int gpus, const char *program, const char *options)
{
    return nd_test_shell(
        output, 8192,
        "{ F=$(mktemp -d); mkdir -p $F/bin $F/build/tests/cuda/device; touch "
        "$F/build/CMakeCache.txt; "
        "printf '#!/bin/sh\\n[ %d -eq 0 ] || echo GPU 0: a script\\n' >$F/bin/nvidia-smi; "
        "printf '#!/bin/sh\\n%s\\n' >$F/build/tests/cuda/device/cuda_program_nccl; "
        "printf '#!/bin/sh\nexit 1\n' >$F/bin/python3; " /* has no packages, quickly */
        "chmod +x $F/bin/* $F/build/tests/cuda/device/cuda_program_nccl; "
        "PATH=$F/bin:$PATH bash %s/launch/gpu_check.sh --sections nccl --build $F/build "
        "--out $F/out %s >/dev/null; code=$?; cat $F/out/report.md; rm -rf $F; exit $code; }",
        gpus, program, ND_SOURCE_DIR, options);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(gpu_check, a_section_that_passes_is_called_passed_and_nothing_is_left_running)
{
    char output[8192];
    const double start = now();
    cr_assert_eq(check(output, 1, "echo right", ""), 0, "%s", output);
    cr_assert(strstr(output, "right\n") != NULL, "%s", output);
    cr_assert(strstr(output, "nccl: passed") != NULL, "%s", output);
    cr_assert(strstr(output, "all sections passed") != NULL, "%s", output);
    cr_assert_lt(now() - start, 30.0, "somebody held the output open"); /* a section has 60 s */
}

Test(gpu_check, what_fails_fails)
{
    char output[8192];
    cr_assert_eq(check(output, 1, "exit 5", ""), 1, "%s", output);
    cr_assert(strstr(output, "nccl: FAILED (exit 5)") != NULL, "%s", output);
    cr_assert(strstr(output, "failed: nccl") != NULL, "%s", output);
}

Test(gpu_check, what_has_nothing_to_run_is_not_called_passed)
{
    char output[8192];
    cr_assert_eq(check(output, 1, "exit 77", ""), 3, "%s", output);
    cr_assert(strstr(output, "nccl: not run") != NULL, "%s", output);
    cr_assert(strstr(output, "passed") == NULL, "%s", output);
}

Test(gpu_check, without_a_gpu_nothing_is_run)
{
    char output[8192];
    cr_assert_eq(check(output, 0, "echo right", ""), 3, "%s", output);
    cr_assert(strstr(output, "nccl: not run: no GPU") != NULL, "%s", output);
    cr_assert(strstr(output, "passed") == NULL, "%s", output);
}

Test(gpu_check, what_hangs_is_killed_though_it_does_not_leave_when_asked_to)
{
    char output[8192];
    const double start = now();
    const int code = check(output, 1, "trap : TERM; while :; do sleep 600; done", "--seconds 14");
    cr_assert_eq(code, 1, "%s", output);
    cr_assert(strstr(output, "stopped after") != NULL, "%s", output);
    cr_assert(strstr(output, "nccl: FAILED") != NULL, "%s", output);
    cr_assert_lt(now() - start, 30.0);
}

Test(gpu_check, what_a_section_wrote_before_it_was_stopped_is_kept)
{
    char output[8192];
    cr_assert_eq(check(output, 1, "echo early; exec sleep 600", "--seconds 14"), 1, "%s", output);
    cr_assert(strstr(output, "early\n") != NULL, "%s", output);
}

Test(gpu_check, the_first_failure_is_quoted_with_what_was_found)
{
    char output[8192];
    cr_assert_eq(check(output, 1, "echo Assertion Failed; echo error 0.5; echo more; exit 1", ""),
                 1, "%s", output);
    const char *quoted = strstr(output, "the first failure:");
    cr_assert(quoted != NULL && strstr(quoted, "error 0.5") != NULL, "%s", output);
}

Test(gpu_check, calls_and_sections_that_do_not_exist_are_refused)
{
    char output[8192];
    cr_assert_eq(
        nd_test_shell(output, sizeof output, "bash %s/launch/gpu_check.sh --call 3", ND_SOURCE_DIR),
        2);
    cr_assert(strstr(output, "--call is 1 or 2, not '3'") != NULL, "%s", output);
    cr_assert_eq(nd_test_shell(output, sizeof output,
                               "bash %s/launch/gpu_check.sh --sections smoke,fire", ND_SOURCE_DIR),
                 2);
    cr_assert(strstr(output, "no section 'fire'") != NULL, "%s", output);
}

/* A kernel's fault makes all later calls of its process fail. */
Test(gpu_check, device_tests_go_on_after_one_that_fails_or_crashes)
{
    char output[8192];
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s/cuda/runner_example", ND_TEST_PROGRAMS),
                 1);
    cr_assert(strstr(output, "a message") != NULL, "%s", output);
    cr_assert(strstr(output, "[FAIL] example::second_fails") != NULL, "%s", output);
    cr_assert(strstr(output, "[RUN ] example::third_crashes\n[FAIL] crashed") != NULL, "%s",
              output);
    cr_assert(strstr(output, "[PASS] example::fourth_passes") != NULL, "%s", output);
    cr_assert(strstr(output, "Tested: 4 | Passing: 2 | Failing: 2") != NULL, "%s", output);
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s/cuda/runner_example --only _passes",
                               ND_TEST_PROGRAMS),
                 0);
    cr_assert(strstr(output, "Tested: 2 | Passing: 2") != NULL, "%s", output);
}

/* Shell text of a run that leaves the metrics of one step. */
#define WITH_METRICS                                                                               \
    "while [ $# -gt 0 ]; do [ $1 != --run-dir ] || { mkdir -p $2; echo '{\"loss\": 1, "            \
    "\"total_loss\": 1, \"grad_norm\": 1, \"step_ms\": 1, \"comm_wait_ms\": 0}' "                  \
    ">$2/metrics.jsonl; }; shift; done; "

/* These sections with `program` (of the shell) for all runs. */
static int check_runs(char output[8192], const char *sections, const char *program)
{
    return nd_test_shell(
        output, 8192,
        "{ F=$(mktemp -d); D=$F/build/tests/cuda/device; mkdir -p $F/bin $D; "
        "printf '#!/bin/sh\necho GPU 0: a script\n' >$F/bin/nvidia-smi; "
        "printf '#!/bin/sh\n' | tee $D/cuda_device_cudnn >$D/cuda_program_libraries; "
        "cat >$F/build/nanochat_dist <<'P'\n#!/bin/sh\n%s\nP\n"
        "chmod +x $F/bin/* $D/* $F/build/nanochat_dist; "
        "PATH=$F/bin:$PATH bash %s/launch/gpu_check.sh --sections %s --build $F/build "
        "--out $F/out >/dev/null; code=$?; cat $F/out/report.md; tar -tzf $F/out/runs.tar.gz; rm "
        "-rf $F; exit $code; }",
        program, ND_SOURCE_DIR, sections);
}

/* The section `attention` with runs whose log says who computes which direction. */
static int check_attention(char output[8192], const char *forward, const char *backward)
{
    char program[1024];
    snprintf(program, sizeof program,
             WITH_METRICS "echo '12:00:00  device  attention of 8 x 2048 tokens: %s'; "
                          "echo '12:00:00  device  attention_backward of 8 x 2048 tokens: %s'",
             forward, backward);
    return check_runs(output, "attention", program);
}

Test(gpu_check, cudnn_is_not_called_right_where_the_project_computed_both_runs)
{
    char output[8192];
    const char *engine = "cuDNN engine 2, workspace 0.0 MiB",
               *builtin = "builtin kernels; cuDNN: refused";
    cr_assert_eq(check_attention(output, engine, engine), 0, "%s", output);
    cr_assert(strstr(output, "runs/attention.auto/metrics.jsonl") != NULL, "%s", output);
    cr_assert_eq(check_attention(output, engine, builtin), 1, "%s", output);
    cr_assert(strstr(output, "does not compute attention_backward: the log names no engine") !=
                  NULL,
              "%s", output);
    cr_assert_eq(check_attention(output, builtin, engine), 1, "%s", output);
}

Test(gpu_check, a_kernel_that_the_run_did_without_is_not_called_right)
{
    char output[8192];
    static const char *const lines[] = {
        "echo 'device  int8 products by wgmma: checked, the bits are those of mma.sync'",
        "echo 'device  int8 products by wgmma: its results differ; mma.sync is used'"};
    cr_assert_eq(check_runs(output, "smoke", lines[0]), 0, "%s", output);
    cr_assert_eq(check_runs(output, "smoke", lines[1]), 1, "%s", output);
    cr_assert(strstr(output, "smoke: FAILED") != NULL, "%s", output);
}

/* What a kernel's fault leaves to be tried: without wgmma, then without cuDNN, in all sections. */
Test(gpu_check, other_sections_do_without_what_ends_the_first_run)
{
    char output[8192];
    static const char
        wgmma[] = "[ \"$ND_CUDA_INT8\" = mma ] || exit 134; echo it ran",
        cudnn[] = "case \"$*\" in *attention_backend=builtin*) echo it ran;; *) echo a fault; "
                  "exit 134;; esac";
    cr_assert_eq(check_runs(output, "smoke", wgmma), 1, "%s", output);
    cr_assert(strstr(output, "it ran\nthat runs") != NULL, "%s", output);
    cr_assert(strstr(output, "again without cuDNN") == NULL, "%s", output);
    cr_assert_eq(check_runs(output, "smoke,graphs", cudnn), 1, "%s", output);
    const char *graphs = strstr(output, "## graphs");
    cr_assert(strstr(output, "it ran\nthat runs") != NULL, "%s", output);
    cr_assert(graphs != NULL && strstr(graphs, "a fault") == NULL, "%s", output);
}

Test(gpu_check, graphs_are_not_called_right_where_the_run_gave_them_up)
{
    char output[8192];
    cr_assert_eq(check_runs(output, "graphs", WITH_METRICS "echo step 40/40"), 0, "%s", output);
    cr_assert_eq(check_runs(output, "graphs",
                            WITH_METRICS "echo 'warning: CUDA graphs are off from here on, ops run "
                                         "one by one: operation not permitted'"),
                 1, "%s", output);
    cr_assert(strstr(output, "graphs: FAILED") != NULL, "%s", output);
}
