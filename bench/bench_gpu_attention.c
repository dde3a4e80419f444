/* Attention by the builtin kernels and by cuDNN, forward and backward, at the shapes of models.
 *
 *   bench_gpu_attention [--tokens N] [--target cpu|cuda]
 *
 * FLOP count products over visible keys: two forward, five backward. Medians of several runs of
 * several launches on random data. Where cuDNN is missing or refuses a shape, the line says why. */
#include "bench_run.h"
#include "timing.h"

#include "cli/args.h"
#include "train/run/run_backend.h"

#include <stdio.h>
#include <string.h>

enum { ROUNDS = 5, LAUNCHES = 8, BUFFERS = 9 };

/* length, heads, heads of k and v, head_dim */
static const int64_t shapes[][4] = {
    {1024, 12, 12, 64}, {1024, 12, 4, 64},  {2048, 16, 4, 64},  {2048, 16, 16, 128},
    {2048, 16, 4, 128}, {2048, 32, 8, 128}, {4096, 32, 8, 128}, {1000, 16, 4, 64},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct workbench {
    nd_backend *b;
    nd_view v[BUFFERS]; /* q, k, v, dout, o, lse, dq, dk, dv */
    nd_attention_shape shape;
} workbench;

static nd_status prepare(workbench *w, const int64_t s[4], int64_t tokens)
{
    const int64_t sequences = tokens / s[0] > 0 ? tokens / s[0] : 1, rows = sequences * s[0];
    const int64_t width = s[1] * s[3], kv = s[2] * s[3];
    const int64_t cols[BUFFERS] = {width, kv, kv, width, width, s[1], width, kv, kv};
    w->shape = (nd_attention_shape){sequences, s[0], s[0], s[1], s[2], s[3], {0}};
    for (int i = 0; i < BUFFERS; i++)
        ND_TRY(bench_allocate(w->b, i == 5 ? ND_F32 : ND_BF16, rows, cols[i], &w->v[i]));
    return ND_OK;
}

static void release(workbench *w)
{
    for (int i = 0; i < BUFFERS; i++)
        w->b->ops.release(w->b, w->v[i].data, nd_view_bytes(nd_as_const(w->v[i])));
}

static nd_status pass(workbench *w, bool backward)
{
    const nd_view *v = w->v;
    if (!backward)
        return w->b->ops.attention(w->b, v[4], v[5], nd_as_const(v[0]), nd_as_const(v[1]),
                                   nd_as_const(v[2]), &w->shape);
    return w->b->ops.attention_backward(w->b, v[6], v[7], v[8], nd_as_const(v[3]),
                                        nd_as_const(v[4]), nd_as_const(v[5]), nd_as_const(v[0]),
                                        nd_as_const(v[1]), nd_as_const(v[2]), &w->shape);
}

static nd_status time_of(workbench *w, bool backward, double *best)
{
    double times[ROUNDS];
    ND_TRY(pass(w, false));
    ND_TRY(pass(w, backward));
    for (int i = 0; i < ROUNDS; i++) {
        ND_TRY(w->b->ops.synchronize(w->b));
        const double start = nd_seconds();
        for (int j = 0; j < LAUNCHES; j++)
            ND_TRY(pass(w, backward));
        ND_TRY(w->b->ops.synchronize(w->b));
        times[i] = (nd_seconds() - start) / LAUNCHES;
    }
    *best = median(times, ROUNDS);
    return ND_OK;
}

/* A line of the table; a refusal is printed and is no error. */
static nd_status measure(workbench *w, const char *kind, bool backward)
{
    const nd_attention_shape *s = &w->shape;
    double time = 0.0;
    const double product = (double)s->sequences * (double)s->heads * (double)s->query_len *
                           (double)s->key_len * (double)s->head_dim;
    printf("%-8s %5lld x %-5lld %3lld/%-3lld %4lld  %-6s", backward ? "backward" : "forward",
           (long long)s->sequences, (long long)s->query_len, (long long)s->heads,
           (long long)s->kv_heads, (long long)s->head_dim, kind);
    const nd_status status = time_of(w, backward, &time);
    if (status == ND_ECONFIG) {
        printf(" %s\n", nd_error_get()->message);
        nd_error_clear();
        return ND_OK;
    }
    if (status != ND_OK)
        return status;
    printf(" %10.1f us %8.1f TFLOP/s  workspace %8.1f MiB\n", 1e6 * time,
           1e-12 * product * (backward ? 5.0 : 2.0) / time,
           (double)w->b->ops.workspace_bytes(w->b) / 1048576.0);
    fflush(stdout); /* what is measured stays when time is up */
    return ND_OK;
}

static nd_status measure_shape(nd_backend *b, const char *kind, const int64_t s[4], int64_t tokens)
{
    workbench w = {.b = b};
    nd_status status = prepare(&w, s, tokens);
    for (int backward = 0; status == ND_OK && backward < 2; backward++)
        status = measure(&w, kind, backward);
    release(&w);
    return status;
}

/* One backend for all shapes: opening libraries takes seconds, and the workspace is reused. */
static nd_status measure_all(nd_config *config, const char *kind, int64_t tokens)
{
    const nd_comm alone = {.size = 1, .local_size = 1};
    nd_backend *b = NULL;
    ND_TRY(nd_config_set_key(config, "hardware", "attention_backend", kind, kind));
    nd_status status = nd_run_create_backend(config, &alone, &b);
    for (int i = 0; status == ND_OK && i < SHAPES; i++)
        status = measure_shape(b, kind, shapes[i], tokens);
    nd_backend_destroy(b);
    return status;
}

static nd_status bench(int argc, char **argv)
{
    int64_t tokens = 16384;
    const char *target = "auto";
    const nd_arg args[] = {
        {"--tokens", ND_ARG_INT, &tokens, "N", "tokens of a call, at least one sequence"},
        {"--target", ND_ARG_TEXT, &target, "auto|cpu|cuda", "where to compute"},
    };
    const nd_command command = {"bench_gpu_attention [options]",
                                "Times attention by the built-in kernel and by cuDNN.", args,
                                sizeof args / sizeof *args};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(tokens < 1 || tokens > (1 << 24), ND_ECONFIG, "--tokens is from 1 to %d", 1 << 24);
    nd_config config;
    nd_config_defaults(&config);
    nd_status status = nd_config_set_key(&config, "hardware", "target", target, "--target");
    ND_IF_OK(measure_all(&config, "builtin", tokens));
    if (status == ND_OK && config.hardware.target != ND_TARGET_CPU) {
        status = measure_all(&config, "cudnn", tokens);
        if (status != ND_OK && status != ND_ENOMEM) { /* a GPU without cuDNN */
            printf("cudnn: %s\n", nd_error_get()->message);
            nd_error_clear();
            status = ND_OK;
        }
    }
    return status;
}

int main(int argc, char **argv)
{
    return bench_exit("bench_gpu_attention", bench(argc, argv));
}
