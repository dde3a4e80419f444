/* Formats of gradients between ranks, against their definition in double. */
#include "core/base/rng.h"
#include "dist/reduction/gradient_wire.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 10007, BLOCK = 252 };

static const nd_gradient_wire rounding[] = {ND_GRADIENT_WIRE_BF16, ND_GRADIENT_WIRE_INT8};

/* Gradients of very different sizes from block to block. */
static void fill(float *x, int64_t n, uint64_t seed)
{
    nd_rng_normal_fill(nd_rng_key(seed, "gradient"), 0, 1.0f, x, n);
    for (int64_t i = 0; i < n; i++)
        x[i] *= ldexpf(1.0f, -(int)(i / 500 % 40));
}

static double largest_of_block(const float *x, int64_t i, int64_t n)
{
    double largest = 0.0;
    for (int64_t j = i / BLOCK * BLOCK; j < n && j < (i / BLOCK + 1) * BLOCK; j++)
        largest = fmax(largest, fabs((double)x[j]));
    return largest;
}

/* x as it arrives. */
static void cross(nd_gradient_wire format, const float *x, void *residual, float *arrived,
                  int64_t n)
{
    void *wire = malloc(nd_gradient_wire_bytes(format, n));
    memset(arrived, 0, (size_t)n * sizeof *arrived);
    nd_gradient_wire_encode(format, wire, x, residual, n);
    nd_gradient_wire_add(format, arrived, wire, n);
    free(wire);
}

Test(gradient_wire, fp32_arrives_as_it_was)
{
    static float x[COUNT], arrived[COUNT];
    fill(x, COUNT, 1);
    cross(ND_GRADIENT_WIRE_FP32, x, NULL, arrived, COUNT);
    cr_assert_eq(memcmp(x, arrived, sizeof x), 0);
    cr_assert_eq(nd_gradient_wire_bytes(ND_GRADIENT_WIRE_FP32, COUNT), 4 * COUNT);
}

Test(gradient_wire, bf16_arrives_within_half_a_unit_of_its_8_bits)
{
    static float x[COUNT], arrived[COUNT];
    fill(x, COUNT, 2);
    cross(ND_GRADIENT_WIRE_BF16, x, NULL, arrived, COUNT);
    for (int64_t i = 0; i < COUNT; i++)
        cr_assert(fabs((double)arrived[i] - (double)x[i]) <= 0x1p-8 * fabs((double)x[i]),
                  "%lld: %g became %g", (long long)i, (double)x[i], (double)arrived[i]);
    cr_assert_eq(nd_gradient_wire_bytes(ND_GRADIENT_WIRE_BF16, COUNT), 2 * COUNT);
}

Test(gradient_wire, int8_arrives_as_the_nearest_127th_of_its_blocks_largest)
{
    static float x[COUNT], arrived[COUNT];
    fill(x, COUNT, 3);
    cross(ND_GRADIENT_WIRE_INT8, x, NULL, arrived, COUNT);
    for (int64_t i = 0; i < COUNT; i++) {
        const double unit = largest_of_block(x, i, COUNT) / 127.0;
        const double error = fabs((double)arrived[i] - (double)x[i]);
        const double code = (double)arrived[i] / unit;
        cr_assert(error <= 0.500001 * unit, "%lld: %g became %g", (long long)i, (double)x[i],
                  (double)arrived[i]);
        cr_assert(fabs(code - rint(code)) < 1e-4, "%g is no code", code);
    }
    const size_t bytes = nd_gradient_wire_bytes(ND_GRADIENT_WIRE_INT8, COUNT);
    cr_assert_eq(bytes, COUNT + 4 * ((COUNT + BLOCK - 1) / BLOCK));
}

