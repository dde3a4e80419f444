/* What goes through cuDNN, what does not, and what is said of it: on the emulated device, whose
 * cuDNN fails as the environment variable ND_EMULATED_CUDNN says. */
#include "cuda/emulated_backend.h"
#include "support/support.h"

#include "core/base/float_formats.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 48, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 16, LINE = 4096 };

typedef struct device {
    nd_backend *b, *cpu;
    nd_log log;
    char *said; /* what the backend told the log */
    size_t said_bytes;
    /* every one a multiple of 16 bytes */
    _Alignas(16) uint16_t q[ROWS * HEADS * HEAD_DIM];
    uint16_t k[ROWS * KV_HEADS * HEAD_DIM];
    uint16_t o[ROWS * HEADS * HEAD_DIM], dq[ROWS * HEADS * HEAD_DIM];
    uint16_t dk[ROWS * KV_HEADS * HEAD_DIM], dv[ROWS * KV_HEADS * HEAD_DIM];
    float lse[ROWS * HEADS];
} device;

static nd_status open_device(device *d, nd_cuda_attention attention, const char *wrong)
{
    memset(d, 0, sizeof *d);
    setenv("ND_EMULATED_CUDNN", wrong, 1);
    ND_TRY(nd_emulated_backend_create(&(nd_cuda_options){.attention = attention}, &d->b));
    d->log.terminal = open_memstream(&d->said, &d->said_bytes);
    d->b->log = &d->log;
    for (int i = 0; i < ROWS * HEADS * HEAD_DIM; i++)
        d->q[i] = nd_bf16_from_float((float)nd_rng_uniform(3, (uint64_t)i) - 0.5f);
    for (int i = 0; i < ROWS * KV_HEADS * HEAD_DIM; i++)
        d->k[i] = nd_bf16_from_float((float)nd_rng_uniform(4, (uint64_t)i) - 0.5f);
    return ND_OK;
}

static void close_device(device *d)
{
    nd_backend_destroy(d->b);
    fclose(d->log.terminal);
    free(d->said);
}

static nd_view bf16(uint16_t *data, int64_t heads)
{
    return nd_view_of(data, ND_BF16, ROWS, heads * HEAD_DIM);
}

/* Forward and backward over sequences of `length`; k stands for the values too. */
static nd_status pass(device *d, nd_backend *b, int64_t length)
{
    const nd_attention_shape s = {ROWS / length, length, length, HEADS, KV_HEADS, HEAD_DIM, {0}};
    const nd_cview q = nd_as_const(bf16(d->q, HEADS)), k = nd_as_const(bf16(d->k, KV_HEADS));
    const nd_view lse = nd_view_of(d->lse, ND_F32, ROWS, HEADS), o = bf16(d->o, HEADS);
    ND_TRY(b->ops.attention(b, o, lse, q, k, k, &s));
    return b->ops.attention_backward(b, bf16(d->dq, HEADS), bf16(d->dk, KV_HEADS),
                                     bf16(d->dv, KV_HEADS), q, nd_as_const(o), nd_as_const(lse), q,
                                     k, k, &s);
}

static void check_against_cpu(device *d, int64_t length)
{
    static device expected;
    nd_backend *cpu = NULL;
    expected = *d;
    const nd_cpu_backend_options options = {.threads = 1, .reference_only = true};
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &cpu));
    ND_ASSERT_OK(pass(&expected, cpu, length));
    double difference = 0.0, norm = 0.0;
    for (int i = 0; i < ROWS * KV_HEADS * HEAD_DIM; i++) {
        const double y = nd_bf16_to_float(expected.dk[i]);
        difference += pow(nd_bf16_to_float(d->dk[i]) - y, 2.0);
        norm += y * y;
    }
    cr_assert(difference <= 3e-4 * norm, "%g of %g", difference, norm);
    nd_backend_destroy(cpu);
}

