/* Times every op of a backend at the shapes of models, beside what the machine gives: on the CPU
 * the bandwidth of memcpy and oneDNN's own products of the same shapes, on a GPU its own copy and
 * bf16 product. Medians of a few runs; the ratio in the last column compares within this run, since
 * other work on the machine shifts both.
 *
 *   bench_ops [--target cpu|cuda] [--threads N] [--tokens N] [--hidden N]
 *
 * DNNL_MAX_CPU_ISA=AVX2 and the like limit the instruction set of oneDNN. */
#include "bench_run.h"
#include "peak_product.h"
#include "timing.h"

#include "cli/args.h"
#include "core/backend/threads.h"
#include "core/base/float_formats.h"
#include "train/run/run_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS = 5, LAUNCHES = 8, MAX_BLOCKS = 64 };

typedef struct bench {
    nd_backend *b;
    double copy_rate; /* GB/s, read plus written */
    double gemm_rate; /* GFLOP/s of a device's own bf16 product; 0 on the CPU: oneDNN's counts */
    int64_t vocab;
    void *blocks[MAX_BLOCKS];
    size_t sizes[MAX_BLOCKS];
    int count;
} bench;

static void stop_on(nd_status status)
{
    if (status == ND_OK)
        return;
    fprintf(stderr, "bench_ops: %s\n", nd_error_get()->message);
    abort();
}

static nd_view tensor(bench *w, nd_dtype dtype, int64_t rows, int64_t cols)
{
    nd_view v = nd_view_of(NULL, dtype, rows, cols);
    const size_t bytes = nd_view_bytes(nd_as_const(v));
    if (w->count == MAX_BLOCKS)
        abort();
    stop_on(w->b->ops.allocate(w->b, bytes, &v.data));
    w->blocks[w->count] = v.data;
    w->sizes[w->count++] = bytes;
    return v;
}

/* Random values; codes from -1 to 1 are made by `ternarize` of such. Of ND_I32: tokens. */
static nd_view filled(bench *w, nd_dtype dtype, int64_t rows, int64_t cols)
{
    const nd_view v = tensor(w, dtype, rows, cols);
    const size_t bytes = nd_view_bytes(nd_as_const(v));
    void *host = malloc(bytes);
    if (!host)
        abort();
    for (int64_t i = 0; i < rows * cols; i++) {
        const uint32_t noise = (uint32_t)i * 2654435761u;
        const float x = (float)(noise >> 8) * 0x1p-23f - 1.0f;
        if (dtype == ND_F32)
            ((float *)host)[i] = x;
        else if (dtype == ND_BF16)
            ((uint16_t *)host)[i] = nd_bf16_from_float(x);
        else if (dtype == ND_I32)
            ((int32_t *)host)[i] = (int32_t)(i * 7919 % w->vocab);
        else
            ((int8_t *)host)[i] = (int8_t)(100.0f * x);
    }
    stop_on(w->b->ops.upload(w->b, v.data, host, bytes));
    stop_on(w->b->ops.synchronize(w->b));
    free(host);
    return v;
}

static void release_all(bench *w)
{
    while (w->count > 0) {
        w->count--;
        w->b->ops.release(w->b, w->blocks[w->count], w->sizes[w->count]);
    }
}

/* Median seconds of a call after a warm-up; on a device of several in a row, as it is used. */
#define TIME(seconds, call)                                                                        \
    do {                                                                                           \
        const int launches_ = w->b->ops.host_memory ? 1 : LAUNCHES;                                \
        double times_[REPEATS];                                                                    \
        call;                                                                                      \
        for (int repeat_ = 0; repeat_ < REPEATS; repeat_++) {                                      \
            stop_on(w->b->ops.synchronize(w->b));                                                  \
            const double start_ = nd_seconds();                                                    \
            for (int launch_ = 0; launch_ < launches_; launch_++)                                  \
                call;                                                                              \
            stop_on(w->b->ops.synchronize(w->b));                                                  \
            times_[repeat_] = (nd_seconds() - start_) / launches_;                                 \
        }                                                                                          \
        (seconds) = median(times_, REPEATS);                                                       \
    } while (0)