Test(gradient_wire, a_message_cut_between_blocks_is_the_whole_one)
{
    static float x[COUNT];
    static char whole[4 * COUNT], parts[4 * COUNT], kept[2][2 * COUNT];
    fill(x, COUNT, 4);
    for (size_t f = 0; f < sizeof rounding / sizeof *rounding; f++) {
        const size_t bytes = nd_gradient_wire_bytes(rounding[f], COUNT), step = 1024;
        memset(kept, 0, sizeof kept);
        for (int round = 0; round < 2; round++) {
            nd_gradient_wire_encode(rounding[f], whole, x, kept[0], COUNT);
            for (size_t at = 0; at < bytes; at += step) {
                const size_t part = bytes - at < step ? bytes - at : step;
                const int64_t first = nd_gradient_wire_values(rounding[f], at);
                const int64_t count = nd_gradient_wire_values(rounding[f], part);
                cr_assert_eq(nd_gradient_wire_bytes(rounding[f], count), part);
                nd_gradient_wire_encode(rounding[f], parts + at, x + first,
                                        kept[1] + nd_gradient_residual_bytes(rounding[f], first),
                                        count);
            }
            cr_assert_eq(memcmp(whole, parts, bytes), 0, "%s", nd_gradient_wire_name(rounding[f]));
        }
        cr_assert_eq(memcmp(kept[0], kept[1], nd_gradient_residual_bytes(rounding[f], COUNT)), 0);
    }
}

/* The largest difference between sums over steps of what was sent and what arrived. */
static double drift(nd_gradient_wire format, int steps, bool feedback)
{
    static float x[COUNT], arrived[COUNT];
    static double sent[COUNT], got[COUNT];
    char *residual = calloc(1, nd_gradient_residual_bytes(format, COUNT));
    memset(sent, 0, sizeof sent);
    memset(got, 0, sizeof got);
    for (int step = 0; step < steps; step++) {
        fill(x, COUNT, 100 + (uint64_t)step);
        for (int64_t i = 0; i < COUNT; i += 3)
            x[i] = ldexpf(1e-3f, -(int)(i / 500 % 40)); /* below half a unit */
        cross(format, x, feedback ? residual : NULL, arrived, COUNT);
        for (int64_t i = 0; i < COUNT; i++) {
            sent[i] += (double)x[i];
            got[i] += (double)arrived[i];
        }
    }
    double worst = 0.0;
    for (int64_t i = 0; i < COUNT; i++) {
        const double unit = largest_of_block(x, i, COUNT) / 127.0;
        worst = fmax(worst, fabs(got[i] - sent[i]) / unit);
    }
    free(residual);
    return worst;
}

/* In units of the codes of int8. What is kept is half a unit of that step's block, whose size
 * varies by some tens of per cent; what keeping it in 8 bits loses is below 1/254 of that
 * a step. */
Test(gradient_wire, with_feedback_sums_over_steps_lose_no_more_than_one_step_does)
{
    const double after10 = drift(ND_GRADIENT_WIRE_INT8, 10, true);
    const double after300 = drift(ND_GRADIENT_WIRE_INT8, 300, true);
    cr_assert(after10 < 1.0, "%g units after 10 steps", after10);
    cr_assert(after300 < 1.0, "%g units after 300 steps", after300);
    cr_assert(drift(ND_GRADIENT_WIRE_BF16, 300, true) < 0.5);
    const double without = drift(ND_GRADIENT_WIRE_INT8, 300, false);
    cr_assert(without > 10.0, "%g units without feedback", without);
}

/* A constant below half a unit of its block never arrives without feedback. */
Test(gradient_wire, small_values_beside_large_ones_arrive_in_the_end)
{
    static float x[BLOCK], arrived[BLOCK];
    char *residual = calloc(1, nd_gradient_residual_bytes(ND_GRADIENT_WIRE_INT8, BLOCK));
    double got = 0.0, lost = 0.0;
    for (int64_t i = 0; i < BLOCK; i++)
        x[i] = 1e-3f;
    x[7] = 1.0f;
    for (int step = 0; step < 1000; step++) {
        cross(ND_GRADIENT_WIRE_INT8, x, residual, arrived, BLOCK);
        got += (double)arrived[0];
        cross(ND_GRADIENT_WIRE_INT8, x, NULL, arrived, BLOCK);
        lost += (double)arrived[0];
    }
    cr_assert_eq(lost, 0.0);
    cr_assert(fabs(got - 1.0) < 0.01, "%g arrived of 1", got);
    free(residual);
}

