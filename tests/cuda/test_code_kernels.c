/* Entries of a code stream made and read by the device's kernels (emulated): byte by byte the host's. */
#include "cuda/emulated_backend.h"
#include "support/support.h"

#include "core/rng.h"
#include "core/trits.h"
#include "dist/changed_codes.h"
#include "dist/code_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const nd_code_kernels nd_emulated_code_kernels;

/* More tiles of 4096 codes, or bytes, than one block takes at once. */
enum { COUNT_MAX = 257 * 4096 + 77, GROUPS_MAX = 9, STREAM_MAX = COUNT_MAX + 4096, MARGIN = 64 };

static const nd_code_kernels *const kernels = &nd_emulated_code_kernels;
static const int64_t counts[] = {1,    2,    5,    16,   17,    127,       128,      129,
                                 1000, 4095, 4096, 4097, 12289, 20 * 4096, COUNT_MAX};
enum { COUNTS = sizeof counts / sizeof *counts };

static nd_backend *device;
static int8_t *before, *now, *got;
static uint8_t *expected, *stream;
static float scales[GROUPS_MAX], got_scales[GROUPS_MAX];
static void *work;
static uint64_t at;

static void setup(void)
{
    ND_ASSERT_OK(nd_emulated_backend_create(&(nd_cuda_options){0}, &device));
    before = aligned_alloc(64, COUNT_MAX / 64 * 64 + 128);
    now = aligned_alloc(64, COUNT_MAX / 64 * 64 + 128);
    got = malloc(COUNT_MAX + MARGIN);
    expected = malloc(STREAM_MAX + MARGIN);
    stream = malloc(STREAM_MAX + MARGIN);
    work = malloc(kernels->work_bytes(COUNT_MAX, STREAM_MAX));
    cr_assert(before != NULL && now != NULL && got != NULL && expected != NULL && stream != NULL &&
              work != NULL);
    for (int i = 0; i < GROUPS_MAX; i++)
        scales[i] = (float)(i + 1) * 0.37f;
}

static void teardown(void)
{
    nd_backend_destroy(device);
    free(before);
    free(now);
    free(got);
    free(expected);
    free(stream);
    free(work);
}

TestSuite(code_kernels, .init = setup, .fini = teardown);

/* Each code changes with this probability, to either of the others. */
static void draw(int64_t count, double probability, uint64_t seed)
{
    const uint64_t key = nd_rng_key(seed, "codes");
    for (int64_t i = 0; i < count; i++) {
        before[i] = (int8_t)((int)(nd_rng_uniform(key, (uint64_t)i) * 3.0) - 1);
        const double drawn = nd_rng_uniform(key, (uint64_t)(COUNT_MAX + i));
        const int turn = drawn >= probability ? 0 : drawn < probability / 2.0 ? 1 : 2;
        now[i] = (int8_t)((before[i] + 1 + turn) % 3 - 1);
    }
}

static void turn_code(int64_t i)
{
    now[i] = (int8_t)((now[i] + 2) % 3 - 1);
}

static nd_code_entry entry_of(int8_t *codes, int64_t count, float *of_codes, int64_t groups)
{
    return (nd_code_entry){"blk.3.attn_q.weight", codes, count, of_codes, groups};
}

/* The entry as dist/code_stream.c makes it; `room`: of changes. Returns its bytes. */
static size_t make_by_host(uint8_t *to, const int8_t *was, const int8_t *is, int64_t count,
                           int64_t groups, bool whole, size_t room)
{
    const size_t of_scales = (size_t)groups * sizeof *scales;
    uint8_t *codes = to + of_scales + 4;
    size_t used = whole ? room + 1 : nd_changed_codes_make(was, is, count, codes, room);
    const uint32_t length = used > room ? UINT32_MAX : (uint32_t)used;
    memcpy(to, scales, of_scales);
    memcpy(to + of_scales, &length, sizeof length);
    if (length == UINT32_MAX) {
        used = (size_t)nd_trits_bytes(count);
        nd_trits_pack(codes, is, count, 0, (int64_t)used);
    }
    return of_scales + 4 + used;
}

static void same_bytes(const char *what, const void *a, const void *b, size_t bytes, int64_t count)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < bytes; i++)
        cr_assert(x[i] == y[i], "%s of %lld codes: byte %zu of %zu is %d, expected %d", what,
                  (long long)count, i, bytes, y[i], x[i]);
}