static void print_moved(const bench *w, const char *name, nd_dtype dtype, double seconds,
                        double bytes)
{
    const double rate = bytes / seconds * 1e-9;
    printf("  %-26s %-5s %9.3f ms %8.1f GB/s    %5.2f of a copy\n", name, nd_dtype_name(dtype),
           seconds * 1e3, rate, rate / w->copy_rate);
}

static void print_computed(const char *name, nd_dtype dtype, double seconds, double operations,
                           double limit)
{
    const double rate = operations / seconds * 1e-9;
    printf("  %-26s %-5s %9.3f ms %8.1f GFLOP/s", name, nd_dtype_name(dtype), seconds * 1e3, rate);
    if (limit > 0.0)
        printf(" %5.2f of %.0f", rate / limit, limit);
    printf("\n");
}

/* GFLOP/s to compare a product [m,k] x [k,n] with: oneDNN's (0: it has none), or the device's. */
static double limit_of(const bench *w, int64_t m, int64_t n, int64_t k, nd_dtype in, nd_dtype out)
{
    peak_product p;
    if (!w->b->ops.host_memory)
        return w->gemm_rate;
    if (!peak_create(&p, m, n, k, in, out))
        return 0.0;
    double rates[REPEATS];
    peak_measure(&p);
    for (int i = 0; i < REPEATS; i++)
        rates[i] = peak_measure(&p);
    peak_destroy(&p);
    return median(rates, REPEATS) * 1e-9;
}

typedef struct model_shape {
    int64_t tokens, dim, ffn, heads, kv_heads, seq_len, vocab;
} model_shape;

#define OP(op, ...) stop_on(w->b->ops.op(w->b, __VA_ARGS__))
#define IN(v) nd_as_const(v)

