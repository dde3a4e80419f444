/* Running one op on the reference and on the fast layer side by side.
 *
 * A harness holds the reference and fast backends with 1, 2 and 3 threads, of which the last uses
 * 3, 1, 2, 3 ... from one reset to the next, as a run does on a shared machine; with the
 * instruction sets that DNNL_MAX_CPU_ISA leaves: CTest runs each suite once for every one of this
 * machine. Inputs are shared; each backend has its own outputs, poisoned with NaN patterns before
 * the op. The reference writes f64 wherever an op takes it, so that its rounding does not count. */
#pragma once

#include "support/support.h"

#include "core/backend/cpu/reference.h"
#include "core/base/float_formats.h"
#include "core/base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef ND_CONFORMANCE_DEVICE
enum { BACKENDS = 1 + ND_CONFORMANCE_DEVICE, HARNESS_BLOCKS = 256 };
#else
enum { BACKENDS = 4, HARNESS_BLOCKS = 256 };
#endif

typedef struct harness {
    nd_backend *backend[BACKENDS]; /* 0 is the reference, i > 0 fast with up to i threads */
    const char *isa;               /* the device, for messages */
    uint64_t seed, drawn;
    void *blocks[HARNESS_BLOCKS]; /* freed by harness_reset and harness_close */
    int block_count, resets;
} harness;

/* One output or in-place argument: a view for each backend. */
typedef struct outputs {
    nd_view view[BACKENDS];
} outputs;

#ifdef ND_CONFORMANCE_DEVICE
/* So many times a device in the place of the fast layer: nd_conformance_device makes it, tests/cuda
 * says which. */
#include "support/wrapped_backend.h"

nd_status nd_conformance_device(nd_backend **backend);

static const bool on_device = true;
#else
static const bool on_device = false;
#endif

static inline nd_status fast_backend(int threads, nd_backend **backend)
{
#ifdef ND_CONFORMANCE_DEVICE
    (void)threads;
    ND_TRY(nd_conformance_device(backend));
    return nd_mirror_backend_create(*backend, backend);
#else
    const nd_cpu_backend_options options = {.threads = threads};
    return nd_cpu_backend_create(&options, backend);
#endif
}

/* ND_TEST_SEED changes all random inputs. */
static inline void harness_open(harness *h)
{
    const char *wanted = getenv("ND_TEST_SEED");
    const nd_cpu_backend_options reference = {.threads = 1, .reference_only = true};
    *h = (harness){.seed = wanted ? strtoull(wanted, NULL, 0) : 20240229};
    ND_ASSERT_OK(nd_cpu_backend_create(&reference, &h->backend[0]));
    for (int i = 1; i < BACKENDS; i++)
        ND_ASSERT_OK(fast_backend(i, &h->backend[i]));
    h->isa = h->backend[1]->traits.device;
    cr_log_info("%s, seed %" PRIu64 "\n", h->isa, h->seed);
}

static inline void harness_reset(harness *h)
{
    for (int i = 0; i < h->block_count; i++)
        free(h->blocks[i]);
    h->block_count = 0;
    nd_cpu_backend_set_threads(h->backend[BACKENDS - 1], 1 + h->resets++ % 3);
}

static inline void harness_close(harness *h)
{
    harness_reset(h);
    for (int i = 0; i < BACKENDS; i++)
        nd_backend_destroy(h->backend[i]);
}

/* Memory ends at its last byte, so that a sanitizer sees any access behind it. */
static inline nd_view poisoned(harness *h, nd_dtype dtype, int64_t rows, int64_t cols)
{
    const size_t bytes = (size_t)(rows * cols) * nd_dtype_size(dtype);
    void *memory = malloc(bytes + 1);
    cr_assert(memory != NULL && h->block_count < HARNESS_BLOCKS);
    memset(memory, 0xff, bytes);
    h->blocks[h->block_count++] = memory;
    return nd_view_of(memory, dtype, rows, cols);
}