/* Makes and reads the entry at `start` of a stream, with codes at address `shift` of their memory. */
static void cross_at(int64_t count, int64_t groups, bool whole, size_t start, size_t shift)
{
    memset(expected, 0x5a, STREAM_MAX + MARGIN);
    memset(stream, 0x5a, STREAM_MAX + MARGIN);
    const size_t bytes = make_by_host(expected + start, before + shift, now + shift, count, groups,
                                      whole, (size_t)nd_trits_bytes(count));
    const nd_code_entry mine = entry_of(now + shift, count, scales, groups);
    at = start;
    ND_ASSERT_OK(kernels->make(device, &mine, before + shift, whole, stream, &at, work));
    ND_ASSERT_OK(device->ops.synchronize(device));
    cr_assert_eq(at, start + bytes);
    same_bytes("the entry", expected, stream, start + bytes + MARGIN, count);

    const nd_code_entry theirs = entry_of(got, count, got_scales, groups);
    memset(got_scales, 0, sizeof got_scales);
    memset(got + count, 0x5a, MARGIN);
    memcpy(got, before + shift, (size_t)count);
    at = start;
    ND_ASSERT_OK(kernels->take(device, &theirs, stream, start + bytes, &at, work));
    ND_ASSERT_OK(device->ops.synchronize(device));
    cr_assert_eq(at, start + bytes);
    same_bytes("the codes", now + shift, got, (size_t)count, count);
    same_bytes("the scales", scales, got_scales, (size_t)groups * sizeof *scales, count);
    for (int i = 0; i < MARGIN; i++)
        cr_assert_eq(got[count + i], 0x5a);
}

static void cross(int64_t count)
{
    cross_at(count, 1, false, 0, 0);
}

Test(code_kernels, make_and_read_what_the_host_does_at_any_rate_of_change)
{
    static const double rates[] = {0.0, 1e-3, 0.02, 0.12, 0.7, 1.0};
    for (int c = 0; c < COUNTS - 1; c++)
        for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
            draw(counts[c], rates[r], 10 * (uint64_t)c + r);
            cross(counts[c]);
        }
    draw(COUNT_MAX, 0.03, 5);
    cross(COUNT_MAX);
}

Test(code_kernels, whole_and_with_scales_of_groups_at_any_address)
{
    for (size_t start = 0; start < 5; start++) {
        draw(12289, 0.02, start);
        cross_at(12289, GROUPS_MAX, start % 2 == 1, start, start);
    }
}

/* 127 in a row that stay take a byte of their own; long runs are written by a whole block. */
Test(code_kernels, count_what_stays_over_any_distance)
{
    static const int64_t gaps[] = {0,    1,    126,  127,  128,  253,   254,
                                   4094, 4095, 4096, 4097, 4223, 12288, 40000};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        draw(65536, 0.0, g);
        for (int64_t i = gaps[g]; i < 65536; i += gaps[g] + 1)
            turn_code(i);
        cross(65536);
    }
    draw(COUNT_MAX, 0.0, 1);
    turn_code(COUNT_MAX - 1);
    cross(COUNT_MAX);
    turn_code(3);
    turn_code(COUNT_MAX - 9);
    cross(COUNT_MAX);
}

/* As many bytes as all codes take, and one more. */
Test(code_kernels, send_all_codes_where_changes_take_more)
{
    enum { COUNT = 5 * 1000 };
    for (int changed = 999; changed <= 1001; changed++) {
        draw(COUNT, 0.0, 2);
        for (int i = 0; i < changed; i++)
            turn_code(3 * i);
        cross(COUNT);
        uint32_t length;
        memcpy(&length, stream + sizeof *scales, sizeof length);
        cr_assert_eq(length, changed <= 1000 ? (uint32_t)changed : UINT32_MAX);
    }
}

/* No rank makes such an entry, but the format has it: one block reads many tiles of bytes. */
Test(code_kernels, read_changes_longer_than_all_codes)
{
    draw(COUNT_MAX, 1.0, 3);
    const size_t bytes = make_by_host(stream, before, now, COUNT_MAX, 1, false, COUNT_MAX);
    const nd_code_entry theirs = entry_of(got, COUNT_MAX, got_scales, 1);
    cr_assert_eq(bytes, COUNT_MAX + 8);
    memcpy(got, before, COUNT_MAX);
    at = 0;
    ND_ASSERT_OK(kernels->take(device, &theirs, stream, bytes, &at, work));
    ND_ASSERT_OK(device->ops.synchronize(device));
    same_bytes("the codes", now, got, COUNT_MAX, COUNT_MAX);
}

