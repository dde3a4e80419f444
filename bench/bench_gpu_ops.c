/* Every heavy op at the shape of a 1.5B model, against the copy bandwidth and the product's speed
 * measured in the same run.
 *
 *   bench_gpu_ops [--tokens N] [--hidden N] [--target cpu|cuda]
 *
 * Bytes count each input read once and each output written once. Medians of several runs of several
 * launches; inputs are random. */
#include "cli/args.h"
#include "core/base/float_formats.h"
#include "core/base/rng.h"
#include "train/run_backend.h"

#include "drawn.h"
#include "timing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 7, LAUNCHES = 8 };

typedef struct workbench {
    nd_backend *b;
    int64_t t, d, f, heads, kv_heads, head_dim, vocab;
    nd_view x, y, z, wide, gate, up, dgate, dup; /* bf16 [t, d] and [t, f] */
    nd_view q, a, q_wide;                        /* i8 [t, d], f32 [t, 1], i8 [t, f] */
    nd_view codes, scale, packed;                /* of [f, d] */
    nd_view w, dw, u, m;                         /* f32 [f, d] */
    nd_view square[2];                           /* bf16 [d, d] */
    nd_view norm, dnorm, norm_wide, dnorm_wide, r, lse, k, v, dk, dv, logits, nll, targets, ids,
        table;
} workbench;

typedef nd_status (*op_case)(workbench *s);

static nd_status make(workbench *s, nd_view *v, nd_dtype type, int64_t rows, int64_t cols)
{
    const size_t size = nd_dtype_size(type), bytes = (size_t)(rows * cols) * size;
    unsigned char *host = malloc(bytes);
    void *memory = NULL;
    if (!host)
        return ND_FAIL(ND_ENOMEM, "no memory for %zu bytes", bytes);
    for (int64_t i = 0; i < DRAWN && i < rows * cols; i++) {
        const float value = (float)nd_rng_uniform(11, (uint64_t)i) - 0.5f;
        const uint16_t narrow = nd_bf16_from_float(value);
        if (type == ND_F32)
            memcpy(host + 4 * i, &value, 4);
        else if (type == ND_BF16)
            memcpy(host + 2 * i, &narrow, 2);
        else if (type == ND_I8)
            host[i] = (unsigned char)(int8_t)(value * 200.0f);
        else if (type == ND_I32)
            ((int32_t *)(void *)host)[i] = (int32_t)((value + 0.5f) * (float)(s->vocab - 1));
        else
            host[i] = 0x55;
    }
    repeat_drawn(host, size, bytes);
    nd_status status = s->b->ops.allocate(s->b, bytes, &memory);
    if (status == ND_OK)
        status = s->b->ops.upload(s->b, memory, host, bytes);
    free(host);
    *v = nd_view_of(memory, type, rows, cols);
    return status;
}