Test(gradient_wire, what_is_not_finite_is_found_where_it_arrives_and_is_not_kept)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static float x[COUNT], arrived[COUNT], clean[COUNT];
    for (size_t f = 0; f < sizeof rounding / sizeof *rounding; f++)
        for (int b = 0; b < 3; b++) {
            char *residual = calloc(1, nd_gradient_residual_bytes(rounding[f], COUNT));
            fill(x, COUNT, 5);
            cross(rounding[f], x, NULL, clean, COUNT);
            x[5000] = bad[b];
            cross(rounding[f], x, residual, arrived, COUNT);
            cr_assert_not(isfinite(arrived[5000]));
            cr_assert_eq(memcmp(arrived, clean, 4700 * sizeof *clean), 0);
            cr_assert_eq(memcmp(arrived + 5300, clean + 5300, (COUNT - 5300) * sizeof *clean), 0);
            x[5000] = 0.0f;
            cross(rounding[f], x, residual, arrived, COUNT);
            for (int64_t i = 0; i < COUNT; i++)
                cr_assert(isfinite(arrived[i]), "%s, %lld: a residual that is not finite",
                          nd_gradient_wire_name(rounding[f]), (long long)i);
            free(residual);
        }
}

Test(gradient_wire, zeros_and_the_smallest_numbers_make_no_others)
{
    static float x[BLOCK], arrived[BLOCK];
    x[3] = 1e-38f;
    for (size_t f = 0; f < sizeof rounding / sizeof *rounding; f++) {
        cross(rounding[f], x, NULL, arrived, BLOCK);
        for (int64_t i = 0; i < BLOCK; i++)
            cr_assert(fabsf(arrived[i]) <= 1.01f * fabsf(x[i]));
    }
}

Test(gradient_wire, int4_arrives_within_half_a_unit_of_the_largest_of_504_and_takes_half_a_byte)
{
    enum { BLOCK4 = 504, EVEN = 20 * BLOCK4 };
    static float x[EVEN], arrived[EVEN], parts[EVEN];
    fill(x, EVEN, 7);
    cross(ND_GRADIENT_WIRE_INT4, x, NULL, arrived, EVEN);
    for (int64_t i = 0; i < EVEN; i++) {
        double largest = 0.0;
        for (int64_t j = i / BLOCK4 * BLOCK4; j < (i / BLOCK4 + 1) * BLOCK4; j++)
            largest = fmax(largest, fabs((double)x[j]));
        cr_assert(fabs((double)arrived[i] - (double)x[i]) <= 0.5001 * largest / 7.0,
                  "%lld: %g became %g", (long long)i, (double)x[i], (double)arrived[i]);
    }
    cr_assert_eq(nd_gradient_wire_bytes(ND_GRADIENT_WIRE_INT4, EVEN), 20 * ND_WIRE_BLOCK_BYTES);
    cross(ND_GRADIENT_WIRE_INT4, x, NULL, parts, 8 * BLOCK4);
    cross(ND_GRADIENT_WIRE_INT4, x + 8 * BLOCK4, NULL, parts + 8 * BLOCK4, 12 * BLOCK4);
    cr_assert_eq(memcmp(arrived, parts, sizeof parts), 0, "cut between blocks");
}

Test(gradient_wire, int4_with_error_feedback_loses_no_more_than_the_last_error)
{
    enum { COUNT4 = 505, ROUNDS = 200 };
    static float x[COUNT4], sum[COUNT4], arrived[COUNT4];
    char *residual = calloc(1, nd_gradient_residual_bytes(ND_GRADIENT_WIRE_INT4, COUNT4));
    fill(x, COUNT4, 9);
    for (int round = 0; round < ROUNDS; round++) {
        cross(ND_GRADIENT_WIRE_INT4, x, residual, arrived, COUNT4);
        for (int i = 0; i < COUNT4; i++)
            sum[i] += arrived[i];
    }
    for (int i = 0; i < 500; i++) /* of which the largest is about 3 */
        cr_assert(fabs((double)sum[i] - ROUNDS * (double)x[i]) < 1.0, "%d: %g of %g", i,
                  (double)sum[i], ROUNDS * (double)x[i]);
    x[3] = NAN;
    cross(ND_GRADIENT_WIRE_INT4, x, residual, arrived, COUNT4);
    cr_assert_not(isfinite(arrived[3]));
    x[3] = 0.0f;
    cross(ND_GRADIENT_WIRE_INT4, x, residual, arrived, COUNT4);
    cr_assert(isfinite(arrived[3]), "a residual that is not finite");
    free(residual);
}
