/* One switch for the instruction sets of the program and of oneDNN. The limit holds for a process,
 * so that each case runs in a child of its own. */
#include "support/support.h"

#include "core/backend/backend.h"
#include "core/backend/cpu/fast_context.h"
#include "core/backend/cpu/fast_kernels.h"
#include "core/backend/cpu/fast_matmul.h"
#include "core/backend/row_kernels.h"
#include "core/base/float_formats.h"
#include "core/base/rng.h"
#include "core/base/sha256.h"

#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TOKENS = 1100, OUT = 67, IN = 131, DIGESTS = 6 };

static const char *const names[] = {"auto",   "generic",     "dotprod",     "avx2", "avx2_vnni",
                                    "avx512", "avx512_vnni", "avx512_bf16", "amx"};

typedef struct outcome {
    bool made;         /* a backend: this CPU has the instruction set */
    bool generic_rows; /* what encodes gradients for messages is the plain C */
    char digest[DIGESTS][ND_SHA256_HEX_SIZE];
    char message[2100];
} outcome;

static void digest_of(nd_view v, char hex[ND_SHA256_HEX_SIZE])
{
    ND_ASSERT_OK(nd_sha256_hex(v.data, nd_view_bytes(nd_as_const(v)), hex));
}

/* Compresses blocks of all sizes with infinities, NaN and zeros among them, and adds them to `sums`
 * where they were. */
static int64_t compress_blocks(uint8_t *out, float *sums, const float *x)
{
    const nd_row_kernels kernels = nd_row_kernels_in_force();
    static float mixed[ND_FLOATS_BLOCK];
    int64_t used = 0;
    for (int n = 1; n <= ND_FLOATS_BLOCK; n++) {
        memcpy(mixed, x, (size_t)n * sizeof *x);
        for (int i = n % 5; i < n && n % 2; i += 17)
            mixed[i] = i % 3 == 0 ? INFINITY : i % 3 == 1 ? NAN : 0.0f;
        const int64_t bytes = kernels.compress_floats(out + used, 4 * n + 4, mixed, n);
        if (bytes == 0 || kernels.decompress_floats(sums, out + used, bytes, n, n % 3) != bytes)
            return -1;
        used += bytes;
    }
    return used;
}

/* What is defined to be exact, of inputs with extremes: the ternary forward pass, the two backward
 * products in 8 bits, in f32 and bf16, and compressed gradients. */
static void compute(nd_backend *b, outcome *result)
{
    static float dy[TOKENS * OUT], a[TOKENS], y[TOKENS * OUT], dx[TOKENS * IN], dw[OUT * IN];
    static uint16_t narrow[TOKENS * IN];
    static int8_t q[TOKENS * IN], c[OUT * IN];
    static uint8_t coded[4 * ND_FLOATS_BLOCK * (ND_FLOATS_BLOCK + 2)];
    static float sums[ND_FLOATS_BLOCK];
    float scale = 0.37f;
    const uint64_t key = nd_rng_key(7, "cpu_isa");
    nd_rng_normal_fill(key, 0, 1e-3f, dy, TOKENS * OUT);
    for (int64_t i = 0; i < TOKENS; i++)
        a[i] = 0.1f + (float)nd_rng_uniform(key, (uint64_t)i);
    for (int64_t i = 0; i < TOKENS * IN; i++)
        q[i] = i % 3 == 0 ? -128 : (int8_t)(127 - i % 2 * 254);
    for (int64_t i = 0; i < OUT * IN; i++)
        c[i] = (int8_t)(i % 7 % 3 - 1);
    const nd_cview qv = nd_cview_of(q, ND_I8, TOKENS, IN), cv = nd_cview_of(c, ND_I8, OUT, IN);
    const nd_cview av = nd_cview_of(a, ND_F32, TOKENS, 1), sv = nd_cview_of(&scale, ND_F32, 1, 1);
    const nd_cview dyv = nd_cview_of(dy, ND_F32, TOKENS, OUT);
    const nd_view out[DIGESTS] = {nd_view_of(y, ND_F32, TOKENS, OUT),
                                  nd_view_of(dx, ND_F32, TOKENS, IN),
                                  nd_view_of(narrow, ND_BF16, TOKENS, IN),
                                  nd_view_of(dw, ND_F32, OUT, IN),
                                  nd_view_of(coded, ND_I8, 1, (int64_t)sizeof coded),
                                  nd_view_of(sums, ND_F32, 1, ND_FLOATS_BLOCK)};
    ND_ASSERT_OK(b->ops.ternary_gemm(b, out[0], qv, av, cv, sv));
    ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(b, out[1], dyv, cv, sv, 0.0f));
    ND_ASSERT_OK(b->ops.ternary_gemm_dx_int8(b, out[2], dyv, cv, sv, 0.0f));
    ND_ASSERT_OK(b->ops.ternary_gemm_dw_int8(b, out[3], dyv, qv, av, 0.0f));
    cr_assert_gt(compress_blocks(coded, sums, dy), 0);
    for (int i = 0; i < DIGESTS; i++)
        digest_of(out[i], result->digest[i]);
}

/* oneDNN's products, one sum of each too large by one while `inexact`; the linker puts this in the
 * place of nd_matmul_run. */
static bool inexact;
bool __real_nd_matmul_run(const nd_matmul *matmul, int thread, const void *a, const void *b,
                          void *c);
bool __wrap_nd_matmul_run(const nd_matmul *matmul, int thread, const void *a, const void *b,
                          void *c);
bool __wrap_nd_matmul_run(const nd_matmul *matmul, int thread, const void *a, const void *b,
                          void *c)
{
    const bool ok = __real_nd_matmul_run(matmul, thread, a, b, c);
    *(int32_t *)c += inexact;
    return ok;
}

