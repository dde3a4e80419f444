/* Entries of a code stream made and read by the device's kernels, emulated or on a GPU: byte by
 * byte the host's. */
#include "support/support.h"

#include "core/base/rng.h"
#include "core/base/trits.h"
#include "dist/weights/changed_codes.h"
#include "dist/weights/code_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

nd_status nd_conformance_device(nd_backend **backend);
const nd_code_kernels *nd_conformance_code_kernels(void);

/* More tiles of 4096 codes, or bytes, than one block takes at once. */
enum { COUNT_MAX = 257 * 4096 + 77, GROUPS_MAX = 9, STREAM_MAX = COUNT_MAX + 4096, MARGIN = 64 };
enum { CAPACITY = STREAM_MAX + MARGIN };

static const int64_t counts[] = {1,    2,    5,    16,   17,    127,       128,      129,
                                 1000, 4095, 4096, 4097, 12289, 20 * 4096, COUNT_MAX};
enum { COUNTS = sizeof counts / sizeof *counts };

static int8_t before[CAPACITY], now[CAPACITY], got[CAPACITY];
static uint8_t expected[CAPACITY], stream[CAPACITY];
static float scales[GROUPS_MAX];

/* The device and its memory. */
static nd_backend *b;
static const nd_code_kernels *kernels;
static struct {
    int8_t *before, *codes;
    uint8_t *stream;
    float *scales;
    uint64_t *at;
    void *work;
} on;

static void *allocate(size_t bytes)
{
    void *memory = NULL;
    ND_ASSERT_OK(b->ops.allocate(b, bytes, &memory));
    return memory;
}

static size_t work_bytes(void)
{
    return kernels->work_bytes(COUNT_MAX, STREAM_MAX);
}

static void open_device(void)
{
    ND_ASSERT_OK(nd_conformance_device(&b));
    kernels = nd_conformance_code_kernels();
    on.before = allocate(CAPACITY);
    on.codes = allocate(CAPACITY);
    on.stream = allocate(CAPACITY);
    on.scales = allocate(sizeof scales);
    on.at = allocate(sizeof *on.at);
    on.work = allocate(work_bytes());
    for (int i = 0; i < GROUPS_MAX; i++)
        scales[i] = (float)(i + 1) * 0.37f;
}

static void close_device(void)
{
    b->ops.release(b, on.before, CAPACITY);
    b->ops.release(b, on.codes, CAPACITY);
    b->ops.release(b, on.stream, CAPACITY);
    b->ops.release(b, on.scales, sizeof scales);
    b->ops.release(b, on.at, sizeof *on.at);
    b->ops.release(b, on.work, work_bytes());
    nd_backend_destroy(b);
}

static void send(void *to, const void *from, size_t bytes)
{
    ND_ASSERT_OK(b->ops.upload(b, to, from, bytes));
}

static void fetch(void *to, const void *from, size_t bytes)
{
    ND_ASSERT_OK(b->ops.download(b, to, from, bytes));
}

static void set_at(uint64_t at)
{
    send(on.at, &at, sizeof at);
}

static uint64_t get_at(void)
{
    uint64_t at;
    fetch(&at, on.at, sizeof at);
    return at;
}

/* Makes an entry of now [count], at address `shift` of its memory, in the stream on the device. */
static void make(int64_t count, int64_t groups, bool whole, size_t shift)
{
    const nd_code_entry entry = {"mine", on.codes + shift, count, on.scales, groups};
    send(on.codes + shift, now + shift, (size_t)count);
    send(on.before + shift, before + shift, (size_t)count);
    send(on.scales, scales, sizeof scales);
    ND_ASSERT_OK(kernels->encode(b, &entry, on.before + shift, whole, on.stream, on.at, on.work));
}

/* Reads one on top of these codes, and scales of -1. */
static void take(const char *name, const int8_t *codes, int64_t count, int64_t groups,
                 uint64_t bytes)
{
    float none[GROUPS_MAX];
    const nd_code_entry entry = {name, on.codes, count, on.scales, groups};
    for (int i = 0; i < GROUPS_MAX; i++)
        none[i] = -1.0f;
    send(on.scales, none, sizeof none);
    send(on.codes, codes, (size_t)count + MARGIN);
    ND_ASSERT_OK(kernels->decode(b, &entry, on.stream, bytes, on.at, on.work));
}

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

