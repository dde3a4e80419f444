/* Gradients rounded by the device's kernels (emulated): what the host's functions make, byte by
 * byte. */
#include "gradient_wire.h"
#include "support/support.h"

#include "core/base/rng.h"
#include "dist/reduction/gradient_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

nd_status nd_emulated_gradient_encode(void *stream, const nd_gradient_part *parts, int count);
nd_status nd_emulated_gradient_add(void *stream, const nd_gradient_part *parts, int count);

enum { COUNT_MAX = 10007, STEPS = 4, MARGIN = 64 };

static const int64_t counts[] = {1, 5, 31, 127, 128, 129, 251, 252, 253, 1008, 4096, COUNT_MAX};
static const nd_gradient_wire formats[] = {ND_GRADIENT_WIRE_BF16, ND_GRADIENT_WIRE_INT8};
enum { COUNTS = sizeof counts / sizeof *counts };

/* Blocks of ordinary values, of zeros, of very small and of very large ones. */
static void draw(float *x, int64_t count, uint64_t step)
{
    for (int64_t i = 0; i < count; i++) {
        const float scale = i / 300 % 5 == 1   ? 0.0f
                            : i / 300 % 5 == 2 ? 1e-33f
                            : i / 300 % 5 == 3 ? 1e30f
                                               : 1.0f;
        nd_rng_normal_fill(17 + step, (uint64_t)i, 1.0f, &x[i], 1);
        x[i] *= scale;
    }
}

static void same_bytes(const char *what, const void *a, const void *b, size_t bytes, int64_t count,
                       nd_gradient_wire format)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < bytes + MARGIN; i++)
        cr_assert(x[i] == y[i], "%s of %lld values in %s: byte %zu of %zu is %d, expected %d", what,
                  (long long)count, nd_gradient_wire_name(format), i, bytes, y[i], x[i]);
}

static void encode(nd_gradient_wire format, void *wire, float *values, void *residual,
                   int64_t count)
{
    const nd_gradient_part part = {values, wire, residual, count, (int)format};
    ND_ASSERT_OK(nd_emulated_gradient_encode(NULL, &part, 1));
}

static void add(nd_gradient_wire format, float *into, void *wire, int64_t count)
{
    const nd_gradient_part part = {into, wire, NULL, count, (int)format};
    ND_ASSERT_OK(nd_emulated_gradient_add(NULL, &part, 1));
}

static void check(nd_gradient_wire format, int64_t count, bool feedback)
{
    static float values[COUNT_MAX], sums[2][COUNT_MAX + MARGIN / 4];
    static float wire[2][COUNT_MAX + MARGIN], residual[2][COUNT_MAX + MARGIN];
    const size_t bytes = nd_gradient_wire_bytes(format, count);
    memset(residual, 0, sizeof residual);
    memset(sums, 0, sizeof sums);
    for (uint64_t step = 0; step < STEPS; step++) {
        memset(wire, 0x5a, sizeof wire);
        draw(values, count, step);
        nd_gradient_wire_encode(format, wire[0], values, feedback ? residual[0] : NULL, count);
        encode(format, wire[1], values, feedback ? residual[1] : NULL, count);
        same_bytes("the wire", wire[0], wire[1], bytes, count, format);
        same_bytes("the residual", residual[0], residual[1],
                   nd_gradient_residual_bytes(format, count), count, format);
        nd_gradient_wire_add(format, sums[0], wire[0], count);
        add(format, sums[1], wire[1], count);
        same_bytes("the sum", sums[0], sums[1], (size_t)count * sizeof(float), count, format);
    }
}

Test(gradient_wire_kernels, make_and_read_what_the_host_does)
{
    for (int f = 0; f < 2; f++)
        for (int c = 0; c < COUNTS; c++)
            for (int feedback = 0; feedback < 2; feedback++)
                check(formats[f], counts[c], feedback);
}

/* A block that is not finite arrives so, and leaves its residual as it was; other blocks do not
 * know. */