/* Backends one after another in one process; the outcome is the last one's. */
static outcome in_a_child(const nd_cpu_isa *isas, int count)
{
    outcome result = {0};
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < count; i++) {
            nd_backend *b = NULL;
            nd_error_clear();
            const nd_cpu_backend_options options = {.threads = 2, .isa = isas[i]};
            result.made = nd_cpu_backend_create(&options, &b) == ND_OK;
            inexact = false;
            if (result.made)
                compute(b, &result);
            result.generic_rows =
                nd_row_kernels_in_force().quantize == nd_fast_kernels_generic()->quantize;
            snprintf(result.message, sizeof result.message, "%s",
                     result.made ? b->traits.device : nd_error_get()->message);
            nd_backend_destroy(b);
        }
        _exit(write(ends[1], &result, sizeof result) == (ssize_t)sizeof result ? 0 : 1);
    }
    int status = -1;
    close(ends[1]);
    cr_assert_eq(read(ends[0], &result, sizeof result), (ssize_t)sizeof result);
    close(ends[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    return result;
}

Test(cpu_isa, exact_products_have_the_same_bits_on_every_instruction_set)
{
    const nd_cpu_isa base = ND_CPU_ISA_GENERIC;
    const outcome expected = in_a_child(&base, 1);
    cr_assert(expected.made, "%s", expected.message);
    for (int isa = 0; isa <= ND_CPU_ISA_AMX; isa++) {
        const nd_cpu_isa wanted = (nd_cpu_isa)isa;
        const outcome got = in_a_child(&wanted, 1);
        if (!got.made) {
            cr_assert(strstr(got.message, "this CPU lacks it") ||
                          strstr(got.message, "is for x86 CPUs") ||
                          strstr(got.message, "is limited to"),
                      "%s", got.message);
            cr_log_info("%s: not on this machine\n", names[isa]);
            continue;
        }
        cr_log_info("%s: %s\n", names[isa], got.message);
        for (int i = 0; i < DIGESTS; i++)
            cr_assert_str_eq(got.digest[i], expected.digest[i], "output %d on %s", i, names[isa]);
    }
}

Test(cpu_isa, products_that_are_found_inexact_at_the_start_are_replaced_and_named)
{
    const nd_cpu_isa generic = ND_CPU_ISA_GENERIC;
    const outcome right = in_a_child(&generic, 1);
    inexact = true;
    const outcome replaced = in_a_child(&generic, 1);
    cr_assert(right.made && replaced.made, "%s", replaced.message);
    cr_assert_null(strstr(right.message, "integer products in f32"), "%s", right.message);
    cr_assert_not_null(
        strstr(replaced.message, "integer products in f32, since oneDNN's are not exact"), "%s",
        replaced.message);
    for (int i = 0; i < DIGESTS; i++)
        cr_assert_str_eq(replaced.digest[i], right.digest[i], "output %d", i);
}

Test(cpu_isa, a_limit_is_in_force_for_onednn_too_and_says_so)
{
    const nd_cpu_isa twice[] = {ND_CPU_ISA_GENERIC, ND_CPU_ISA_AVX2};
    const outcome lower = in_a_child(twice, 1), higher = in_a_child(twice, 2);
    cr_assert(lower.made && strstr(lower.message, "generic"), "%s", lower.message);
    cr_assert(higher.made == false, "%s", higher.message);
    cr_assert(strstr(higher.message, "cpu_isa = avx2") != NULL, "%s", higher.message);
}

Test(cpu_isa, auto_follows_the_limit_that_the_environment_sets)
{
    const nd_cpu_isa choice = ND_CPU_ISA_AUTO;
    const outcome unlimited = in_a_child(&choice, 1);
    setenv("DNNL_MAX_CPU_ISA", "SSE41", 1);
    const outcome got = in_a_child(&choice, 1);
#ifdef __x86_64__
    const char *const expected = "generic";
#else /* oneDNN has no such limit */
    const char *const expected = unlimited.message;
#endif
    cr_assert(unlimited.made && got.made && strstr(got.message, expected), "%s", got.message);
}

Test(cpu_isa, limits_what_encodes_gradients_for_messages_too)
{
    for (int isa = 0; isa <= ND_CPU_ISA_AMX; isa++) {
        const nd_cpu_isa wanted = (nd_cpu_isa)isa;
        const outcome got = in_a_child(&wanted, 1);
        if (got.made)
            cr_assert_eq(got.generic_rows,
                         strstr(got.message, "generic") || strstr(got.message, "dotprod"), "%s: %s",
                         names[isa], got.message);
    }
}

Test(cpu_isa, ops_use_as_many_threads_as_they_are_told_up_to_those_of_the_backend)
{
    nd_backend *b;
    ND_ASSERT_OK(nd_cpu_backend_create(&(nd_cpu_backend_options){.threads = 3}, &b));
    const nd_cpu_fast *fast = nd_cpu_fast_of(b);
    const int asked[] = {2, 1, 0, 3, 4}, used[] = {2, 1, 1, 3, 3};
    cr_assert_eq(fast->threads, 3);
    for (int i = 0; i < 5; i++) {
        nd_cpu_backend_set_threads(b, asked[i]);
        cr_assert_eq(fast->threads, used[i]);
        cr_assert_eq(nd_cpu_backend_threads(b), 3);
    }
    nd_backend_destroy(b);
    const nd_cpu_backend_options reference = {.threads = 3, .reference_only = true};
    ND_ASSERT_OK(nd_cpu_backend_create(&reference, &b));
    nd_cpu_backend_set_threads(b, 2);
    cr_assert_eq(nd_cpu_backend_threads(b), 1);
    nd_backend_destroy(b);
}
