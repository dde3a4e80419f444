/* Attention through cuDNN against the reference: on a GPU, or with cuDNN's calls emulated. What
 * cuDNN refuses is an error of this device, so that nothing here is computed by other kernels
 * unseen. */
#define nd_conformance_device nd_conformance_cudnn_device
#include "core/conformance.h"

#include <stdio.h>

/* bf16 in and out; p, ds and, with grouped heads, each head's dk and dv are rounded to bf16 as
 * well. lse is f32 of products of bf16, with the device's exponential. */
static const double OUTPUT = 8e-3, GRADIENT = 1.2e-2, LSE = 2e-5;

/* Sequences, length, heads, heads of k and v, head_dim. Of the long ones the reference in double
 * would take a minute: their bits are compared, and on a GPU the backend compares each plan with
 * the builtin kernels. */
static const int64_t shapes[][5] = {
    {2, 64, 4, 4, 64},    {1, 128, 4, 2, 64},    {3, 17, 4, 1, 16},   {2, 130, 6, 2, 32},
    {1, 200, 2, 1, 128},  {2, 33, 2, 2, 40},     {1, 2, 4, 2, 8},     {6, 64, 4, 4, 32},
#if ND_CONFORMANCE_DEVICE > 1
    {2, 1024, 12, 4, 64}, {1, 2048, 16, 4, 128}, {2, 1000, 8, 8, 96},
#endif
};
enum { SHAPES = sizeof shapes / sizeof *shapes, REFERENCED = 8 };

typedef struct example {
    nd_attention_shape shape;
    nd_cview q, k, v, dout;
    outputs o, lse, dq, dk, dv;
} example;

static example example_of(harness *h, const int64_t s[5], float std)
{
    const int64_t rows = s[0] * s[1], width = s[2] * s[4], kv_width = s[3] * s[4];
    return (example){
        .shape = {s[0], s[1], s[1], s[2], s[3], s[4], {0}},
        .q = nd_as_const(random_floats(h, ND_BF16, rows, width, std)),
        .k = nd_as_const(random_floats(h, ND_BF16, rows, kv_width, std)),
        .v = nd_as_const(random_floats(h, ND_BF16, rows, kv_width, 1.0f)),
        .dout = nd_as_const(random_floats(h, ND_BF16, rows, width, 1.0f)),
        .o = poisoned_outputs(h, ND_F64, ND_BF16, rows, width),
        .lse = poisoned_outputs(h, ND_F64, ND_F32, rows, s[2]),
        .dq = poisoned_outputs(h, ND_F64, ND_BF16, rows, width),
        .dk = poisoned_outputs(h, ND_F64, ND_BF16, rows, kv_width),
        .dv = poisoned_outputs(h, ND_F64, ND_BF16, rows, kv_width),
    };
}

/* Forward, then backward from what each backend's own forward pass left. */
static void compute(harness *h, example *e)
{
    RUN(h, attention, e->o.view[i], e->lse.view[i], e->q, e->k, e->v, &e->shape);
    RUN(h, attention_backward, e->dq.view[i], e->dk.view[i], e->dv.view[i], e->dout,
        nd_as_const(e->o.view[i]), nd_as_const(e->lse.view[i]), e->q, e->k, e->v, &e->shape);
}

/* False, after a line that says why, on a GPU without cuDNN. */
static bool open_here(harness *h)
{
    nd_backend *b = NULL;
    nd_error_clear();
    if (nd_conformance_cudnn_device(&b) == ND_OK) {
        nd_backend_destroy(b);
        harness_open(h);
        return true;
    }
    const char *reason = nd_error_get()->message;
    cr_assert(strstr(reason, "cannot be opened") != NULL || strstr(reason, "too old") != NULL, "%s",
              reason);
    printf("SKIPPED: %s\n", reason);
    return false;
}

Test(cudnn, attention_agrees_with_the_reference)
{
    harness h;
    if (!open_here(&h))
        return;
    for (int s = 0; s < REFERENCED; s++) {
        example e = example_of(&h, shapes[s], 1.0f);
        compute(&h, &e);
        check_close(&h, "o", &e.o, OUTPUT);
        check_close(&h, "lse", &e.lse, LSE);
        check_close(&h, "dq", &e.dq, GRADIENT);
        check_close(&h, "dk", &e.dk, GRADIENT);
        check_close(&h, "dv", &e.dv, GRADIENT);
        harness_reset(&h);
    }
    harness_close(&h);
}