Test(gradient_wire_kernels, what_is_not_finite_arrives_so)
{
    enum { COUNT = 3 * 252, WIRE = 4 * COUNT };
    static float values[COUNT], sums[COUNT], wire[WIRE], residual[WIRE], before[WIRE];
    for (int f = 0; f < 2; f++)
        for (int bad = 0; bad < 2; bad++) {
            draw(values, COUNT, 1);
            memset(residual, 0, sizeof residual);
            memset(sums, 0, sizeof sums);
            encode(formats[f], wire, values, residual, COUNT);
            memcpy(before, residual, sizeof before);
            values[300] = bad ? INFINITY : NAN;
            encode(formats[f], wire, values, residual, COUNT);
            add(formats[f], sums, wire, COUNT);
            cr_assert_not(isfinite(sums[300]));
            for (int i = 0; i < 252; i++)
                cr_assert(isfinite(sums[i]), "value %d", i);
            const size_t block = formats[f] == ND_GRADIENT_WIRE_INT8 ? 256 : 132;
            const size_t at = 300 / (block - 4) * block;
            cr_assert(memcmp((char *)before + at, (char *)residual + at, block) == 0);
            cr_assert(memcmp(before, residual, block) != 0);
        }
}

/* Parts that begin at multiples of whole blocks, in one launch, are the message, cut. */
Test(gradient_wire_kernels, parts_of_a_launch_are_the_whole_in_pieces)
{
    static float values[COUNT_MAX], wire[2][COUNT_MAX], residual[2][COUNT_MAX], sums[2][COUNT_MAX];
    for (int f = 0; f < 2; f++) {
        const nd_gradient_wire format = formats[f];
        const int64_t part = nd_gradient_wire_values(format, 8 * ND_WIRE_BLOCK_BYTES);
        nd_gradient_part parts[ND_GRADIENT_PARTS];
        int count = 0;
        draw(values, COUNT_MAX, 2);
        memset(residual, 0, sizeof residual);
        memset(sums, 0, sizeof sums);
        encode(format, wire[0], values, residual[0], COUNT_MAX);
        add(format, sums[0], wire[0], COUNT_MAX);
        for (int64_t first = 0; first < COUNT_MAX; first += part) {
            const int64_t n = COUNT_MAX - first < part ? COUNT_MAX - first : part;
            char *kept = (char *)residual[1] + nd_gradient_residual_bytes(format, first);
            char *to = (char *)wire[1] + nd_gradient_wire_bytes(format, first);
            cr_assert_lt(count, ND_GRADIENT_PARTS);
            parts[count++] = (nd_gradient_part){values + first, to, kept, n, (int)format};
        }
        ND_ASSERT_OK(nd_emulated_gradient_encode(NULL, parts, count));
        cr_assert(memcmp(wire[0], wire[1], nd_gradient_wire_bytes(format, COUNT_MAX)) == 0);
        cr_assert(memcmp(residual[0], residual[1], nd_gradient_residual_bytes(format, COUNT_MAX)) ==
                  0);
        for (int i = 0; i < count; i++)
            parts[i].values = sums[1] + (parts[i].values - values);
        ND_ASSERT_OK(nd_emulated_gradient_add(NULL, parts, count));
        cr_assert(memcmp(sums[0], sums[1], sizeof sums[0]) == 0);
    }
}

/* Norms in fp32 beside rounded matrices, of different lengths. */
Test(gradient_wire_kernels, a_launch_adds_parts_of_all_formats)
{
    enum { LENGTH = 1009 };
    static float values[3][LENGTH], wire[3][LENGTH], sums[2][3][LENGTH];
    const nd_gradient_wire all[] = {ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_BF16,
                                    ND_GRADIENT_WIRE_INT8};
    nd_gradient_part parts[3];
    memset(sums, 0, sizeof sums);
    for (int f = 0; f < 3; f++) {
        const int64_t count = LENGTH - 300 * f;
        draw(values[f], count, 3);
        nd_gradient_wire_encode(all[f], wire[f], values[f], NULL, count);
        nd_gradient_wire_add(all[f], sums[0][f], wire[f], count);
        parts[f] = (nd_gradient_part){sums[1][f], wire[f], NULL, count, (int)all[f]};
    }
    ND_ASSERT_OK(nd_emulated_gradient_add(NULL, parts, 3));
    cr_assert(memcmp(sums[0], sums[1], sizeof sums[0]) == 0);
}