/* Times an op and prints it beside a copy of as many bytes, or beside `limit` GFLOP/s. */
#define MOVED(op, dtype, bytes, ...)                                                               \
    do {                                                                                           \
        double seconds_;                                                                           \
        TIME(seconds_, OP(op, __VA_ARGS__));                                                       \
        print_moved(w, #op, dtype, seconds_, bytes);                                               \
    } while (0)
#define COMPUTED(op, dtype, operations, limit, ...)                                                \
    do {                                                                                           \
        double seconds_;                                                                           \
        TIME(seconds_, OP(op, __VA_ARGS__));                                                       \
        print_computed(#op, dtype, seconds_, operations, limit);                                   \
    } while (0)

static void bench_products(bench *w, const model_shape *s, nd_dtype t)
{
    const int64_t sizes[][2] = {{s->dim, s->dim}, {s->ffn, s->dim}, {s->dim, s->ffn}};
    for (int i = 0; i < 3; i++) {
        const int64_t out = sizes[i][0], in = sizes[i][1], n = s->tokens;
        const double operations = 2.0 * (double)(n * out * in);
        const nd_view q = filled(w, ND_I8, n, in), c = tensor(w, ND_I8, out, in);
        const nd_view a = filled(w, ND_F32, n, 1), scale = tensor(w, ND_F32, 1, 1);
        const nd_view y = filled(w, t, n, out), dx = tensor(w, t, n, in);
        const nd_view dw = tensor(w, ND_F32, out, in), weight = filled(w, t, out, in);
        OP(ternarize, c, scale, nd_as_const(weight));
        printf(" [%lld tokens] x [%lld, %lld]\n", (long long)n, (long long)out, (long long)in);
        COMPUTED(ternary_gemm, t, operations, limit_of(w, n, out, in, ND_I8, ND_I32), y, IN(q),
                 IN(a), IN(c), IN(scale));
        COMPUTED(ternary_gemm_dx, t, operations, limit_of(w, n, in, out, t, t), dx, IN(y), IN(c),
                 IN(scale), 0.0f);
        COMPUTED(ternary_gemm_dw, t, operations, limit_of(w, out, in, n, t, ND_F32), dw, IN(y),
                 IN(q), IN(a), 1.0f);
        COMPUTED(ternary_gemm_dx_int8, t, operations, limit_of(w, n, in, out, ND_I8, ND_I32), dx,
                 IN(y), IN(c), IN(scale), 0.0f);
        COMPUTED(ternary_gemm_dw_int8, t, operations, limit_of(w, out, in, n, ND_I8, ND_I32), dw,
                 IN(y), IN(q), IN(a), 1.0f);
        COMPUTED(gemm, t, operations, limit_of(w, n, out, in, t, t), y, IN(dx), false, IN(weight),
                 true, 1.0f, 0.0f);
        release_all(w);
    }
}

static void bench_attention(bench *w, const model_shape *s, nd_dtype t)
{
    const nd_attention_shape shape = {
        s->tokens / s->seq_len, s->seq_len, s->seq_len, s->heads, s->kv_heads,
        s->dim / s->heads,      {0}};
    const int64_t kv_width = shape.kv_heads * shape.head_dim;
    const nd_view q = filled(w, t, s->tokens, s->dim), k = filled(w, t, s->tokens, kv_width);
    const nd_view v = filled(w, t, s->tokens, kv_width), o = tensor(w, t, s->tokens, s->dim);
    const nd_view lse = tensor(w, ND_F32, s->tokens, s->heads),
                  dq = tensor(w, t, s->tokens, s->dim);
    const nd_view dk = tensor(w, t, s->tokens, kv_width), dv = tensor(w, t, s->tokens, kv_width);
    /* Two products of the visible half forward, five backward. */
    const double product = (double)(s->tokens * s->seq_len * s->dim);
    double seconds;
    COMPUTED(attention, t, 2.0 * product, 0.0, o, lse, IN(q), IN(k), IN(v), &shape);
    COMPUTED(attention_backward, t, 5.0 * product, 0.0, dq, dk, dv, IN(o), IN(o), IN(lse), IN(q),
             IN(k), IN(v), &shape);
    const nd_attention_shape decode = {1,  1, s->seq_len, s->heads, s->kv_heads, s->dim / s->heads,
                                       {0}};
    const nd_cview keys = nd_cview_rows(nd_as_const(k), 0, s->seq_len);
    const nd_cview values = nd_cview_rows(nd_as_const(v), 0, s->seq_len);
    TIME(seconds, OP(attention, nd_view_rows(o, 0, 1), nd_view_rows(lse, 0, 1),
                     nd_cview_rows(nd_as_const(q), 0, 1), keys, values, &decode));
    print_moved(w, "attention, one query", t, seconds, (double)(nd_view_bytes(keys) * 2));
    release_all(w);
}

static void bench_rows(bench *w, const model_shape *s, nd_dtype t)
{
    const int64_t n = s->tokens, d = s->dim, f = s->ffn;
    const double size = (double)nd_dtype_size(t), row = (double)(n * d), wide = (double)(n * f);
    const nd_view x = filled(w, t, n, d), y = filled(w, t, n, d), dx = tensor(w, t, n, d);
    const nd_view weight = filled(w, ND_F32, 1, d), dweight = tensor(w, ND_F32, 1, d);
    const nd_view r = filled(w, ND_F32, n, 1), a = tensor(w, ND_F32, n, 1);
    const nd_view q = tensor(w, ND_I8, n, f), gate = filled(w, t, n, f), up = filled(w, t, n, f);
    const nd_view h = filled(w, t, n, f), dgate = tensor(w, t, n, f), dup = tensor(w, t, n, f);
    const nd_view wide_weight = filled(w, ND_F32, 1, f), dwide = tensor(w, ND_F32, 1, f);
    const nd_view narrow_q = nd_view_of(q.data, ND_I8, n, d);
    const nd_rope_params rope = {.head_dim = d / s->heads, .seq_len = s->seq_len, .base = 10000.0};
    MOVED(rmsnorm, t, 2.0 * size * row, y, r, IN(x), IN(weight));
    MOVED(rmsnorm_quantize, t, (size + 1.0) * row, narrow_q, a, r, IN(x), IN(weight));
    MOVED(rmsnorm_backward, t, 3.0 * size * row, dx, dweight, IN(y), IN(x), IN(weight), IN(r),
          0.0f);
    MOVED(quantize_rows, t, (size + 1.0) * row, narrow_q, a, IN(x));
    MOVED(swiglu, t, 3.0 * size * wide, h, IN(gate), IN(up));
    MOVED(swiglu_rmsnorm_quantize, t, (2.0 * size + 1.0) * wide, q, a, r, IN(gate), IN(up),
          IN(wide_weight));
    MOVED(swiglu_backward, t, 5.0 * size * wide, dgate, dup, IN(h), IN(gate), IN(up));
    MOVED(swiglu_rmsnorm_backward, t, (5.0 * size + 1.0) * wide, dgate, dup, dwide, q, a, r, IN(h),
          IN(gate), IN(up), IN(wide_weight));
    MOVED(rope, t, 2.0 * size * row, y, &rope);
    MOVED(add, t, 3.0 * size * row, dx, IN(x), IN(y));
    release_all(w);
}

static void bench_loss(bench *w, const model_shape *s, nd_dtype t)
{
    const int64_t rows = 512;
    const nd_view logits = filled(w, t, rows, s->vocab), nll = tensor(w, ND_F32, rows, 1);
    const nd_view total = tensor(w, ND_F32, rows, 1), ids = filled(w, ND_I32, 1, s->tokens);
    const nd_view table = filled(w, t, s->vocab, s->dim), x = filled(w, t, s->tokens, s->dim);
    const nd_view dtable = tensor(w, ND_F32, s->vocab, s->dim);
    const nd_cview some = nd_cview_of(ids.data, ND_I32, 1, rows);
    const nd_cross_entropy_params params = {.gradient_scale = 1.0f, .entropy_weight = 0.01f};
    const double size = (double)nd_dtype_size(t), row = (double)(s->tokens * s->dim);
    MOVED(cross_entropy, t, 2.0 * size * (double)(rows * s->vocab), nll, total, logits, some,
          &params);
    MOVED(embedding, t, 2.0 * size * row, x, IN(table), IN(ids));
    MOVED(embedding_backward, t, (size + 8.0) * row, dtable, IN(x), IN(ids));
    release_all(w);
}

static void bench_updates(bench *w, const model_shape *s, nd_dtype t)
{
    const nd_view weight = filled(w, t, s->ffn, s->dim), m = filled(w, ND_F32, s->ffn, s->dim);
    const nd_view v = tensor(w, ND_F32, s->ffn, s->dim), g = filled(w, ND_F32, s->ffn, s->dim);
    const nd_view u = tensor(w, t, s->ffn, s->dim), c = tensor(w, ND_I8, s->ffn, s->dim);
    const nd_view packed = tensor(w, ND_U8, 1, (s->ffn * s->dim + 3) / 4);
    const nd_view scale = tensor(w, ND_F32, 1, 1), sum = tensor(w, ND_F64, 1, 1);
    const nd_update_params update = {.step_size = 1e-3f, .decay = 1e-5f, .rounding_key = 1};
    const nd_adamw_params adamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1f, 0.05f, true, 1, 0};
    const double size = (double)nd_dtype_size(t), count = (double)(s->ffn * s->dim);
    MOVED(ternarize, t, (2.0 * size + 1.0) * count, c, scale, IN(weight));
    MOVED(pack_codes, ND_I8, 1.25 * count, packed, IN(c));
    MOVED(unpack_codes, ND_I8, 1.25 * count, c, IN(packed));
    const nd_view trits = tensor(w, ND_U8, 1, (s->ffn * s->dim + 4) / 5);
    MOVED(pack_trits, ND_I8, 1.2 * count, trits, IN(c));
    MOVED(unpack_trits, ND_I8, 1.2 * count, c, IN(trits));
    MOVED(momentum, t, (12.0 + size) * count, u, m, IN(g), 0.95f, 1.0f, true);
    MOVED(apply_update, t, 3.0 * size * count, weight, IN(u), &update);
    MOVED(adamw, t, (20.0 + 2.0 * size) * count, weight, m, v, IN(g), &adamw);
    const nd_view square = filled(w, t, s->dim, s->dim), gram = tensor(w, t, s->dim, s->dim);
    COMPUTED(gemm_symmetric, t, 2.0 * (double)(s->dim * s->dim * s->dim), w->gemm_rate, gram,
             IN(square), false, IN(square), 1.0f, 0.0f, 0.0f);
    MOVED(sum_squares, ND_F32, 4.0 * count, sum, IN(g));
    release_all(w);
}

/* Optimizer state in 8 and 4 bits. */
static void bench_state(bench *w, const model_shape *s)
{
    const int64_t m = s->ffn, n = s->dim, count = m * n;
    const nd_view x = filled(w, ND_F32, m, n), g = filled(w, ND_F32, m, n);
    const nd_view weight = filled(w, ND_F32, m, n);
    const nd_blocks linear = {tensor(w, ND_I8, m, n), tensor(w, ND_F32, 1, (count + 2047) / 2048),
                              2048, ND_BLOCK_LINEAR};
    const int64_t blocks = (count + 255) / 256;
    const nd_blocks first = {tensor(w, ND_U8, m, n), tensor(w, ND_F32, 1, blocks), 256,
                             ND_BLOCK_DYNAMIC};
    const nd_blocks second = {tensor(w, ND_U8, m, n), tensor(w, ND_F32, 1, blocks), 256,
                              ND_BLOCK_DYNAMIC_UNSIGNED};
    const nd_tiles tiles = {tensor(w, ND_U8, m, (n + 1) / 2),
                            tensor(w, ND_BF16, m, (n + ND_TILE - 1) / ND_TILE),
                            tensor(w, ND_BF16, (m + ND_TILE - 1) / ND_TILE, n)};
    const nd_adamw_params adamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f, 0.1f, 0.05f, true, 1, 0};
    MOVED(quantize_blocks, ND_I8, 5.0 * (double)count, &linear, IN(x));
    MOVED(dequantize_blocks, ND_I8, 5.0 * (double)count, x, &linear);
    MOVED(adamw_blocks, ND_U8, 16.0 * (double)count, weight, &first, &second, IN(g), &adamw);
    MOVED(quantize_tiles, ND_U8, 4.5 * (double)count, &tiles, IN(x));
    MOVED(dequantize_tiles, ND_U8, 8.5 * (double)count, x, &tiles, 1.0f);
    release_all(w);
}