/* Scores in the hundreds: one key takes all, nothing overflows. */
Test(cudnn, attention_with_large_scores_agrees)
{
    harness h;
    if (!open_here(&h))
        return;
    example e = example_of(&h, shapes[1], 6.0f);
    compute(&h, &e);
    check_close(&h, "o", &e.o, OUTPUT);
    check_close(&h, "lse", &e.lse, LSE);
    check_close(&h, "dv", &e.dv, GRADIENT);
    harness_close(&h);
}

/* lse of cuDNN's forward pass is what the builtin kernels take. */
Test(cudnn, kept_tokens_go_backward_from_what_cudnn_went_forward)
{
    harness h;
    if (!open_here(&h))
        return;
    for (int s = 0; s < 4; s++) {
        example e = example_of(&h, shapes[s], 1.0f);
        RUN(&h, attention, e.o.view[i], e.lse.view[i], e.q, e.k, e.v, &e.shape);
        const int64_t tokens = e.q.rows, kept = (tokens + 1) / 2;
        const nd_view rows = poisoned(&h, ND_I32, 1, kept);
        for (int64_t i = 0; i < kept; i++)
            ((int32_t *)rows.data)[i] = (int32_t)(2 * i);
        e.shape.rows = nd_as_const(rows);
        nd_cview q[BACKENDS], dout[BACKENDS], o[BACKENDS], lse[BACKENDS];
        for (int i = 0; i < BACKENDS; i++) {
            const nd_cview from[] = {e.q, e.dout, nd_as_const(e.o.view[i]),
                                     nd_as_const(e.lse.view[i])};
            nd_cview *const to[] = {&q[i], &dout[i], &o[i], &lse[i]};
            for (int j = 0; j < 4; j++) {
                const nd_view y = poisoned(&h, from[j].dtype, kept, from[j].cols);
                ND_ASSERT_OK(
                    h.backend[0]->ops.gather_rows(h.backend[0], y, from[j], nd_as_const(rows)));
                *to[j] = nd_as_const(y);
            }
        }
        const outputs dq = poisoned_outputs(&h, ND_F64, ND_BF16, kept, e.q.cols);
        const outputs dk = poisoned_outputs(&h, ND_F64, ND_BF16, kept, e.k.cols);
        const outputs dv = poisoned_outputs(&h, ND_F64, ND_BF16, kept, e.k.cols);
        RUN(&h, attention_backward, dq.view[i], dk.view[i], dv.view[i], dout[i], o[i], lse[i], q[i],
            e.k, e.v, &e.shape);
        check_close(&h, "dq", &dq, GRADIENT);
        check_close(&h, "dk", &dk, GRADIENT);
        check_close(&h, "dv", &dv, GRADIENT);
        harness_reset(&h);
    }
    harness_close(&h);
}

enum { BUFFERS = 9, REPEATS = 5 }; /* q, k, v, dout; o, lse, dq, dk, dv */

typedef struct pass_memory {
    nd_backend *b;
    nd_view v[BUFFERS];
    nd_attention_shape shape;
} pass_memory;

static pass_memory pass_memory_of(harness *h, const int64_t s[5])
{
    const int64_t rows = s[0] * s[1], width = s[2] * s[4], kv_width = s[3] * s[4];
    const int64_t cols[BUFFERS] = {width, kv_width, kv_width, width,   width,
                                   s[2],  width,    kv_width, kv_width};
    pass_memory r = {.shape = {s[0], s[1], s[1], s[2], s[3], s[4], {0}}};
    ND_ASSERT_OK(nd_conformance_cudnn_device(&r.b));
    for (int i = 0; i < BUFFERS; i++) {
        void *memory = NULL;
        const nd_view host = random_floats(h, i == 5 ? ND_F32 : ND_BF16, rows, cols[i], 1.0f);
        const size_t bytes = nd_view_bytes(nd_as_const(host));
        ND_ASSERT_OK(r.b->ops.allocate(r.b, bytes, &memory));
        ND_ASSERT_OK(r.b->ops.upload(r.b, memory, host.data, bytes));
        r.v[i] = nd_view_of(memory, host.dtype, rows, cols[i]);
    }
    return r;
}