/* The entry as dist/weights/code_stream.c makes it; `capacity`: of changes. Returns its bytes. */
static size_t make_by_host(uint8_t *to, const int8_t *was, const int8_t *is, int64_t count,
                           int64_t groups, bool whole, size_t capacity)
{
    const size_t of_scales = (size_t)groups * sizeof *scales;
    uint8_t *codes = to + of_scales + 4;
    size_t used = whole ? capacity + 1 : nd_changed_codes_encode(was, is, count, codes, capacity);
    const uint32_t length = used > capacity ? UINT32_MAX : (uint32_t)used;
    memcpy(to, scales, of_scales);
    memcpy(to + of_scales, &length, sizeof length);
    if (length == UINT32_MAX) {
        used = (size_t)nd_trits_bytes(count);
        nd_trits_pack(codes, is, count, 0, (int64_t)used);
    }
    return of_scales + 4 + used;
}

static void same_bytes(const char *what, const void *want, const void *have, size_t bytes,
                       int64_t count)
{
    const unsigned char *x = want, *y = have;
    for (size_t i = 0; i < bytes; i++)
        cr_assert(x[i] == y[i], "%s of %lld codes: byte %zu of %zu is %d, expected %d", what,
                  (long long)count, i, bytes, y[i], x[i]);
}

/* After take(): these codes and nothing behind them, and so many of these scales. */
static void check_taken(const int8_t *codes, int64_t count, const float *of_codes, int64_t groups)
{
    float got_scales[GROUPS_MAX];
    fetch(got, on.codes, (size_t)count + MARGIN);
    fetch(got_scales, on.scales, sizeof got_scales);
    same_bytes("the codes", codes, got, (size_t)count, count);
    same_bytes("what is behind them", before + count, got + count, MARGIN, count);
    same_bytes("the scales", of_codes, got_scales, (size_t)groups * sizeof *scales, count);
    for (int64_t i = groups; i < GROUPS_MAX; i++)
        cr_assert_eq(got_scales[i], -1.0f);
}

/* Makes and reads the entry at `start` of a stream, with codes at address `shift` of
 * their memory. */
static void cross_at(int64_t count, int64_t groups, bool whole, size_t start, size_t shift)
{
    const size_t capacity = start + (size_t)(groups * 4 + 4 + nd_trits_bytes(count)) + MARGIN;
    memset(expected, 0x5a, capacity);
    const size_t bytes = make_by_host(expected + start, before + shift, now + shift, count, groups,
                                      whole, (size_t)nd_trits_bytes(count));
    memset(stream, 0x5a, capacity);
    send(on.stream, stream, capacity);
    set_at(start);
    make(count, groups, whole, shift);
    cr_assert_eq(get_at(), start + bytes);
    fetch(stream, on.stream, capacity);
    same_bytes("the entry and what is around it", expected, stream, capacity, count);

    memmove(before, before + shift, (size_t)count + MARGIN);
    set_at(start);
    take("theirs", before, count, groups, start + bytes);
    cr_assert_eq(get_at(), start + bytes);
    check_taken(now + shift, count, scales, groups);
}

static void cross(int64_t count)
{
    cross_at(count, 1, false, 0, 0);
}

Test(code_kernels, make_and_read_what_the_host_does_at_any_rate_of_change)
{
    open_device();
    static const double rates[] = {0.0, 1e-3, 0.02, 0.12, 0.7, 1.0};
    for (int c = 0; c < COUNTS - 1; c++)
        for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
            draw(counts[c], rates[r], 10 * (uint64_t)c + r);
            cross(counts[c]);
        }
    draw(COUNT_MAX, 0.03, 5);
    cross(COUNT_MAX);
    close_device();
}

Test(code_kernels, whole_and_with_scales_of_groups_at_any_address)
{
    open_device();
    for (size_t start = 0; start < 5; start++) {
        draw(12289, 0.02, start);
        cross_at(12289, GROUPS_MAX, start % 2 == 1, start, start);
    }
    close_device();
}

/* 127 in a row that stay take a byte of their own; long runs are written by a whole block. */
Test(code_kernels, count_what_stays_over_any_distance)
{
    open_device();
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
    close_device();
}

/* As many bytes as all codes take, and one more. */
Test(code_kernels, send_all_codes_where_changes_take_more)
{
    open_device();
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
    close_device();
}