/* GB/s of the host's memcpy by all threads, or of the device's copy. */
static double copy_rate(bench *w)
{
    const int64_t bytes = w->b->ops.host_memory ? 64 << 20 : 512 << 20, part = 1 << 20;
    const nd_view from = tensor(w, ND_U8, 1, bytes), to = tensor(w, ND_U8, 1, bytes);
    char *out = to.data;
    const char *in = from.data;
    double seconds;
    if (!w->b->ops.host_memory) {
        TIME(seconds, OP(copy, out, in, (size_t)bytes));
    } else {
#define COPY_ALL                                                                                   \
    _Pragma("omp parallel for") for (int64_t at = 0; at < bytes; at += part)                       \
        memcpy(out + at, in + at, (size_t)part)
        TIME(seconds, COPY_ALL);
#undef COPY_ALL
    }
    release_all(w);
    return 2e-9 * (double)bytes / seconds;
}

static double gemm_rate(bench *w)
{
    const int64_t side = 8192;
    const nd_view a = filled(w, ND_BF16, side, side), c = tensor(w, ND_BF16, side, side);
    double seconds;
    TIME(seconds, OP(gemm, c, nd_as_const(a), false, nd_as_const(a), true, 1.0f, 0.0f));
    release_all(w);
    return 2e-9 * (double)side * (double)side * (double)side / seconds;
}

