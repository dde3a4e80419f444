/* How fast formats of the wire are made and read on one core: GB/s of the f32 gradients, or of the
 * codes in bytes, that go in or come out.
 *
 *   bench_wire_formats */
#include "bench_run.h"
#include "timing.h"

#include "cli/args.h"
#include "core/backend/backend.h"
#include "dist/reduction/float_compression.h"
#include "dist/reduction/gradient_wire.h"

#include <stdio.h>
#include <string.h>

enum { COUNT = 1 << 22, ROUNDS = 9, PART = 1 << 16 /* values of a message */ };

static float values[COUNT], sums[COUNT];
static int8_t codes[COUNT];
static char wire[4 * COUNT], kept[2 * COUNT];

static void print(const char *name, double *times, double bytes)
{
    printf("%-24s %8.2f GB/s\n", name, bytes / median(times, ROUNDS) * 1e-9);
}

static void time_gradients(nd_gradient_wire format, bool feedback)
{
    double make[ROUNDS], add[ROUNDS];
    char name[64];
    memset(kept, 0, sizeof kept);
    for (int r = 0; r < ROUNDS; r++) {
        const double start = nd_seconds();
        nd_gradient_wire_encode(format, wire, values, feedback ? kept : NULL, COUNT);
        const double middle = nd_seconds();
        nd_gradient_wire_add(format, sums, wire, COUNT);
        make[r] = middle - start;
        add[r] = nd_seconds() - middle;
    }
    snprintf(name, sizeof name, "%s make%s", nd_gradient_wire_name(format),
             feedback ? ", feedback" : "");
    print(name, make, sizeof values);
    snprintf(name, sizeof name, "%s add", nd_gradient_wire_name(format));
    print(name, add, sizeof values);
}

static void time_compression(void)
{
    double make[ROUNDS] = {0}, add[ROUNDS] = {0};
    for (int r = 0; r < ROUNDS; r++)
        for (int at = 0; at < COUNT; at += PART) {
            const double start = nd_seconds();
            const size_t bytes = nd_floats_compress(wire, values + at, PART);
            const double middle = nd_seconds();
            nd_floats_decompress(sums + at, wire, bytes, PART, true);
            make[r] += middle - start;
            add[r] += nd_seconds() - middle;
        }
    print("compressed make", make, sizeof values);
    print("compressed add", add, sizeof values);
}

static nd_status time_codes(nd_backend *b, bool trits)
{
    const nd_view c = nd_view_of(codes, ND_I8, 1, COUNT);
    const nd_view packed = nd_view_of(wire, ND_U8, 1, trits ? (COUNT + 4) / 5 : COUNT / 4);
    double make[ROUNDS], read[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        const double start = nd_seconds();
        ND_TRY(trits ? b->ops.pack_trits(b, packed, nd_as_const(c))
                     : b->ops.pack_codes(b, packed, nd_as_const(c)));
        const double middle = nd_seconds();
        ND_TRY(trits ? b->ops.unpack_trits(b, c, nd_as_const(packed))
                     : b->ops.unpack_codes(b, c, nd_as_const(packed)));
        make[r] = middle - start;
        read[r] = nd_seconds() - middle;
    }
    print(trits ? "trits make" : "packed make", make, COUNT);
    print(trits ? "trits read" : "packed read", read, COUNT);
    return ND_OK;
}

static nd_status bench(int argc, char **argv)
{
    nd_backend *b;
    const nd_cpu_backend_options options = {.threads = 1};
    const nd_command command = {"bench_wire_formats",
                                "Times encoding and decoding of gradients and ternary codes for "
                                "messages, on one core.",
                                NULL, 0};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)((i * 2654435761u) >> 8 & 0xffff) * 1e-6f - 0.03f;
        codes[i] = (int8_t)((i * 2654435761u >> 16) % 3) - 1;
    }
    time_gradients(ND_GRADIENT_WIRE_FP32, false);
    time_compression();
    time_gradients(ND_GRADIENT_WIRE_BF16, false);
    time_gradients(ND_GRADIENT_WIRE_BF16, true);
    time_gradients(ND_GRADIENT_WIRE_INT8, false);
    time_gradients(ND_GRADIENT_WIRE_INT8, true);
    ND_TRY(nd_cpu_backend_create(&options, &b));
    ND_TRY(time_codes(b, false));
    return time_codes(b, true);
}

int main(int argc, char **argv)
{
    return bench_exit("bench_wire_formats", bench(argc, argv));
}
