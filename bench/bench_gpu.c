/* Tokens a second of whole training steps on whatever [hardware] target gives, beside the speed of one
 * large product on it, and the memory of every category.
 *
 *   bench_gpu [--config FILE] [--steps N] [--set SECTION.KEY=VALUE]...
 *
 * MFU is the model's arithmetic (docs/run_files.md) over the product's speed, both measured here on random
 * data. The first two steps, in which shapes are met for the first time, do not count. */
#include "bench_run.h"
#include "timing.h"

#include "core/base/float_formats.h"
#include "core/base/rng.h"
#include "core/model/mtp.h"
#include "train/plan/operations.h"
#include "train/step.h"

#include <stdio.h>

enum { WARM_UP = 2, PRODUCTS = 9, STEPS_MAX = 256 };

static nd_status fill_random(nd_backend *b, nd_view v)
{
    enum { CHUNK = 1 << 18 };
    static uint16_t values[CHUNK];
    const int64_t count = nd_view_count(nd_as_const(v));
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t n = count - first < CHUNK ? count - first : CHUNK;
        for (int64_t i = 0; i < n && first < CHUNK; i++)
            values[i] = nd_bf16_from_float((float)nd_rng_uniform(7, (uint64_t)i) - 0.5f);
        ND_TRY(b->ops.upload(b, (uint16_t *)v.data + first, values, (size_t)n * sizeof *values));
    }
    return ND_OK;
}

/* FLOP/s of a bf16 product of side x side matrices, the median of several. */
static nd_status measure_product(nd_backend *b, int64_t side, double *rate)
{
    const size_t bytes = (size_t)(side * side) * sizeof(uint16_t);
    void *memory[3] = {NULL};
    double rates[PRODUCTS];
    nd_view v[3];
    nd_status status = ND_OK;
    for (int i = 0; i < 3; i++) {
        ND_TRY_GOTO(b->ops.allocate(b, bytes, &memory[i]), done);
        v[i] = nd_view_of(memory[i], ND_BF16, side, side);
        ND_TRY_GOTO(fill_random(b, v[i]), done);
    }
    for (int i = 0; i < PRODUCTS + WARM_UP; i++) {
        ND_TRY_GOTO(b->ops.synchronize(b), done);
        const double start = seconds();
        ND_TRY_GOTO(
            b->ops.gemm(b, v[0], nd_as_const(v[1]), false, nd_as_const(v[2]), true, 1.0f, 0.0f),
            done);
        ND_TRY_GOTO(b->ops.synchronize(b), done);
        const double flops = 2.0 * (double)side * (double)side * (double)side;
        if (i >= WARM_UP)
            rates[i - WARM_UP] = flops / (seconds() - start);
    }
    *rate = median(rates, PRODUCTS);
done:
    for (int i = 0; i < 3; i++)
        b->ops.release(b, memory[i], bytes);
    return status;
}

static nd_status measure(nd_run *run, int64_t count)
{
    double times[STEPS_MAX], peak = 0.0, kept = 0.0;
    nd_step_result step;
    const int64_t side = run->backend->ops.host_memory ? 1024 : 8192;
    ND_TRY(measure_product(run->backend, side, &peak));
    printf("backend %s, bf16 product of %lld^3: %.1f TFLOP/s\n", run->backend->ops.name,
           (long long)side, peak * 1e-12);
    fflush(stdout); /* what is measured stays when time is up */
    for (int i = 0; i < WARM_UP; i++)
        ND_TRY(nd_step_run(run, false, &step));
    for (int64_t i = 0; i < count; i++) {
        const double start = seconds();
        ND_TRY(nd_step_run(run, false, &step));
        ND_TRY(run->backend->ops.synchronize(run->backend));
        times[i] = seconds() - start;
        printf("step %lld: %.1f ms\n", (long long)i, 1e3 * times[i]);
        fflush(stdout);
        kept += step.kept_fraction / (double)count;
    }
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    const double rate = tokens / median(times, (int)count);
    const double flops = rate * nd_model_operations(run->model->config,
                                                    nd_mtp_active_heads(&run->model->config), kept);
    printf("%.0f tokens/s, %.1f TFLOP/s of the model, MFU %.1f %%, median step %.1f ms (%.1f to "
           "%.1f), loss %.4f\n",
           rate, flops * 1e-12, 100.0 * flops / peak, 1e3 * times[count / 2], 1e3 * times[0],
           1e3 * times[count - 1], step.loss);
    double total = 0.0;
    printf("memory, MiB:");
    for (int i = 0; i < ND_MEMORY_COUNT; i++) {
        printf(" %s %.0f,", nd_memory_category_name((nd_memory_category)i),
               (double)run->arenas[i].size / 1048576.0);
        total += (double)run->arenas[i].size;
    }
    const double workspace = (double)run->backend->ops.workspace_bytes(run->backend);
    printf(" workspace %.0f; sum %.0f\n", workspace / 1048576.0, (total + workspace) / 1048576.0);
    return ND_OK;
}

int main(int argc, char **argv)
{
    const bench_program program = {
        .name = "bench_gpu",
        .summary = "Tokens a second, MFU and memory of training steps on a GPU.",
        .count = "--steps",
        .count_most = STEPS_MAX,
        .measure = measure,
    };
    return bench_main(&program, argc, argv);
}