static void bench_model(bench *w, const model_shape *m, nd_dtype t, bool state)
{
    w->vocab = m->vocab;
    printf("%lld wide, %lld tokens, %s\n", (long long)m->dim, (long long)m->tokens,
           nd_dtype_name(t));
    bench_products(w, m, t);
    bench_attention(w, m, t);
    bench_rows(w, m, t);
    bench_loss(w, m, t);
    bench_updates(w, m, t);
    if (state)
        bench_state(w, m);
}

static nd_status run(const nd_config *config, int64_t tokens, int64_t hidden)
{
    static const model_shape small[] = {{4096, 512, 1792, 8, 8, 512, 8192},
                                        {2048, 1024, 3584, 16, 4, 1024, 32000}};
    const model_shape large = {tokens, hidden, hidden * 11 / 4, hidden / 128, hidden / 512,
                               2048,   32000};
    const nd_comm alone = {.size = 1, .local_size = 1};
    bench w = {0};
    ND_TRY(nd_run_create_backend(config, &alone, &w.b));
    w.copy_rate = copy_rate(&w);
    w.gemm_rate = w.b->ops.host_memory ? 0.0 : gemm_rate(&w);
    printf("%s, copy %.1f GB/s\n", w.b->traits.device, w.copy_rate);
    if (w.gemm_rate > 0.0)
        printf("bf16 product %.0f GFLOP/s\n", w.gemm_rate);
    if (tokens > 0 || !w.b->ops.host_memory)
        bench_model(&w, &large, ND_BF16, true);
    else
        for (int i = 0; i < 4; i++)
            bench_model(&w, &small[i / 2], i % 2 ? ND_BF16 : ND_F32, i % 2 == 0);
    printf("workspace %.1f MB\n", (double)w.b->ops.workspace_bytes(w.b) * 1e-6);
    nd_backend_destroy(w.b);
    return ND_OK;
}

