/* What a training step should take on a GPU, by count: the calls of the model and the optimizer as
 * they are made, on a backend that computes nothing, for one and two layers and from these for all.
 * A table of ops with bytes, operations, the floor of an H100, and what the kernels of cuda/ should
 * take.
 *
 *   bench_gpu_count [--config FILE] [--set SECTION.KEY=VALUE]... [--rows N] */
#include "bench_run.h"
#include "counted_ops.h"

#include "train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An H100 SXM as measured by others, not its data sheet: bytes and operations a second. */
static const double bandwidth = 3.0e12, int8_rate = 1500e12, dense_rate = 790e12;
/* Between the kernels of a stream, seconds. */
static const double launch_seconds = 1.0e-6;

/* What part of these the kernels should reach, and why. */
typedef struct expectation {
    double bytes, products;
    const char *why;
} expectation;

static const expectation rows_of_bytes = {0.85, 1.0, "rows of 16 bytes a thread, in order"};

static expectation expected_of(int op)
{
    switch (op) {
    case COUNTED_ternary_gemm:
        return (expectation){0.85, 0.88, "wgmma, tiles of 256 x 192: 0.67 of the peak"};
    case COUNTED_ternary_gemm_dx_int8:
        return (expectation){0.80, 0.88,
                             "wgmma as forward, after codes of dy and transposed weights"};
    case COUNTED_ternary_gemm_dw_int8:
        return (expectation){0.80, 0.71, "wgmma, tiles of 128 x 192 scaled every 1024 tokens"};
    case COUNTED_ternary_gemm_dx:
    case COUNTED_ternary_gemm_dw:
        return (expectation){0.85, 0.90, "cuBLASLt in bf16, after codes became bf16"};
    case COUNTED_gemm:
        return (expectation){0.85, 0.90, "cuBLASLt in bf16; f32 operands are rounded first"};
    case COUNTED_gemm_symmetric:
        return (expectation){0.85, 0.55, "mma.sync, half of the tiles"};
    case COUNTED_attention:
        return (expectation){0.85, 0.65, "cuDNN, causal"};
    case COUNTED_attention_backward:
        return (expectation){0.85, 0.50,
                             "cuDNN, causal, dq written once: ds passes through memory"};
    case COUNTED_cross_entropy:
        return (expectation){0.65, 1.0, "a row is read twice, the second time from L2"};
    default:
        return rows_of_bytes;
    }
}

static double floor_seconds(const counted_op *o)
{
    const double products = o->int8 / int8_rate + (o->dense + o->attention) / dense_rate;
    const double bytes = o->bytes / bandwidth;
    return products > bytes ? products : bytes;
}

static double expected_seconds(const counted_op *o)
{
    const expectation e = expected_of(o->op);
    const double products =
        (o->int8 / int8_rate + (o->dense + o->attention) / dense_rate) / e.products;
    const double bytes = o->bytes / bandwidth / e.bytes;
    return (products > bytes ? products : bytes) + o->around / bandwidth / e.bytes +
           o->kernels * launch_seconds;
}

static nd_status count_step(nd_run *run, int64_t rows)
{
    nd_step_result result;
    (void)rows;
    counted_start(run->backend);
    return nd_step_run(run, false, &result);
}

/* one + (layers - 1)(two - one), for each kind of call. */
static void extend(counted_list *two, const counted_list *one, double layers)
{
    for (int i = 0; i < two->count; i++) {
        counted_op *o = &two->op[i];
        counted_op less = {.calls = 0};
        for (int j = 0; j < one->count; j++)
            if (strcmp(one->op[j].name, o->name) == 0)
                less = one->op[j];
        counted_op more = *o;
        counted_add(&more, -1.0, &less);
        counted_add(o, layers - 2.0, &more);
    }
}

static int slower_first(const void *a, const void *b)
{
    const double left = expected_seconds(a), right = expected_seconds(b);
    return left < right ? 1 : left > right ? -1 : 0;
}

static void print_row(const counted_op *o)
{
    printf("| %s | %.0f | %.1f | %.1f | %.0f | %.0f | %s |\n", o->name, o->calls,
           (o->bytes + o->around) / o->calls * 1e-6,
           (o->int8 + o->dense + o->attention) / o->calls * 1e-9, floor_seconds(o) / o->calls * 1e6,
           expected_seconds(o) / o->calls * 1e6, expected_of(o->op).why);
}

/* The `rows` costliest kinds of calls, and all together. */
static void print_table(counted_list *list, double tokens, int64_t rows)
{
    double floor = 0.0, expected = 0.0, bytes = 0.0, int8 = 0.0, dense = 0.0, rest = 0.0;
    qsort(list->op, (size_t)list->count, sizeof *list->op, slower_first);
    printf("| op | calls a step | MB | GFLOP | floor, us | expected, us | why |\n"
           "|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < list->count; i++) {
        const counted_op *o = &list->op[i];
        floor += floor_seconds(o);
        expected += expected_seconds(o);
        bytes += o->bytes + o->around;
        int8 += o->int8;
        dense += o->dense + o->attention;
        if (i < rows)
            print_row(o);
        else
            rest += expected_seconds(o);
    }
    printf("| everything else | | | | | | %.1f ms a step |\n\n", rest * 1e3);
    printf("A step of %.0f tokens: floor %.1f ms, expected %.1f ms. A token: %.2fe9 operations in "
           "int8, %.2fe9 in bf16, %.1f MB; floor %.2f us, expected %.2f us: **%.1fe3 tokens/s**.\n",
           tokens, floor * 1e3, expected * 1e3, int8 / tokens * 1e-9, dense / tokens * 1e-9,
           bytes / tokens * 1e-6, floor / tokens * 1e6, expected / tokens * 1e6,
           tokens / expected * 1e-3);
}

static nd_status count_steps(nd_config *config, int64_t rows)
{
    nd_backend *backend;
    ND_AUTOFREE counted_list *lists = calloc(2, sizeof *lists);
    const int64_t layers = config->model.num_layers;
    ND_FAIL_IF(!lists, ND_ENOMEM, "no memory to count");
    for (int i = 0; i < 2; i++) {
        config->model.num_layers = i + 1;
        ND_TRY(counted_backend_create(&lists[i], &backend));
        ND_TRY(bench_with_run(config, backend, rows, count_step));
    }
    extend(&lists[1], &lists[0], (double)layers);
    print_table(&lists[1], (double)(config->training.batch_size * config->training.seq_length),
                rows);
    return ND_OK;
}

int main(int argc, char **argv)
{
    static const char *forced[] = {"data.dataset=synthetic", NULL};
    const bench_program program = {.name = "bench_gpu_count",
                                   .summary = "What a step should take on an H100, by count.",
                                   .count = "--rows",
                                   .count_help = "of the table (15)",
                                   .count_most = COUNTED_MOST,
                                   .forced = forced,
                                   .plan = count_steps};
    return bench_main(&program, argc, argv);
}