static inline void set_element(nd_view v, int64_t i, double x)
{
    switch (v.dtype) {
    case ND_F64:
        ((double *)v.data)[i] = x;
        break;
    case ND_F32:
        ((float *)v.data)[i] = (float)x;
        break;
    case ND_BF16:
        ((uint16_t *)v.data)[i] = nd_bf16_from_float((float)x);
        break;
    case ND_I32:
        ((int32_t *)v.data)[i] = (int32_t)x;
        break;
    case ND_I8:
        ((int8_t *)v.data)[i] = (int8_t)x;
        break;
    case ND_U8:
        ((uint8_t *)v.data)[i] = (uint8_t)x;
        break;
    }
}

/* Normal(0, std) floats. */
static inline nd_view random_floats(harness *h, nd_dtype dtype, int64_t rows, int64_t cols,
                                    float std)
{
    const nd_view v = poisoned(h, dtype, rows, cols);
    const uint64_t key = nd_rng_key(h->seed + h->drawn++, "conformance");
    float x[256];
    const int64_t capacity = sizeof x / sizeof *x, count = rows * cols;
    for (int64_t first = 0; first < count; first += capacity) {
        const int64_t some = count - first < capacity ? count - first : capacity;
        nd_rng_normal_fill(key, (uint64_t)first, std, x, some);
        for (int64_t i = 0; i < some; i++)
            set_element(v, first + i, x[i]);
    }
    return v;
}

/* Uniform integers in [low, high], of any dtype. */
static inline nd_view random_integers(harness *h, nd_dtype dtype, int64_t rows, int64_t cols,
                                      int low, int high)
{
    const nd_view v = poisoned(h, dtype, rows, cols);
    const uint64_t key = nd_rng_key(h->seed + h->drawn++, "conformance");
    for (int64_t i = 0; i < rows * cols; i++)
        set_element(v, i, low + floor(nd_rng_uniform(key, (uint64_t)i) * (high - low + 1)));
    return v;
}

/* Activation maxima or scales: positive f32. */
static inline nd_view random_scales(harness *h, int64_t rows, int64_t cols)
{
    const nd_view v = random_floats(h, ND_F32, rows, cols, 1.0f);
    for (int64_t i = 0; i < rows * cols; i++)
        set_element(v, i, 0.05 + fabs(nd_load(nd_as_const(v), i)));
    return v;
}

static inline outputs poisoned_outputs(harness *h, nd_dtype reference, nd_dtype dtype, int64_t rows,
                                       int64_t cols)
{
    outputs out;
    for (int i = 0; i < BACKENDS; i++)
        out.view[i] = poisoned(h, i == 0 ? reference : dtype, rows, cols);
    return out;
}

/* In-place arguments that start from the same values. */
static inline outputs copied_outputs(harness *h, nd_dtype reference, nd_cview start)
{
    outputs out = poisoned_outputs(h, reference, start.dtype, start.rows, start.cols);
    for (int i = 0; i < BACKENDS; i++)
        for (int64_t j = 0; j < nd_view_count(start); j++)
            set_element(out.view[i], j, nd_load(start, j));
    return out;
}

/* |x - y| / |y| in the Euclidean norm; infinite where x holds a NaN. */
static inline double relative_error(nd_cview x, nd_cview y)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < nd_view_count(x); i++) {
        const double d = nd_load(x, i) - nd_load(y, i);
        difference += d * d;
        norm += nd_load(y, i) * nd_load(y, i);
    }
    if (isnan(difference))
        return INFINITY;
    return difference == 0.0 ? 0.0 : sqrt(difference / (norm > 0.0 ? norm : 1e-30));
}

static inline void check_same_bits(const harness *h, const char *what, const outputs *out)
{
    for (int i = 2; i < BACKENDS; i++)
        cr_assert(memcmp(out->view[1].data, out->view[i].data,
                         nd_view_bytes(nd_as_const(out->view[1]))) == 0,
                  "%s [%lld, %lld] (%s, seed %" PRIu64 "): backends 1 and %d differ", what,
                  (long long)out->view[1].rows, (long long)out->view[1].cols, h->isa, h->seed, i);
}