static nd_status bench_all(int argc, char **argv)
{
    int64_t tokens = 0, hidden = 2048, threads = 0;
    const char *target = "cpu";
    const nd_arg args[] = {
        {"--target", ND_ARG_TEXT, &target, "auto|cpu|cuda", "where to compute (cpu)"},
        {"--threads", ND_ARG_INT, &threads, "N", "of the CPU (0: all)"},
        {"--tokens", ND_ARG_INT, &tokens, "N",
         "a multiple of 2048: one large shape in bf16 (a GPU's: 16384), not two small ones"},
        {"--hidden", ND_ARG_INT, &hidden, "N", "its width, a multiple of 512 (2048)"}};
    const nd_command command = {"bench_ops [options]", "Times every op of a backend.", args,
                                sizeof args / sizeof *args};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(tokens % 2048 != 0 || hidden < 512 || hidden % 512 != 0, ND_ECONFIG,
               "--tokens is a multiple of 2048, --hidden of 512");
    nd_config config;
    nd_config_defaults(&config);
    config.hardware.threads = threads;
    ND_TRY(nd_config_set_key(&config, "hardware", "target", target, "--target"));
    return run(&config, tokens > 0 || config.hardware.target == ND_TARGET_CPU ? tokens : 16384,
               hidden);
}

int main(int argc, char **argv)
{
    nd_machine_limit_spinning(argv);
    return bench_exit("bench_ops", bench_all(argc, argv));
}
