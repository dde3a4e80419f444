/* Exact gradients in fewer bytes, and when they are sent so. */
#include "core/base/rng.h"
#include "dist/reduction/float_compression.h"
#include "dist/reduction/grad_compression.h"
#include "support/support.h"

#include <math.h>
#include <string.h>

enum { COUNT = 5003 };

static float values[COUNT], got[COUNT];
static char coded[COUNT * sizeof(float)];

/* Values that are spread as those of a gradient: normal, with another scale in each row. */
static void fill(uint64_t seed)
{
    const uint64_t key = nd_rng_key(seed, "gradient");
    for (int i = 0; i < COUNT; i++) {
        const double u = nd_rng_uniform(key, (uint64_t)(2 * i)) + 1e-12;
        const double v = nd_rng_uniform(key, (uint64_t)(2 * i + 1));
        values[i] = (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v) *
                            exp2(-10.0 - (double)(i / 700 % 5)));
    }
}

static size_t cross(int count)
{
    memset(got, 0x5a, sizeof got);
    const size_t bytes = nd_floats_compress(coded, values, count);
    if (bytes == 0)
        return 0;
    cr_assert_lt(bytes, (size_t)count * sizeof *values);
    cr_assert(nd_floats_decompress(got, coded, bytes, count, false));
    cr_assert_eq(memcmp(got, values, (size_t)count * sizeof *values), 0);
    return bytes;
}

Test(grad_compression, gradients_take_less_than_nine_tenths_and_come_back_to_the_bit)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        fill(seed);
        cr_assert_leq(cross(COUNT), (size_t)(0.88 * COUNT * sizeof *values));
    }
    static const int counts[] = {1, 2, 7, 8, 9, 255, 256, 257, 4999};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        cross(counts[i]);
}

Test(grad_compression, keeps_zeros_infinities_nans_and_subnormals)
{
    static const uint32_t special[] = {0,           0x80000000u, 0x7f800000u,
                                       0xff800000u, 0x7fc01234u, 0xff812345u,
                                       1,           0x807fffffu, 0x00800000u};
    for (int every = 1; every <= 64; every *= 4) {
        fill(9);
        for (int i = 0; i < COUNT; i += every)
            memcpy(&values[i], &special[(i / every) % 9], sizeof *values);
        cross(COUNT);
    }
    memset(values, 0, sizeof values);
    cr_assert_lt(cross(COUNT), (size_t)COUNT * 4 * 4 / 5);
}

Test(grad_compression, of_bits_without_any_order_is_given_up)
{
    const uint64_t key = nd_rng_key(3, "noise");
    for (int i = 0; i < COUNT; i++) {
        const uint32_t bits = nd_rng_philox(key, 0, (uint64_t)i).word[0];
        memcpy(&values[i], &bits, sizeof bits);
    }
    cr_assert_eq(cross(COUNT), 0);
}

Test(grad_compression, adds_as_the_values_themselves_would)
{
    fill(4);
    const size_t bytes = nd_floats_compress(coded, values, COUNT);
    for (int i = 0; i < COUNT; i++)
        got[i] = (float)i * 1e-4f;
    cr_assert(nd_floats_decompress(got, coded, bytes, COUNT, true));
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(got[i], (float)i * 1e-4f + values[i]);
}

Test(grad_compression, damaged_bytes_are_refused_or_decoded_to_something)
{
    fill(5);
    const size_t bytes = nd_floats_compress(coded, values, COUNT);
    for (size_t less = 1; less < bytes; less += 37)
        cr_assert_not(nd_floats_decompress(got, coded, bytes - less, COUNT, false));
    cr_assert_not(nd_floats_decompress(got, coded, bytes, COUNT - 300, false));
    coded[1] = 7; /* no width */
    cr_assert_not(nd_floats_decompress(got, coded, bytes, COUNT, false));
    for (uint64_t seed = 0; seed < 2000; seed++) { /* for sanitizers to look at */
        fill(5);
        nd_floats_compress(coded, values, COUNT);
        coded[nd_rng_philox(7, seed, 0).word[0] % bytes] ^= (char)(1 << seed % 8);
        nd_floats_decompress(got, coded, bytes, COUNT, seed % 2);
    }
}

/* Equal exponents take no bits, so that none of them can be missing from these. */
Test(grad_compression, escapes_from_no_bits_are_refused)
{
    for (int i = 0; i < 100; i++)
        values[i] = 1.5f;
    const size_t bytes = nd_floats_compress(coded, values, 100);
    cr_assert_eq(bytes, 4 + 3 * 100);
    cr_assert(nd_floats_decompress(got, coded, bytes, 100, false));
    coded[2] = 1; /* an escape, which follows */
    cr_assert_not(nd_floats_decompress(got, coded, bytes + 1, 100, false));
}

/* Whether 64 KiB to `peer` are compressed. */
static bool compresses_beside(nd_grad_compressor *s, const nd_comm *comm, int peer, bool hidden)
{
    size_t bytes = sizeof coded / 256 * 256;
    const void *sent = nd_grad_compressor_encode(s, comm, peer, values, hidden, coded, &bytes);
    cr_assert_eq(sent == NULL, bytes < sizeof coded / 256 * 256);
    cr_assert(sent == NULL || sent == values);
    return sent == NULL;
}

static bool compresses(nd_grad_compressor *s, const nd_comm *comm, int peer)
{
    return compresses_beside(s, comm, peer, false);
}

Test(grad_compression, is_for_slow_links_to_other_hosts)
{
    nd_comm comm = {.rank = 5, .size = 12, .local_rank = 1, .local_size = 4};
    nd_grad_compressor s = {0};
    fill(6);
    cr_assert_not(compresses(&s, &comm, 0)); /* off */
    comm.grad_compression = ND_GRAD_COMPRESSION_ON;
    for (int peer = 0; peer < 12; peer++)
        cr_assert_eq(compresses(&s, &comm, peer), peer < 4 || peer >= 8);
    comm.grad_compression = ND_GRAD_COMPRESSION_AUTO;
    cr_assert_not(compresses(&s, &comm, 0)); /* nothing is known of the link */
    nd_grad_compressor_measure(&s, 1.0);     /* too little to know */
    cr_assert_not(compresses(&s, &comm, 0));
    for (int i = 0; i < 100; i++)
        compresses(&s, &comm, 9);
    nd_grad_compressor_measure(&s, 0.016); /* 2 MB: 1 Gbit/s */
    cr_assert(compresses(&s, &comm, 0));
    cr_assert_not(compresses(&s, &comm, 4));
    cr_assert_not(compresses_beside(&s, &comm, 0, true)); /* computation hides the link */
    comm.grad_compression = ND_GRAD_COMPRESSION_ON;
    cr_assert(compresses_beside(&s, &comm, 0, true));
    comm.grad_compression = ND_GRAD_COMPRESSION_AUTO;
    for (int i = 0; i < 100; i++)
        compresses(&s, &comm, 9);
    nd_grad_compressor_measure(&s, 0.0016); /* 10 Gbit/s */
    cr_assert_not(compresses(&s, &comm, 0));
}
