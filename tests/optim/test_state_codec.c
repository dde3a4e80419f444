/* State codecs: what comes back, what it weighs, and what the low-rank part is for. */
#include "core/base/rng.h"
#include "optim/orthonormal.h"
#include "optim/state_codec.h"
#include "support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A state of one matrix in an arena, with the room its codec needs. */
typedef struct fixture {
    nd_backend *backend;
    nd_arena arena;
    nd_state state;
    nd_state_scratch scratch;
    nd_view matrix;
} fixture;

static nd_status lay_out(fixture *f, const nd_state_codec *codec, int64_t rows, int64_t cols)
{
    const int64_t rank = nd_state_low_rank(rows, cols);
    ND_TRY(nd_state_reserve(&f->state, codec, rows, cols, &f->arena));
    ND_TRY(nd_arena_reserve(&f->arena, ND_F32, rows, cols, &f->matrix));
    ND_TRY(nd_arena_reserve(&f->arena, ND_F32, rank, rows, &f->scratch.left));
    ND_TRY(nd_arena_reserve(&f->arena, ND_F32, rank, cols, &f->scratch.right));
    ND_TRY(nd_arena_reserve(&f->arena, ND_F32, rank, rows, &f->scratch.product));
    return nd_arena_reserve(&f->arena, ND_F32, rank, rank, &f->scratch.gram);
}

static fixture create(const nd_state_codec *codec, int64_t rows, int64_t cols, int threads)
{
    fixture f = {0};
    const int64_t rank = nd_state_low_rank(rows, cols);
    const nd_cpu_backend_options options = {.threads = threads};
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &f.backend));
    nd_arena_start_sizing(&f.arena, "test", f.backend);
    ND_ASSERT_OK(lay_out(&f, codec, rows, cols));
    ND_ASSERT_OK(nd_arena_commit(&f.arena));
    ND_ASSERT_OK(lay_out(&f, codec, rows, cols));
    f.scratch.host = calloc((size_t)(2 * rank * rank), sizeof *f.scratch.host);
    return f;
}

static void destroy(fixture *f)
{
    free(f->scratch.host);
    nd_arena_release(&f->arena);
    nd_backend_destroy(f->backend);
}

static nd_view load(fixture *f)
{
    nd_view m;
    ND_ASSERT_OK(f->state.codec->load(f->backend, &f->state, &f->scratch, f->matrix, &m));
    return m;
}

static void store(fixture *f, const float *values)
{
    const nd_view m = load(f);
    memcpy(m.data, values, nd_view_bytes(nd_as_const(m)));
    ND_ASSERT_OK(f->state.codec->store(f->backend, &f->state, &f->scratch, m));
}

/* Normal noise of size 0.1 and `directions` outer products of normal vectors. */
static float *matrix(int64_t rows, int64_t cols, int directions, uint64_t seed)
{
    float *m = malloc((size_t)(rows * cols) * sizeof *m);
    float *u = malloc((size_t)rows * sizeof *u), *v = malloc((size_t)cols * sizeof *v);
    nd_rng_normal_fill(seed, 0, 0.1f, m, rows * cols);
    for (int d = 0; d < directions; d++) {
        nd_rng_normal_fill(seed + 1, (uint64_t)(d * rows), 1.0f, u, rows);
        nd_rng_normal_fill(seed + 2, (uint64_t)(d * cols), 1.0f, v, cols);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++)
                m[i * cols + j] += u[i] * v[j];
    }
    free(u);
    free(v);
    return m;
}

static double error_of(const nd_view m, const float *values)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < nd_view_count(nd_as_const(m)); i++) {
        const double d = (double)(((const float *)m.data)[i] - values[i]);
        difference += d * d;
        norm += (double)values[i] * (double)values[i];
    }
    return sqrt(difference / norm);
}

static const nd_state_codec *const codecs[] = {&nd_state_fp32, &nd_state_linear8,
                                               &nd_state_dynamic8, &nd_state_low_rank4};
