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
#include "core/base/float_formats.h"
#include "core/base/rng.h"
#include "train/run_backend.h"

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

/* Median seconds of a call, after one to warm up: on a device of several in a row, which is what it
 * is given. */
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

/* GFLOP/s to compare a product [m,k] x [k,n] with: oneDNN's of these types on all threads, 0 where
 * it has none; the device's. */
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
        double seconds;
        TIME(seconds, OP(ternary_gemm, y, nd_as_const(q), nd_as_const(a), nd_as_const(c),
                         nd_as_const(scale)));
        print_computed("ternary_gemm", t, seconds, operations,
                       limit_of(w, n, out, in, ND_I8, ND_I32));
        TIME(seconds,
             OP(ternary_gemm_dx, dx, nd_as_const(y), nd_as_const(c), nd_as_const(scale), 0.0f));
        print_computed("ternary_gemm_dx", t, seconds, operations, limit_of(w, n, in, out, t, t));
        TIME(seconds,
             OP(ternary_gemm_dw, dw, nd_as_const(y), nd_as_const(q), nd_as_const(a), 1.0f));
        print_computed("ternary_gemm_dw", t, seconds, operations,
                       limit_of(w, out, in, n, t, ND_F32));
        TIME(seconds, OP(ternary_gemm_dx_int8, dx, nd_as_const(y), nd_as_const(c),
                         nd_as_const(scale), 0.0f));
        print_computed("ternary_gemm_dx_int8", t, seconds, operations,
                       limit_of(w, n, in, out, ND_I8, ND_I32));
        TIME(seconds,
             OP(ternary_gemm_dw_int8, dw, nd_as_const(y), nd_as_const(q), nd_as_const(a), 1.0f));
        print_computed("ternary_gemm_dw_int8", t, seconds, operations,
                       limit_of(w, out, in, n, ND_I8, ND_I32));
        TIME(seconds, OP(gemm, y, nd_as_const(dx), false, nd_as_const(weight), true, 1.0f, 0.0f));
        print_computed("gemm", t, seconds, operations, limit_of(w, n, out, in, t, t));
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
    TIME(seconds, OP(attention, o, lse, nd_as_const(q), nd_as_const(k), nd_as_const(v), &shape));
    print_computed("attention", t, seconds, 2.0 * product, 0.0);
    TIME(seconds, OP(attention_backward, dq, dk, dv, nd_as_const(o), nd_as_const(o),
                     nd_as_const(lse), nd_as_const(q), nd_as_const(k), nd_as_const(v), &shape));
    print_computed("attention_backward", t, seconds, 5.0 * product, 0.0);
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
    double seconds;
    TIME(seconds, OP(rmsnorm, y, r, nd_as_const(x), nd_as_const(weight)));
    print_moved(w, "rmsnorm", t, seconds, 2.0 * size * row);
    TIME(seconds, OP(rmsnorm_quantize, narrow_q, a, r, nd_as_const(x), nd_as_const(weight)));
    print_moved(w, "rmsnorm_quantize", t, seconds, (size + 1.0) * row);
    TIME(seconds, OP(rmsnorm_backward, dx, dweight, nd_as_const(y), nd_as_const(x),
                     nd_as_const(weight), nd_as_const(r), 0.0f));
    print_moved(w, "rmsnorm_backward", t, seconds, 3.0 * size * row);
    TIME(seconds, OP(quantize_rows, narrow_q, a, nd_as_const(x)));
    print_moved(w, "quantize_rows", t, seconds, (size + 1.0) * row);
    TIME(seconds, OP(swiglu, h, nd_as_const(gate), nd_as_const(up)));
    print_moved(w, "swiglu", t, seconds, 3.0 * size * wide);
    TIME(seconds, OP(swiglu_rmsnorm_quantize, q, a, r, nd_as_const(gate), nd_as_const(up),
                     nd_as_const(wide_weight)));
    print_moved(w, "swiglu_rmsnorm_quantize", t, seconds, (2.0 * size + 1.0) * wide);
    TIME(seconds,
         OP(swiglu_backward, dgate, dup, nd_as_const(h), nd_as_const(gate), nd_as_const(up)));
    print_moved(w, "swiglu_backward", t, seconds, 5.0 * size * wide);
    TIME(seconds, OP(swiglu_rmsnorm_backward, dgate, dup, dwide, nd_as_const(h), nd_as_const(gate),
                     nd_as_const(up), nd_as_const(wide_weight), nd_as_const(r)));
    print_moved(w, "swiglu_rmsnorm_backward", t, seconds, 5.0 * size * wide);
    TIME(seconds, OP(rope, y, &rope));
    print_moved(w, "rope", t, seconds, 2.0 * size * row);
    TIME(seconds, OP(add, dx, nd_as_const(x), nd_as_const(y)));
    print_moved(w, "add", t, seconds, 3.0 * size * row);
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
    double seconds;
    TIME(seconds, OP(cross_entropy, nll, total, logits, some, &params));
    print_moved(w, "cross_entropy", t, seconds, 2.0 * size * (double)(rows * s->vocab));
    TIME(seconds, OP(embedding, x, nd_as_const(table), nd_as_const(ids)));
    print_moved(w, "embedding", t, seconds, 2.0 * size * row);
    TIME(seconds, OP(embedding_backward, dtable, nd_as_const(x), nd_as_const(ids)));
    print_moved(w, "embedding_backward", t, seconds, (size + 8.0) * row);
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
    double seconds;
    TIME(seconds, OP(ternarize, c, scale, nd_as_const(weight)));
    print_moved(w, "ternarize", t, seconds, (2.0 * size + 1.0) * count);
    TIME(seconds, OP(pack_codes, packed, nd_as_const(c)));
    print_moved(w, "pack_codes", ND_I8, seconds, 1.25 * count);
    TIME(seconds, OP(unpack_codes, c, nd_as_const(packed)));
    print_moved(w, "unpack_codes", ND_I8, seconds, 1.25 * count);
    const nd_view trits = tensor(w, ND_U8, 1, (s->ffn * s->dim + 4) / 5);
    TIME(seconds, OP(pack_trits, trits, nd_as_const(c)));
    print_moved(w, "pack_trits", ND_I8, seconds, 1.2 * count);
    TIME(seconds, OP(unpack_trits, c, nd_as_const(trits)));
    print_moved(w, "unpack_trits", ND_I8, seconds, 1.2 * count);
    TIME(seconds, OP(momentum, u, m, nd_as_const(g), 0.95f, 1.0f, true));
    print_moved(w, "momentum", t, seconds, (12.0 + size) * count);
    TIME(seconds, OP(apply_update, weight, nd_as_const(u), &update));
    print_moved(w, "apply_update", t, seconds, 3.0 * size * count);
    TIME(seconds, OP(adamw, weight, m, v, nd_as_const(g), &adamw));
    print_moved(w, "adamw", t, seconds, (20.0 + 2.0 * size) * count);
    const nd_view square = filled(w, t, s->dim, s->dim), gram = tensor(w, t, s->dim, s->dim);
    TIME(seconds, OP(gemm_symmetric, gram, nd_as_const(square), false, nd_as_const(square), 1.0f,
                     0.0f, 0.0f));
    print_computed("gemm_symmetric", t, seconds, 2.0 * (double)(s->dim * s->dim * s->dim),
                   w->gemm_rate);
    TIME(seconds, OP(sum_squares, sum, nd_as_const(g)));
    print_moved(w, "sum_squares", ND_F32, seconds, 4.0 * count);
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
    double seconds;
    TIME(seconds, OP(quantize_blocks, &linear, nd_as_const(x)));
    print_moved(w, "quantize_blocks", ND_I8, seconds, 5.0 * (double)count);
    TIME(seconds, OP(dequantize_blocks, x, &linear));
    print_moved(w, "dequantize_blocks", ND_I8, seconds, 5.0 * (double)count);
    TIME(seconds, OP(adamw_blocks, weight, &first, &second, nd_as_const(g), &adamw));
    print_moved(w, "adamw_blocks", ND_U8, seconds, 16.0 * (double)count);
    TIME(seconds, OP(quantize_tiles, &tiles, nd_as_const(x)));
    print_moved(w, "quantize_tiles", ND_U8, seconds, 4.5 * (double)count);
    TIME(seconds, OP(dequantize_tiles, x, &tiles, 1.0f));
    print_moved(w, "dequantize_tiles", ND_U8, seconds, 8.5 * (double)count);
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
    nd_config *config = calloc(1, sizeof *config);
    ND_FAIL_IF(!config, ND_ENOMEM, "no memory for a configuration");
    nd_config_defaults(config);
    config->hardware.threads = threads;
    nd_status status = nd_config_set_key(config, "hardware", "target", target, "--target");
    ND_IF_OK(run(config, tokens > 0 || config->hardware.target == ND_TARGET_CPU ? tokens : 16384,
                 hidden));
    free(config);
    return status;
}

int main(int argc, char **argv)
{
    return bench_exit("bench_ops", bench_all(argc, argv));
}