static nd_status prepare(workbench *s)
{
    const int64_t t = s->t, d = s->d, f = s->f, kv = s->kv_heads * s->head_dim;
    struct {
        nd_view *v;
        nd_dtype type;
        int64_t rows, cols;
    } const all[] = {{&s->x, ND_BF16, t, d},
                     {&s->y, ND_BF16, t, d},
                     {&s->z, ND_BF16, t, d},
                     {&s->wide, ND_BF16, t, f},
                     {&s->gate, ND_BF16, t, f},
                     {&s->up, ND_BF16, t, f},
                     {&s->dgate, ND_BF16, t, f},
                     {&s->dup, ND_BF16, t, f},
                     {&s->q, ND_I8, t, d},
                     {&s->a, ND_F32, t, 1},
                     {&s->q_wide, ND_I8, t, f},
                     {&s->codes, ND_I8, f, d},
                     {&s->scale, ND_F32, 1, 1},
                     {&s->packed, ND_U8, 1, f * d / 4},
                     {&s->w, ND_F32, f, d},
                     {&s->dw, ND_F32, f, d},
                     {&s->u, ND_F32, f, d},
                     {&s->m, ND_F32, f, d},
                     {&s->square[0], ND_BF16, d, d},
                     {&s->square[1], ND_BF16, d, d},
                     {&s->norm, ND_F32, 1, d},
                     {&s->dnorm, ND_F32, 1, d},
                     {&s->norm_wide, ND_F32, 1, f},
                     {&s->dnorm_wide, ND_F32, 1, f},
                     {&s->r, ND_F32, t, 1},
                     {&s->lse, ND_F32, t, s->heads},
                     {&s->k, ND_BF16, t, kv},
                     {&s->v, ND_BF16, t, kv},
                     {&s->dk, ND_BF16, t, kv},
                     {&s->dv, ND_BF16, t, kv},
                     {&s->logits, ND_F32, 1024, s->vocab},
                     {&s->nll, ND_F32, 1024, 1},
                     {&s->targets, ND_I32, 1024, 1},
                     {&s->ids, ND_I32, 1, t},
                     {&s->table, ND_F32, s->vocab, d}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ND_TRY(make(s, all[i].v, all[i].type, all[i].rows, all[i].cols));
    return s->b->ops.ternarize(s->b, s->codes, s->scale, nd_as_const(s->w));
}

#define CASE(name, op, ...)                                                                        \
    static nd_status name##_case(workbench *s)                                                     \
    {                                                                                              \
        return s->b->ops.op(s->b, __VA_ARGS__);                                                    \
    }

CASE(copy, copy, s->dw.data, s->w.data, nd_view_bytes(nd_as_const(s->w)))
CASE(ternarize, ternarize, s->codes, s->scale, nd_as_const(s->w))
CASE(unpack, unpack_codes, s->codes, nd_as_const(s->packed))
CASE(rmsnorm_quantize, rmsnorm_quantize, s->q, s->a, s->r, nd_as_const(s->x), nd_as_const(s->norm))
CASE(forward, ternary_gemm, s->wide, nd_as_const(s->q), nd_as_const(s->a), nd_as_const(s->codes),
     nd_as_const(s->scale))
CASE(dx, ternary_gemm_dx, s->y, nd_as_const(s->wide), nd_as_const(s->codes), nd_as_const(s->scale),
     0.0f)
CASE(dw, ternary_gemm_dw, s->dw, nd_as_const(s->wide), nd_as_const(s->q), nd_as_const(s->a), 0.0f)
CASE(dx_int8, ternary_gemm_dx_int8, s->y, nd_as_const(s->wide), nd_as_const(s->codes),
     nd_as_const(s->scale), 0.0f)
CASE(dw_int8, ternary_gemm_dw_int8, s->dw, nd_as_const(s->wide), nd_as_const(s->q),
     nd_as_const(s->a), 0.0f)
CASE(swiglu_quantize, swiglu_rmsnorm_quantize, s->q_wide, s->a, s->r, nd_as_const(s->gate),
     nd_as_const(s->up), nd_as_const(s->norm_wide))
CASE(swiglu_backward, swiglu_rmsnorm_backward, s->dgate, s->dup, s->dnorm_wide,
     nd_as_const(s->wide), nd_as_const(s->gate), nd_as_const(s->up), nd_as_const(s->norm_wide),
     nd_as_const(s->r))
CASE(rmsnorm_backward, rmsnorm_backward, s->y, s->dnorm, nd_as_const(s->z), nd_as_const(s->x),
     nd_as_const(s->norm), nd_as_const(s->r), 1.0f)
CASE(add, add, s->y, nd_as_const(s->x), nd_as_const(s->z))
CASE(embedding_backward, embedding_backward, s->table, nd_as_const(s->x), nd_as_const(s->ids))
CASE(momentum, momentum, s->u, s->m, nd_as_const(s->w), 0.95f, 1.0f, true)
CASE(sum_squares, sum_squares, nd_view_of(s->nll.data, ND_F64, 1, 1), nd_as_const(s->w))
CASE(gram, gemm_symmetric, s->square[1], nd_as_const(s->square[0]), false, 1.0f)
CASE(product, gemm, s->wide, nd_as_const(s->x), false, nd_cview_of(s->w.data, ND_BF16, s->f, s->d),
     true, 1.0f, 0.0f)

static nd_status rope_case(workbench *s)
{
    const nd_rope_params p = {.head_dim = s->head_dim, .seq_len = 2048, .base = 10000.0};
    return s->b->ops.rope(s->b, s->y, &p);
}

static nd_status cross_entropy_case(workbench *s)
{
    const nd_cross_entropy_params p = {.entropy_weight = 0.01f, .gradient_scale = 1e-4f};
    return s->b->ops.cross_entropy(s->b, s->nll, s->nll, s->logits, nd_as_const(s->targets), &p);
}

static nd_attention_shape shape_of(const workbench *s)
{
    return (nd_attention_shape){.sequences = s->t / 2048,
                                .query_len = 2048,
                                .key_len = 2048,
                                .heads = s->heads,
                                .kv_heads = s->kv_heads,
                                .head_dim = s->head_dim};
}

static nd_status attention_case(workbench *s)
{
    const nd_attention_shape shape = shape_of(s);
    return s->b->ops.attention(s->b, s->y, s->lse, nd_as_const(s->x), nd_as_const(s->k),
                               nd_as_const(s->v), &shape);
}

static nd_status attention_backward_case(workbench *s)
{
    const nd_attention_shape shape = shape_of(s);
    return s->b->ops.attention_backward(s->b, s->z, s->dk, s->dv, nd_as_const(s->x),
                                        nd_as_const(s->y), nd_as_const(s->lse), nd_as_const(s->x),
                                        nd_as_const(s->k), nd_as_const(s->v), &shape);
}

static nd_status adamw_case(workbench *s)
{
    const nd_adamw_params p = {.learning_rate = 1e-4f,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .epsilon = 1e-8f,
                               .gradient_scale = 1.0f,
                               .correction1 = 0.5f,
                               .correction2 = 0.5f};
    return s->b->ops.adamw(s->b, s->dw, s->m, s->u, nd_as_const(s->w), &p);
}

/* The median time of one launch. */
static nd_status time_of(workbench *s, op_case run, double *best)
{
    double times[ROUNDS];
    ND_TRY(run(s));
    for (int i = 0; i < ROUNDS; i++) {
        ND_TRY(s->b->ops.synchronize(s->b));
        const double start = seconds();
        for (int j = 0; j < LAUNCHES; j++)
            ND_TRY(run(s));
        ND_TRY(s->b->ops.synchronize(s->b));
        times[i] = (seconds() - start) / LAUNCHES;
    }
    *best = median(times, ROUNDS);
    return ND_OK;
}

static nd_status measure(workbench *s)
{
    const double t = (double)s->t, d = (double)s->d, f = (double)s->f;
    const double kv = (double)(s->kv_heads * s->head_dim), v = (double)s->vocab;
    const double sights = t * 2048.0 / 2.0 * d * 2.0; /* FLOP of one product over visible keys */
    struct {
        const char *name;
        op_case run;
        double bytes, flops;
    } const ops[] = {
        {"copy (the limit of bytes)", copy_case, 8 * f * d, 0},
        {"gemm bf16 (the limit of FLOP)", product_case, 2 * (t * d + f * d + t * f), 2 * t * d * f},
        {"ternary_gemm", forward_case, t * d + f * d + 2 * t * f, 2 * t * d * f},
        {"ternary_gemm_dx", dx_case, 2 * t * f + f * d + 2 * t * d, 2 * t * d * f},
        {"ternary_gemm_dw", dw_case, 2 * t * f + t * d + 4 * f * d, 2 * t * d * f},
        {"ternary_gemm_dx_int8", dx_int8_case, 2 * t * f + f * d + 2 * t * d, 2 * t * d * f},
        {"ternary_gemm_dw_int8", dw_int8_case, 2 * t * f + t * d + 4 * f * d, 2 * t * d * f},
        {"gemm_symmetric", gram_case, 4 * d * d, 2 * d * d * d},
        {"attention", attention_case, 2 * (2 * t * d + 2 * t * kv), 2 * sights},
        {"attention_backward", attention_backward_case, 2 * (4 * t * d + 4 * t * kv), 5 * sights},
        {"rmsnorm_quantize", rmsnorm_quantize_case, 3 * t * d, 0},
        {"rmsnorm_backward", rmsnorm_backward_case, 8 * t * d, 0},
        {"swiglu_rmsnorm_quantize", swiglu_quantize_case, 5 * t * f, 0},
        {"swiglu_rmsnorm_backward", swiglu_backward_case, 10 * t * f, 0},
        {"rope", rope_case, 4 * t * d, 0},
        {"add", add_case, 6 * t * d, 0},
        {"cross_entropy", cross_entropy_case, 8 * 1024 * v, 0},
        {"embedding_backward", embedding_backward_case, 2 * t * d + 8 * t * d, 0},
        {"ternarize", ternarize_case, 5 * f * d, 0},
        {"unpack_codes", unpack_case, 1.25 * f * d, 0},
        {"momentum", momentum_case, 16 * f * d, 0},
        {"adamw", adamw_case, 28 * f * d, 0},
        {"sum_squares", sum_squares_case, 4 * f * d, 0},
    };
    double bandwidth = 0.0, rate = 0.0;
    printf("%lld tokens, %lld wide, feed-forward %lld, %lld heads over %lld, backend %s\n",
           (long long)s->t, (long long)s->d, (long long)s->f, (long long)s->heads,
           (long long)s->kv_heads, s->b->ops.name);
    printf("%-32s %10s %10s %10s %8s\n", "op", "us", "GB/s", "TFLOP/s", "of limit");
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        double time = 0.0;
        ND_TRY(time_of(s, ops[i].run, &time));
        if (i == 0)
            bandwidth = ops[i].bytes / time;
        if (i == 1)
            rate = ops[i].flops / time;
        const double by_bytes = ops[i].bytes / bandwidth;
        const double by_flops = rate > 0.0 ? ops[i].flops / rate : 0.0;
        const double floor_time = by_bytes > by_flops ? by_bytes : by_flops;
        printf("%-32s %10.1f %10.0f %10.1f %7.0f%%\n", ops[i].name, 1e6 * time,
               1e-9 * ops[i].bytes / time, 1e-12 * ops[i].flops / time, 100.0 * floor_time / time);
        fflush(stdout); /* what is measured stays when time is up */
    }
    return ND_OK;
}