static int lines_with(const device *d, const char *text)
{
    int count = 0;
    for (const char *at = d->said; at && (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

/* What goes wrong with the library, and how the log gives the reason. */
static const struct {
    const char *wrong, *reason;
    bool at_start; /* and not for one shape */
} failures[] = {
    {"missing", "libcudnn.so.9, which cannot be opened", true},
    {"old", "cuDNN 9.1.0 is too old for attention, which takes 9.11", true},
    {"create", "cudnnCreate", true},
    {"heuristics", "NOT_SUPPORTED: as the test wants", false},
    {"no engines", "no engine computes it", false},
    {"bits", "engine 1 does not give the same bits every time", false},
    {"workspace", "needs a workspace of 1099511627776 bytes", false},
    {"plan", "engine 1: NOT_SUPPORTED: as the test wants", false},
    {"execute", "cuDNN: attention: BAD_PARAM: as the test wants", false},
    {"mask", "its o is off by ", false},
    {"mask", "its dq is off by ", false},
};
enum { FAILURES = sizeof failures / sizeof *failures };

Test(cudnn_choice, auto_takes_cudnn_and_says_so_once_a_shape)
{
    static device d;
    ND_ASSERT_OK(open_device(&d, ND_CUDA_ATTENTION_AUTO, ""));
    for (int i = 0; i < 3; i++)
        ND_ASSERT_OK(pass(&d, d.b, 24));
    cr_assert_eq(lines_with(&d, "\n"), 2, "%s", d.said);
    cr_assert(strstr(d.said, "attention of 2 x 24 tokens, 4 heads over 2 of 16: cuDNN engine 1, "
                             "workspace 0.0 MiB") != NULL,
              "%s", d.said);
    cr_assert_eq(lines_with(&d, "attention_backward of 2 x 24 tokens"), 1);
    check_against_cpu(&d, 24);
    ND_ASSERT_OK(pass(&d, d.b, 16));
    cr_assert_eq(lines_with(&d, "\n"), 4, "%s", d.said);
    close_device(&d);
}

Test(cudnn_choice, auto_falls_back_to_the_builtin_kernels_with_the_reason)
{
    static device d;
    for (int i = 0; i < FAILURES; i++) {
        ND_ASSERT_OK(open_device(&d, ND_CUDA_ATTENTION_AUTO, failures[i].wrong));
        for (int repeat = 0; repeat < 2; repeat++)
            ND_ASSERT_OK(pass(&d, d.b, 24));
        cr_assert_eq(nd_error_get()->status, ND_OK, "%s", nd_error_get()->message);
        cr_assert_eq(lines_with(&d, "builtin kernels"), failures[i].at_start ? 1 : 2, "%s: %s",
                     failures[i].wrong, d.said);
        cr_assert(strstr(d.said, failures[i].reason) != NULL, "%s: %s", failures[i].wrong, d.said);
        check_against_cpu(&d, 24);
        close_device(&d);
    }
}

Test(cudnn_choice, insisting_on_cudnn_makes_the_reason_an_error)
{
    static device d;
    for (int i = 0; i < FAILURES; i++) {
        const nd_status opened = open_device(&d, ND_CUDA_ATTENTION_CUDNN, failures[i].wrong);
        cr_assert_eq(opened != ND_OK, failures[i].at_start, "%s", failures[i].wrong);
        if (failures[i].at_start) {
            cr_assert(strstr(nd_error_get()->message, failures[i].reason) != NULL, "%s",
                      nd_error_get()->message);
            nd_error_clear();
            continue;
        }
        ND_ASSERT_FAILS(
            pass(&d, d.b, 24), ND_ECONFIG,
            "[hardware] attention_backend = cudnn, but cuDNN refuses attention of 2 x 24 "
            "tokens, 4 heads over 2 of 16: ");
        cr_assert(strstr(nd_error_get()->message, "use attention_backend = auto") != NULL);
        nd_error_clear();
        close_device(&d);
    }
}

Test(cudnn_choice, a_call_that_fails_later_is_an_error)
{
    static device d;
    ND_ASSERT_OK(open_device(&d, ND_CUDA_ATTENTION_AUTO, ""));
    ND_ASSERT_OK(pass(&d, d.b, 24));
    setenv("ND_EMULATED_CUDNN", "execute", 1);
    ND_ASSERT_FAILS(pass(&d, d.b, 24), ND_EINTERNAL, "cuDNN: attention: BAD_PARAM");
    nd_error_clear();
    close_device(&d);
}

Test(cudnn_choice, own_never_asks)
{
    static device d;
    ND_ASSERT_OK(open_device(&d, ND_CUDA_ATTENTION_BUILTIN, "missing"));
    ND_ASSERT_OK(pass(&d, d.b, 24));
    fflush(d.log.terminal);
    cr_assert_eq(d.said_bytes, 0);
    check_against_cpu(&d, 24);
    close_device(&d);
}

/* f32, more keys than queries, and unaligned memory are not cuDNN's, whoever is asked for. */
Test(cudnn_choice, what_is_not_cudnns_is_computed_without_a_word)
{
    static device d;
    static float x[ROWS * HEADS * HEAD_DIM], y[ROWS * HEADS * HEAD_DIM];
    ND_ASSERT_OK(open_device(&d, ND_CUDA_ATTENTION_CUDNN, ""));
    const nd_view lse = nd_view_of(d.lse, ND_F32, ROWS, HEADS);
    const nd_attention_shape f32 = {2, 24, 24, HEADS, HEADS, HEAD_DIM, {0}};
    const nd_cview in = nd_cview_of(x, ND_F32, ROWS, HEADS * HEAD_DIM);
    ND_ASSERT_OK(d.b->ops.attention(d.b, nd_view_of(y, ND_F32, ROWS, HEADS * HEAD_DIM), lse, in, in,
                                    in, &f32));
    const nd_attention_shape cached = {1, 8, ROWS, HEADS, KV_HEADS, HEAD_DIM, {0}};
    const nd_cview k = nd_as_const(bf16(d.k, KV_HEADS));
    ND_ASSERT_OK(d.b->ops.attention(d.b, nd_view_of(d.o, ND_BF16, 8, HEADS * HEAD_DIM),
                                    nd_view_of(d.lse, ND_F32, 8, HEADS),
                                    nd_cview_of(d.q, ND_BF16, 8, HEADS * HEAD_DIM), k, k, &cached));
    fflush(d.log.terminal);
    cr_assert_eq(d.said_bytes, 0, "%s", d.said);
    close_device(&d);
}
