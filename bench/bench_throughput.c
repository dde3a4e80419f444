/* Tokens a second of whole training steps, beside the roofline measured in the same run: the time the
 * step's products would take at the speed oneDNN reaches on large int8 and bf16 products, f32 where it
 * has none of bf16. Without VNNI its int8 products are exact for ternary codes alone: the gradients of
 * weights then count at the dense rate.
 *
 *   bench_throughput [--config FILE] [--steps N] [--set SECTION.KEY=VALUE]...
 *
 * Peaks and steps alternate, and medians are compared, because machines are shared. Also prints the
 * memory of every category beside the resident set. */
#include "bench_run.h"
#include "core/model/mtp.h"
#include "peak_product.h"
#include "timed_ops.h"
#include "timing.h"
#include "train/plan/operations.h"
#include "train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEAK_SIDE = 2048, SAMPLES_MAX = 256 };

/* FLOPs of one step: in int8 (ternary products forward, and backward with gradients in 8 bits, those of
 * weights where such products are exact), and everything else that multiplies: backward products of each
 * projection, the head three times, attention. */
static void step_flops(const nd_run *run, double *in_int8, double *rest)
{
    const nd_model_config *c = &run->model->config;
    const double tokens = (double)(run->config.training.batch_size * c->seq_length);
    double projections = 0.0;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        const nd_param *p = &run->model->params.list[i];
        if (p->role == ND_ROLE_TERNARY)
            projections += (double)(p->rows * p->cols);
    }
    const double products = !c->int8_gradients ? 2.0 : run->backend->traits.exact_int8 ? 6.0 : 4.0;
    *in_int8 = products * projections * tokens;
    *rest = nd_model_operations(*c, nd_mtp_active_heads(c), 1.0) * tokens - *in_int8;
}

static void print_memory(const nd_run *run)
{
    const double mib = 1024.0 * 1024.0;
    const size_t workspace = run->backend->ops.workspace_bytes(run->backend);
    double total = (double)nd_memory_program(workspace + nd_loader_bytes(run->data.loader));
    printf("\n| memory | MiB |\n|---|---|\n| program and libraries | %.1f |\n", total / mib);
    for (int i = 0; i < ND_MEMORY_COUNT; i++) {
        const double bytes = (double)run->arenas[i].size;
        printf("| %s | %.1f |\n", nd_memory_category_name((nd_memory_category)i), bytes / mib);
        total += bytes;
    }
    const double loader = (double)nd_loader_bytes(run->data.loader);
    total += loader + (double)workspace;
    printf("| workspace of the backend | %.1f |\n", (double)workspace / mib);
    printf("| loader | %.1f |\n| **sum** | **%.1f** |\n", loader / mib, total / mib);
    const double rss = (double)nd_memory_resident(), peak = (double)nd_memory_resident_peak();
    printf("| resident set | %.1f (sum is %+.1f %%) |\n| its peak | %.1f (sum is %+.1f %%) |\n",
           rss / mib, 100.0 * (total / rss - 1.0), peak / mib, 100.0 * (total / peak - 1.0));
}

/* Of one step more; `gemm` is the head's and Muon's. */
static nd_status print_operations(nd_run *run)
{
    nd_step_result result;
    double times[TIMED_OPS], rest;
    timed_ops_start(run->backend);
    const nd_status status = nd_step_run(run, false, &result);
    timed_ops_stop(run->backend, times);
    ND_TRY(status);
    rest = result.step_ms;
    printf("\n| operation of a step | ms | %% of step |\n|---|---|---|\n");
    for (int i = 0; i < TIMED_OPS; i++) {
        rest -= times[i] * 1e3;
        if (times[i] > 0.0)
            printf("| %s | %.1f | %.1f %% |\n", timed_op_names[i], times[i] * 1e3,
                   times[i] * 1e5 / result.step_ms);
    }
    printf("| everything else | %.1f | %.1f %% |\n", rest, 100.0 * rest / result.step_ms);
    return ND_OK;
}

static bool create_square(peak_product *p, nd_dtype in, nd_dtype out)
{
    return peak_create(p, PEAK_SIDE, PEAK_SIDE, PEAK_SIDE, in, out);
}

static nd_status measure(nd_run *run, int64_t steps)
{
    peak_product int8 = {0}, dense = {0};
    double step_s[SAMPLES_MAX], int8_rate[SAMPLES_MAX], dense_rate[SAMPLES_MAX], in_int8, rest;
    nd_step_result result;
    ND_TRY(nd_step_run(run, false, &result));
    ND_TRY(nd_step_run(run, false, &result));
    print_memory(run);
    nd_dtype dense_type = run->model->config.compute;
    if (!create_square(&dense, dense_type, dense_type)) {
        printf("oneDNN has no %s products here: the roofline is that of f32\n",
               nd_dtype_name(dense_type));
        dense_type = ND_F32;
        if (!create_square(&dense, ND_F32, ND_F32))
            return ND_FAIL(ND_EINTERNAL, "oneDNN cannot make the products of the roofline");
    }
    if (!create_square(&int8, ND_I8, ND_I32))
        return ND_FAIL(ND_EINTERNAL, "oneDNN cannot make the products of the roofline");
    peak_measure(&int8);
    peak_measure(&dense);
    for (int64_t i = 0; i < steps; i++) {
        int8_rate[i] = peak_measure(&int8);
        dense_rate[i] = peak_measure(&dense);
        ND_TRY(nd_step_run(run, false, &result));
        step_s[i] = result.step_ms * 1e-3;
    }
    step_flops(run, &in_int8, &rest);
    const double int8_peak = median(int8_rate, (int)steps);
    const double dense_peak = median(dense_rate, (int)steps);
    const double actual = median(step_s, (int)steps);
    const double ideal = in_int8 / int8_peak + rest / dense_peak;
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    printf("\n| median of %lld | |\n|---|---|\n", (long long)steps);
    printf("| oneDNN int8 peak | %.0f GFLOP/s |\n", int8_peak * 1e-9);
    printf("| oneDNN %s peak | %.0f GFLOP/s |\n", nd_dtype_name(dense_type), dense_peak * 1e-9);
    printf("| step | %.1f ms, %.0f tokens/s |\n", actual * 1e3, tokens / actual);
    printf("| at the roofline | %.1f ms, %.0f tokens/s |\n", ideal * 1e3, tokens / ideal);
    printf("| **ratio to the roofline** | **%.2f** |\n", ideal / actual);
    printf("| of the dense peak alone (mfu) | %.2f |\n", (in_int8 + rest) / actual / dense_peak);
    peak_destroy(&int8);
    peak_destroy(&dense);
    return print_operations(run);
}

int main(int argc, char **argv)
{
    const bench_program program = {.name = "bench_throughput",
                                   .summary = "Training speed beside the roofline of the same run.",
                                   .count = "--steps",
                                   .count_most = SAMPLES_MAX,
                                   .measure = measure};
    return bench_main(&program, argc, argv);
}