/* No rank makes such an entry, but the format has it: one block reads many tiles of bytes. */
Test(code_kernels, read_changes_longer_than_all_codes)
{
    open_device();
    draw(COUNT_MAX, 1.0, 3);
    const size_t bytes = make_by_host(stream, before, now, COUNT_MAX, 1, false, COUNT_MAX);
    cr_assert_eq(bytes, COUNT_MAX + 8);
    send(on.stream, stream, bytes);
    set_at(0);
    take("theirs", before, COUNT_MAX, 1, bytes);
    check_taken(now, COUNT_MAX, scales, 1);
    close_device();
}

Test(code_kernels, stand_one_behind_another)
{
    static const int64_t lengths[] = {4097, 33, 12289, 500};
    size_t used = 0;
    open_device();
    draw(20000, 0.03, 4);
    set_at(0);
    for (int i = 0; i < 4; i++) {
        used += make_by_host(expected + used, before, now, lengths[i], i + 1, i == 1,
                             (size_t)nd_trits_bytes(lengths[i]));
        make(lengths[i], i + 1, i == 1, 0);
    }
    cr_assert_eq(get_at(), used);
    fetch(stream, on.stream, used);
    same_bytes("the stream", expected, stream, used, 4);
    set_at(0);
    for (int i = 0; i < 4; i++) {
        take("theirs", before, lengths[i], i + 1, used);
        check_taken(now, lengths[i], scales, i + 1);
    }
    cr_assert_eq(get_at(), used);
    close_device();
}

/* Reads a damaged stream of `bytes` bytes, and on, as another entry: codes and scales stay as they
 * were, and the next wait names the first of them. */
static void refused(int64_t count, uint64_t bytes, const char *message)
{
    const float none[] = {-1.0f};
    send(on.stream, stream, bytes);
    set_at(0);
    take("blk.3.attn_q.weight", before, count, 1, bytes);
    ND_ASSERT_FAILS(b->ops.synchronize(b), ND_EPEER, message);
    take("another", before, count, 1, bytes);
    cr_assert_eq(get_at(), ND_CODES_DAMAGED);
    check_taken(before, count, none, 1);
}

Test(code_kernels, find_an_entry_that_is_cut_short)
{
    open_device();
    for (int whole = 0; whole < 2; whole++) {
        draw(12289, 0.05, 6);
        const size_t bytes = make_by_host(stream, before, now, 12289, 1, whole == 1, 2458);
        for (size_t left = 0; left < bytes; left += left < 10 ? 1 : 97)
            refused(12289, left, "the codes of blk.3.attn_q.weight are cut short");
        refused(12289, bytes - 1, "the codes of blk.3.attn_q.weight are cut short");
    }
    close_device();
}

/* Of several changes beyond the last code the first, as the host. */
Test(code_kernels, find_a_change_beyond_the_last_code)
{
    char message[256];
    static const int64_t limits[] = {1, 4096, 12288, 30000, 79999};
    open_device();
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
    close_device();
}

/* What stays beyond the last code changes nothing, and is no damage to the host either. */
Test(code_kernels, read_any_bytes_as_the_host_does)
{
    const uint64_t key = nd_rng_key(11, "bytes");
    const float none[] = {-1.0f};
    int damaged = 0;
    open_device();
    for (int trial = 0; trial < 60; trial++) {
        const uint32_t length = (uint32_t)(trial * trial * 3);
        const int64_t count = 64 * (int64_t)length + 1;
        draw(count, 0.0, (uint64_t)trial);
        memcpy(stream, scales, sizeof *scales);
        memcpy(stream + 4, &length, sizeof length);
        for (uint32_t i = 0; i < length; i++)
            stream[8 + i] = (uint8_t)(nd_rng_uniform(key, ((uint64_t)trial << 32) + i) * 256.0);
        const bool bad = nd_changed_codes_apply(now, count, stream + 8, length) != ND_OK;
        damaged += bad;
        send(on.stream, stream, 8 + length);
        set_at(0);
        take("theirs", before, count, 1, 8 + length);
        cr_assert_eq(b->ops.synchronize(b), bad ? ND_EPEER : ND_OK, "trial %d", trial);
        check_taken(bad ? before : now, count, bad ? none : scales, 1);
    }
    cr_assert(damaged > 10 && damaged < 50, "%d of 60 damaged", damaged);
    close_device();
}