Test(code_kernels, stand_one_behind_another)
{
    static const int64_t lengths[] = {4097, 33, 12289, 500};
    size_t used = 0;
    draw(20000, 0.03, 4);
    at = 0;
    for (int i = 0; i < 4; i++) {
        const nd_code_entry mine = entry_of(now + 64 * i, lengths[i], scales, i + 1);
        used += make_by_host(expected + used, before + 64 * i, now + 64 * i, lengths[i], i + 1,
                             i == 1, (size_t)nd_trits_bytes(lengths[i]));
        ND_ASSERT_OK(kernels->make(device, &mine, before + 64 * i, i == 1, stream, &at, work));
    }
    ND_ASSERT_OK(device->ops.synchronize(device));
    cr_assert_eq(at, used);
    same_bytes("the stream", expected, stream, used, 4);
    at = 0;
    for (int i = 0; i < 4; i++) {
        const nd_code_entry theirs = entry_of(got, lengths[i], got_scales, i + 1);
        memcpy(got, before + 64 * i, (size_t)lengths[i]);
        ND_ASSERT_OK(kernels->take(device, &theirs, stream, used, &at, work));
        ND_ASSERT_OK(device->ops.synchronize(device));
        same_bytes("the codes", now + 64 * i, got, (size_t)lengths[i], lengths[i]);
    }
    cr_assert_eq(at, used);
}

/* Reads a damaged stream twice, as two entries: codes and scales stay as they were, and the next wait
 * names the first of them. */
static void refused(int64_t count, uint64_t bytes, const char *message)
{
    const nd_code_entry first = entry_of(got, count, got_scales, 1);
    const nd_code_entry second = {"another", got, count, got_scales, 1};
    memcpy(got, before, (size_t)count);
    got_scales[0] = -1.0f;
    at = 0;
    ND_ASSERT_OK(kernels->take(device, &first, stream, bytes, &at, work));
    ND_ASSERT_OK(kernels->take(device, &second, stream, bytes, &at, work));
    cr_assert_eq(at, ND_CODES_DAMAGED);
    ND_ASSERT_FAILS(device->ops.synchronize(device), ND_EPEER, message);
    ND_ASSERT_OK(device->ops.synchronize(device));
    same_bytes("the codes", before, got, (size_t)count, count);
    cr_assert_eq(got_scales[0], -1.0f);
}

Test(code_kernels, find_an_entry_that_is_cut_short)
{
    for (int whole = 0; whole < 2; whole++) {
        draw(12289, 0.05, 6);
        const size_t bytes = make_by_host(stream, before, now, 12289, 1, whole == 1, 2458);
        for (size_t left = 0; left < bytes; left += left < 10 ? 1 : 97)
            refused(12289, left, "the codes of blk.3.attn_q.weight are cut short");
        refused(12289, bytes - 1, "the codes of blk.3.attn_q.weight are cut short");
    }
}

/* Of several changes beyond the last code the first, as the host. */
Test(code_kernels, find_a_change_beyond_the_last_code)
{
    char message[256];
    static const int64_t limits[] = {1, 4096, 12288, 30000, 79999};
    draw(80000, 0.1, 7);
    if (now[79999] == before[79999])
        turn_code(79999);
    const size_t bytes = make_by_host(stream, before, now, 80000, 1, false, 16000);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        memcpy(got, before, 80000);
        cr_assert_eq(nd_changed_codes_apply(got, limits[i], stream + 8, bytes - 8), ND_EPEER);
        const char *said = strstr(nd_error_get()->message, "a change of code");
        cr_assert(said != NULL);
        snprintf(message, sizeof message, "the codes of blk.3.attn_q.weight: %s", said);
        refused(limits[i], bytes, message);
    }
}

/* What stays beyond the last code changes nothing, and is no damage to the host either. */
Test(code_kernels, any_bytes_are_read_as_the_host_reads_them)
{
    const uint64_t key = nd_rng_key(11, "bytes");
    int damaged = 0;
    for (int trial = 0; trial < 60; trial++) {
        const uint32_t length = (uint32_t)(trial * trial * 3);
        const int64_t count = 64 * (int64_t)length + 1;
        draw(count, 0.0, (uint64_t)trial);
        memcpy(stream, scales, sizeof *scales);
        memcpy(stream + 4, &length, sizeof length);
        for (uint32_t i = 0; i < length; i++)
            stream[8 + i] = (uint8_t)(nd_rng_uniform(key, ((uint64_t)trial << 32) + i) * 256.0);
        memcpy(now, before, (size_t)count);
        const bool bad = nd_changed_codes_apply(now, count, stream + 8, length) != ND_OK;
        damaged += bad;
        const nd_code_entry theirs = entry_of(got, count, got_scales, 1);
        memcpy(got, before, (size_t)count);
        at = 0;
        ND_ASSERT_OK(kernels->take(device, &theirs, stream, 8 + length, &at, work));
        cr_assert_eq(device->ops.synchronize(device), bad ? ND_EPEER : ND_OK, "trial %d", trial);
        same_bytes("the codes", bad ? before : now, got, (size_t)count, count);
    }
    cr_assert(damaged > 10 && damaged < 50, "%d of 60 damaged", damaged);
}
