/* Tokens a second of whole training steps, beside the roofline measured in the same run: the time
 * the step's products would take at the speed of large products: on the CPU oneDNN's in int8 and
 * bf16, f32 where it has none of bf16, on a GPU its own in bf16. Without VNNI oneDNN's int8
 * products are exact for ternary codes alone: the gradients of weights then count at the dense
 * rate.
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

enum { WARM_UP = 2, PEAK_SIDE = 2048, DEVICE_SIDE = 8192, SAMPLES_MAX = 256 };

/* FLOPs of one step: in int8 (ternary products forward, and backward with gradients in 8 bits,
 * those of weights where such products are exact), and everything else that multiplies: backward
 * products of each projection, the head three times, attention. */
static void step_flops(const nd_run *run, double *in_int8, double *rest)
{
    const nd_model_config *c = &run->model->config;
    const double tokens = (double)(run->config.training.batch_size * c->seq_length);
    const double projections = (double)nd_params_ternary(&run->model->params);
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
    const double start = nd_seconds();
    const nd_status status = nd_step_run(run, false, &result);
    const double all = 1e3 * (nd_seconds() - start);
    timed_ops_stop(run->backend, times);
    ND_TRY(status);
    rest = all;
    printf("\n| operation of a step | ms | %% of step |\n|---|---|---|\n");
    for (int i = 0; i < TIMED_OPS; i++) {
        rest -= times[i] * 1e3;
        if (times[i] > 5e-5)
            printf("| %s | %.1f | %.1f %% |\n", timed_op_names[i], times[i] * 1e3,
                   times[i] * 1e5 / all);
    }
    printf("| everything else | %.1f | %.1f %% |\n", rest, 100.0 * rest / all);
    return ND_OK;
}

/* What products are measured against: on the CPU oneDNN's in int8 and in the compute type, on a GPU
 * its own in bf16, which then stands for both. */
typedef struct roofline {
    nd_backend *device; /* NULL: the CPU */
    nd_view v[3];
    peak_product int8, dense;
    nd_dtype dense_type;
} roofline;

static bool create_square(peak_product *p, nd_dtype in, nd_dtype out)
{
    return peak_create(p, PEAK_SIDE, PEAK_SIDE, PEAK_SIDE, in, out);
}

static nd_status open_roofline(const nd_run *run, roofline *r)
{
    *r = (roofline){.dense_type = run->model->config.compute};
    if (!run->backend->ops.host_memory) {
        r->device = run->backend;
        r->dense_type = ND_BF16;
        for (int i = 0; i < 3; i++)
            ND_TRY(bench_allocate(r->device, ND_BF16, DEVICE_SIDE, DEVICE_SIDE, &r->v[i]));
        return ND_OK;
    }
    if (!create_square(&r->dense, r->dense_type, r->dense_type)) {
        printf("oneDNN has no %s products here: the roofline is that of f32\n",
               nd_dtype_name(r->dense_type));
        r->dense_type = ND_F32;
    }
    const bool made = (r->dense.call || create_square(&r->dense, ND_F32, ND_F32)) &&
                      create_square(&r->int8, ND_I8, ND_I32);
    return ND_CHECK(made, ND_EINTERNAL, "oneDNN cannot make the products of the roofline");
}

static void close_roofline(roofline *r)
{
    peak_destroy(&r->int8);
    peak_destroy(&r->dense);
    for (int i = 0; r->device && i < 3; i++)
        r->device->ops.release(r->device, r->v[i].data, nd_view_bytes(nd_as_const(r->v[i])));
}

/* FLOP/s of one product of each kind. */
static nd_status measure_peaks(const roofline *r, double *int8, double *dense)
{
    nd_backend *b = r->device;
    if (!b) {
        *int8 = peak_measure(&r->int8);
        *dense = peak_measure(&r->dense);
        return ND_OK;
    }
    ND_TRY(b->ops.synchronize(b));
    const double start = nd_seconds(), side = DEVICE_SIDE;
    ND_TRY(b->ops.gemm(b, r->v[0], nd_as_const(r->v[1]), false, nd_as_const(r->v[2]), true, 1.0f,
                       0.0f));
    ND_TRY(b->ops.synchronize(b));
    *int8 = *dense = 2.0 * side * side * side / (nd_seconds() - start);
    return ND_OK;
}

static nd_status time_step(nd_run *run, double *took, nd_step_result *result)
{
    const double start = nd_seconds();
    ND_TRY(nd_step_run(run, false, result));
    ND_TRY(run->backend->ops.synchronize(run->backend));
    *took = nd_seconds() - start;
    return ND_OK;
}

static void print_rates(const nd_run *run, const roofline *r, int steps, double *int8_rate,
                        double *dense_rate, double *step_s)
{
    double in_int8, rest;
    step_flops(run, &in_int8, &rest);
    const double int8_peak = median(int8_rate, steps), dense_peak = median(dense_rate, steps);
    const double actual = median(step_s, steps);
    const double ideal = in_int8 / int8_peak + rest / dense_peak;
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    printf("\n| median of %d, on %s | |\n|---|---|\n", steps, run->backend->traits.device);
    if (!r->device)
        printf("| oneDNN int8 peak | %.0f GFLOP/s |\n", int8_peak * 1e-9);
    printf("| %s %s peak | %.0f GFLOP/s |\n", r->device ? "own" : "oneDNN",
           nd_dtype_name(r->dense_type), dense_peak * 1e-9);
    printf("| step | %.1f ms, %.0f tokens/s |\n", actual * 1e3, tokens / actual);
    printf("| fastest, slowest step | %.1f ms, %.1f ms |\n", step_s[0] * 1e3,
           step_s[steps - 1] * 1e3);
    printf("| at the roofline | %.1f ms, %.0f tokens/s |\n", ideal * 1e3, tokens / ideal);
    printf("| **ratio to the roofline** | **%.2f** |\n", ideal / actual);
    printf("| of the dense peak alone (mfu) | %.2f |\n", (in_int8 + rest) / actual / dense_peak);
}

static nd_status measure_steps(nd_run *run, const roofline *r, int steps)
{
    double step_s[SAMPLES_MAX], int8_rate[SAMPLES_MAX], dense_rate[SAMPLES_MAX];
    nd_step_result result;
    for (int i = 0; i < WARM_UP; i++)
        ND_TRY(measure_peaks(r, &int8_rate[0], &dense_rate[0]));
    for (int i = 0; i < steps; i++) {
        ND_TRY(measure_peaks(r, &int8_rate[i], &dense_rate[i]));
        ND_TRY(time_step(run, &step_s[i], &result));
    }
    print_rates(run, r, steps, int8_rate, dense_rate, step_s);
    printf("| loss of the last step | %.4f |\n", result.loss);
    /* A GPU's ops return before they have run. */
    return r->device ? ND_OK : print_operations(run);
}

static nd_status measure(nd_run *run, int64_t steps)
{
    nd_step_result result;
    roofline r;
    double took;
    /* names the kernels that a GPU chooses */
    run->log.terminal = run->backend->ops.host_memory ? NULL : stdout;
    for (int i = 0; i < WARM_UP; i++) /* shapes are met for the first time */
        ND_TRY(time_step(run, &took, &result));
    print_memory(run);
    nd_status status = open_roofline(run, &r);
    ND_IF_OK(measure_steps(run, &r, (int)steps));
    close_roofline(&r);
    return status;
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