enum { CODECS = sizeof codecs / sizeof *codecs };
static const int64_t shapes[][2] = {{64, 64},  {130, 33}, {33, 130},
                                    {1, 5000}, {5000, 1}, {3, 2001}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

Test(state_codec, a_new_state_is_zero_and_stays_zero)
{
    for (int c = 0; c < CODECS; c++)
        for (int s = 0; s < SHAPES; s++) {
            fixture f = create(codecs[c], shapes[s][0], shapes[s][1], 2);
            for (int round = 0; round < 2; round++) {
                const nd_view m = load(&f);
                for (int64_t i = 0; i < nd_view_count(nd_as_const(m)); i++)
                    cr_assert_eq(((float *)m.data)[i], 0.0f, "%s", codecs[c]->name);
                ND_ASSERT_OK(codecs[c]->store(f.backend, &f.state, &f.scratch, m));
            }
            destroy(&f);
        }
}

Test(state_codec, every_shape_comes_back_about_as_it_was)
{
    static const double tolerances[CODECS] = {0.0, 0.03, 0.03, 0.11};
    for (int c = 0; c < CODECS; c++)
        for (int s = 0; s < SHAPES; s++) {
            fixture f = create(codecs[c], shapes[s][0], shapes[s][1], 1);
            float *values = matrix(shapes[s][0], shapes[s][1], 1, 5);
            store(&f, values);
            const double error = error_of(load(&f), values);
            cr_assert(error <= tolerances[c], "%s [%lld, %lld]: error %g", codecs[c]->name,
                      (long long)shapes[s][0], (long long)shapes[s][1], error);
            free(values);
            destroy(&f);
        }
}

Test(state_codec, any_number_of_threads_keeps_the_same_bits)
{
    for (int c = 0; c < CODECS; c++) {
        fixture one = create(codecs[c], 300, 260, 1), three = create(codecs[c], 300, 260, 3);
        float *values = matrix(300, 260, 6, 7);
        for (int round = 0; round < 3; round++) {
            store(&one, values);
            store(&three, values);
        }
        for (int p = 0; p < codecs[c]->parts; p++)
            cr_assert_eq(memcmp(one.state.parts[p].data, three.state.parts[p].data,
                                nd_view_bytes(nd_as_const(one.state.parts[p]))),
                         0, "%s: part %s", codecs[c]->name, codecs[c]->suffixes[p]);
        free(values);
        destroy(&one);
        destroy(&three);
    }
}

/* What 4 bits are measured by: four directions far above the rest must not coarsen the rest. */
Test(state_codec, four_bits_keep_what_lies_beside_a_few_large_directions)
{
    fixture f = create(&nd_state_low_rank4, 256, 384, 2);
    float *values = matrix(256, 384, 4, 11);
    for (int round = 0; round < 4; round++)
        store(&f, values);
    /* the noise is 0.1 of the directions' 2; 4 bits of the noise leave a twelfth of that */
    cr_assert_lt(error_of(load(&f), values), 0.006);
    free(values);
    destroy(&f);
}

Test(state_codec, rows_become_orthonormal_and_zero_rows_stay_zero)
{
    enum { RANK = 5, N = 70 };
    nd_backend *b;
    const nd_cpu_backend_options options = {.threads = 1};
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &b));
    float x[RANK * N], y[RANK * N], gram[RANK * RANK];
    double host[2 * RANK * RANK], largest = 0.0;
    nd_rng_normal_fill(3, 0, 1.0f, x, RANK * N);
    for (int i = 0; i < N; i++) {
        x[i] *= 1e-6f; /* rows of very different lengths */
        x[2 * N + i] = 0.0f;
    }
    ND_ASSERT_OK(nd_orthonormal_rows(b, nd_view_of(y, ND_F32, RANK, N),
                                     nd_cview_of(x, ND_F32, RANK, N),
                                     nd_view_of(gram, ND_F32, RANK, RANK), host, &largest));
    cr_assert(largest > 30.0 && largest < 150.0);
    for (int i = 0; i < RANK; i++)
        for (int j = 0; j < RANK; j++) {
            double dot = 0.0;
            for (int k = 0; k < N; k++)
                dot += (double)y[i * N + k] * (double)y[j * N + k];
            cr_assert_float_eq(dot, i == j && i != 2 ? 1.0 : 0.0, 1e-5);
        }
    nd_backend_destroy(b);
}

/* Bytes of a matrix's parts, as an arena hands them out. */
static double bytes_per_element(const nd_state_codec *codec, int64_t rows, int64_t cols)
{
    nd_arena arena;
    nd_state state = {0};
    nd_arena_start_sizing(&arena, "state", NULL);
    ND_ASSERT_OK(nd_state_reserve(&state, codec, rows, cols, &arena));
    return (double)arena.used / (double)(rows * cols);
}

Test(state_codec, matrices_weigh_at_most_1_02_bytes_in_8_bits_and_0_57_in_4)
{
    static const int64_t sizes[][2] = {{512, 512},  {256, 512},  {256, 256},   {768, 256},
                                       {1536, 512}, {512, 1792}, {1024, 1024}, {1024, 3584},
                                       {256, 1024}, {3200, 8640}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t rows = sizes[i][0], cols = sizes[i][1];
        const double eight = bytes_per_element(&nd_state_linear8, rows, cols);
        const double four = bytes_per_element(&nd_state_low_rank4, rows, cols);
        cr_assert_leq(eight, 1.02, "[%lld, %lld]: %g", (long long)rows, (long long)cols, eight);
        cr_assert_leq(four, 0.57, "[%lld, %lld]: %g", (long long)rows, (long long)cols, four);
        cr_assert_leq(bytes_per_element(&nd_state_dynamic8, rows, cols), 1.02);
    }
}

Test(state_codec, keys_that_contradict_each_other_are_refused)
{
    static nd_config c;
    nd_config_defaults(&c);
    ND_ASSERT_OK(nd_config_check_model(&c));
    cr_assert_eq(nd_config_state_bits(&c), 32);
    ND_ASSERT_OK(nd_config_set(&c, "training.use_8bit_optim=true", "test"));
    ND_ASSERT_OK(nd_config_check_model(&c));
    cr_assert_eq(nd_config_state_bits(&c), 8);
    ND_ASSERT_OK(nd_config_set(&c, "optimizer.state_bits=4", "test"));
    ND_ASSERT_OK(nd_config_check_model(&c));
    cr_assert_eq(nd_config_state_bits(&c), 4);
    ND_ASSERT_OK(nd_config_set(&c, "training.optimizer_type=adamw", "test"));
    ND_ASSERT_FAILS(nd_config_check_model(&c), ND_ECONFIG, "momentum of Muon");
}