static void close_pass_memory(pass_memory *r)
{
    for (int i = 0; i < BUFFERS; i++)
        r->b->ops.release(r->b, r->v[i].data, nd_view_bytes(nd_as_const(r->v[i])));
    nd_backend_destroy(r->b);
}

static nd_status pass(pass_memory *r)
{
    const nd_view *v = r->v;
    ND_TRY(r->b->ops.attention(r->b, v[4], v[5], nd_as_const(v[0]), nd_as_const(v[1]),
                               nd_as_const(v[2]), &r->shape));
    return r->b->ops.attention_backward(r->b, v[6], v[7], v[8], nd_as_const(v[3]),
                                        nd_as_const(v[4]), nd_as_const(v[5]), nd_as_const(v[0]),
                                        nd_as_const(v[1]), nd_as_const(v[2]), &r->shape);
}

/* All outputs one after another, in host memory; what is in them on the device is injected. */
static nd_view taken(harness *h, pass_memory *r)
{
    size_t bytes = 0, at = 0;
    for (int i = 4; i < BUFFERS; i++)
        bytes += nd_view_bytes(nd_as_const(r->v[i]));
    const nd_view all = poisoned(h, ND_U8, 1, (int64_t)bytes);
    for (int i = 4; i < BUFFERS; i++) {
        const size_t size = nd_view_bytes(nd_as_const(r->v[i]));
        ND_ASSERT_OK(r->b->ops.download(r->b, (char *)all.data + at, r->v[i].data, size));
        ND_ASSERT_OK(r->b->ops.zero(r->b, r->v[i].data, size));
        at += size;
    }
    return all;
}

Test(cudnn, the_same_call_gives_the_same_bits)
{
    harness h;
    if (!open_here(&h))
        return;
    for (int s = 0; s < SHAPES; s++) {
        pass_memory r = pass_memory_of(&h, shapes[s]);
        ND_ASSERT_OK(pass(&r));
        const nd_view first = taken(&h, &r);
        for (int i = 0; i < REPEATS; i++) {
            ND_ASSERT_OK(pass(&r));
            const nd_view again = taken(&h, &r);
            cr_assert(memcmp(first.data, again.data, nd_view_bytes(nd_as_const(first))) == 0,
                      "shape %d, repeat %d", s, i);
        }
        close_pass_memory(&r);
        harness_reset(&h);
    }
    harness_close(&h);
}

/* The first call makes the plans and is not recorded; what is recorded runs when it is replayed. Of
 * a shape of its own: on a GPU the tests share a backend, and with it the plans. */
Test(cudnn, attention_is_recorded_and_replayed)
{
    static const int64_t fresh[5] = {1, 128, 2, 2, 64};
    harness h;
    nd_recording *recording = NULL;
    bool can = false, stale = true;
    if (!open_here(&h))
        return;
    pass_memory r = pass_memory_of(&h, fresh);
    ND_ASSERT_OK(r.b->ops.record(r.b, &can));
    cr_assert(can);
    ND_ASSERT_FAILS(pass(&r), ND_EINTERNAL, "an op that is recorded waits");
    ND_ASSERT_OK(r.b->ops.record_end(r.b, NULL));
    ND_ASSERT_OK(pass(&r));
    const nd_view first = taken(&h, &r);
    ND_ASSERT_OK(r.b->ops.record(r.b, &can));
    ND_ASSERT_OK(pass(&r));
    ND_ASSERT_OK(r.b->ops.record_end(r.b, &recording));
    for (int i = 0; i < 2; i++) {
        ND_ASSERT_OK(r.b->ops.replay(r.b, recording, &stale));
        cr_assert_not(stale);
        const nd_view again = taken(&h, &r);
        cr_assert(memcmp(first.data, again.data, nd_view_bytes(nd_as_const(first))) == 0,
                  "replay %d", i);
    }
    r.b->ops.release_recording(r.b, recording);
    close_pass_memory(&r);
    harness_close(&h);
}