/* Where x is farthest from y; the first NaN of x that y lacks is farther than anything. */
static inline int64_t farthest(nd_cview x, nd_cview y)
{
    int64_t at = 0;
    double most = -1.0;
    for (int64_t i = 0; i < nd_view_count(x); i++) {
        const double d = fabs(nd_load(x, i) - nd_load(y, i));
        if (isnan(d))
            return i;
        at = d > most ? i : at;
        most = d > most ? d : most;
    }
    return at;
}

static inline void check_close(const harness *h, const char *what, const outputs *out,
                               double tolerance)
{
    const nd_cview fast = nd_as_const(out->view[1]), exact = nd_as_const(out->view[0]);
    const double error = relative_error(fast, exact);
    const int64_t worst = error <= tolerance || fast.cols == 0 ? 0 : farthest(fast, exact);
    cr_assert(error <= tolerance,
              "%s %s [%lld, %lld] (%s, seed %" PRIu64 "): error %.3g > %.3g; element [%lld, %lld] "
              "is %g, expected %g",
              what, nd_dtype_name(fast.dtype), (long long)fast.rows, (long long)fast.cols, h->isa,
              h->seed, error, tolerance, (long long)(worst / fast.cols),
              (long long)(worst % fast.cols), nd_load(fast, worst), nd_load(exact, worst));
    check_same_bits(h, what, out);
}

static inline void check_equal(const harness *h, const char *what, const outputs *out)
{
    for (int64_t i = 0; i < nd_view_count(nd_as_const(out->view[0])); i++)
        cr_assert(nd_load(nd_as_const(out->view[0]), i) == nd_load(nd_as_const(out->view[1]), i),
                  "%s (%s, seed %" PRIu64 "): element %lld of [%lld, %lld] is %g, expected %g",
                  what, h->isa, h->seed, (long long)i, (long long)out->view[0].rows,
                  (long long)out->view[0].cols, nd_load(nd_as_const(out->view[1]), i),
                  nd_load(nd_as_const(out->view[0]), i));
    check_same_bits(h, what, out);
}

/* Calls `op` of every backend: RUN(h, rmsnorm, y.view[i], ...) with i the backend's number. */
#define RUN(h, op, ...)                                                                            \
    for (int i = 0; i < BACKENDS; i++)                                                             \
    ND_ASSERT_OK((h)->backend[i]->ops.op((h)->backend[i], __VA_ARGS__))

static const nd_dtype float_dtypes[] = {ND_F32, ND_BF16};

/* Normalised errors. An f32 result differs from the double reference by f32 rounding of a few
 * operations; a bf16 result by the last rounding, at most 2^-8 of an element. */
static const double TOLERANCE_F32 = 1e-6, TOLERANCE_BF16 = 4e-3;
static inline double tolerance(nd_dtype dtype)
{
    return dtype == ND_BF16 ? TOLERANCE_BF16 : TOLERANCE_F32;
}

/* Quantised after a norm in f32: one step on values that lie at a rounding tie. */
static const double TIE_FRACTION = 1e-3;

static const int64_t row_shapes[][2] = {{1, 1},   {1, 37},   {37, 1},    {5, 16},   {3, 100},
                                        {17, 65}, {64, 256}, {130, 129}, {40, 1000}};

typedef void (*shape_test)(harness *h, int64_t rows, int64_t cols, nd_dtype x, nd_dtype y);

static inline void over_shapes_and_dtypes(shape_test test)
{
    harness h;
    harness_open(&h);
    for (int s = 0; s < (int)(sizeof row_shapes / sizeof *row_shapes); s++)
        for (int mix = 0; mix < 4; mix++) {
            test(&h, row_shapes[s][0], row_shapes[s][1], float_dtypes[mix & 1],
                 float_dtypes[mix >> 1]);
            harness_reset(&h);
        }
    harness_close(&h);
}