static nd_status bench(int argc, char **argv)
{
    int64_t tokens = 16384, hidden = 2048;
    const char *target = "auto";
    bool helped;
    const nd_arg args[] = {
        {"--tokens", ND_ARG_INT, &tokens, "N", "tokens of a micro-batch, a multiple of 2048"},
        {"--hidden", ND_ARG_INT, &hidden, "N", "hidden_dim, a multiple of 512"},
        {"--target", ND_ARG_TEXT, &target, "auto|cpu|cuda", "where to compute"},
    };
    const nd_command command = {"bench_gpu_ops [options]", "Times every heavy op of a backend.",
                                args, sizeof args / sizeof *args};
    ND_TRY(nd_args_parse(&command, argc, argv, NULL, &helped));
    if (helped)
        return ND_OK;
    if (tokens < 2048 || tokens % 2048 != 0 || hidden < 512 || hidden % 512 != 0)
        return ND_FAIL(ND_ECONFIG, "--tokens is a multiple of 2048, --hidden of 512");
    nd_config *config = calloc(1, sizeof *config);
    if (!config)
        return ND_FAIL(ND_ENOMEM, "no memory for a configuration");
    nd_config_defaults(config);
    const nd_comm alone = {.size = 1, .local_size = 1};
    workbench s = {.t = tokens,
                   .d = hidden,
                   .f = hidden * 11 / 4,
                   .heads = hidden / 128,
                   .kv_heads = hidden / 512,
                   .head_dim = 128,
                   .vocab = 32000};
    nd_status status = nd_config_set_key(config, "hardware", "target", target, "--target");
    if (status == ND_OK)
        status = nd_run_create_backend(config, &alone, &s.b);
    free(config);
    if (status == ND_OK)
        status = prepare(&s);
    if (status == ND_OK)
        status = measure(&s);
    return status; /* the process ends here, and with it the memory */
}

int main(int argc, char **argv)
{
    const nd_status status = bench(argc, argv);
    if (status != ND_OK)
        fprintf(stderr, "bench_gpu_ops: %s\n", nd_error_get()->message);
    return nd_error_exit_code(status);
}
