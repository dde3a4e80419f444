/* The subspaces of all matrices together: what a step draws. */
#include "core/base/rng.h"
#include "optim/projectors.h"
#include "support/support.h"

#include <string.h>

static const uint64_t seed = 3;

static int uploads;
static nd_status (*upload)(nd_backend *b, void *device, const void *host, size_t bytes);

static nd_status count_upload(nd_backend *b, void *device, const void *host, size_t bytes)
{
    uploads++;
    return upload(b, device, host, bytes);
}

typedef struct fixture {
    nd_config config;
    nd_params params;
    nd_backend *backend;
    nd_projectors *projectors;
    nd_arena arena;
    nd_view gradient, y; /* [the largest matrix], [1, the largest sketch] */
} fixture;

static nd_status lay_out(fixture *f)
{
    int64_t largest = nd_params_largest(&f->params, ND_ROLE_TERNARY);
    ND_TRY(nd_projectors_reserve(f->projectors, &f->arena));
    ND_TRY(nd_arena_reserve(&f->arena, ND_F32, 1, largest, &f->gradient));
    return nd_arena_reserve(&f->arena, ND_F32, 1, nd_projectors_sketch_count(f->projectors), &f->y);
}

static void create(fixture *f)
{
    static const char *const sets[] = {"model.hidden_dim=128",     "model.num_layers=2",
                                       "model.ffn_mult=3",         "model.vocab_size=64",
                                       "training.use_galore=true", "training.galore_rank=32",
                                       "hardware.precision=fp32",  "training.galore_update_freq=4"};
    const nd_cpu_backend_options options = {.threads = 2};
    memset(f, 0, sizeof *f);
    nd_config_defaults(&f->config);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        ND_ASSERT_OK(nd_config_set(&f->config, sets[i], "test"));
    const nd_model_config model = nd_model_config_from(&f->config);
    ND_ASSERT_OK(nd_params_create(&model, &f->params));
    ND_ASSERT_OK(nd_cpu_backend_create(&options, &f->backend));
    ND_ASSERT_OK(nd_projectors_create(&f->config, &f->params, f->backend, &f->projectors));
    nd_arena_start_sizing(&f->arena, "test", f->backend);
    ND_ASSERT_OK(lay_out(f));
    ND_ASSERT_OK(nd_arena_commit(&f->arena));
    ND_ASSERT_OK(lay_out(f));
    nd_rng_normal_fill(seed, 0, 1.0f, f->gradient.data, f->gradient.cols);
    upload = f->backend->ops.upload;
    f->backend->ops.upload = count_upload;
    uploads = 0;
}

static void destroy(fixture *f)
{
    nd_projectors_destroy(f->projectors);
    nd_arena_release(&f->arena);
    nd_params_destroy(&f->params);
    nd_backend_destroy(f->backend);
}

/* Sketches the matrices that are due in `step`, as one micro-batch does. Returns a sum of the
 * sketches. */
static double sketch_all(fixture *f, int64_t step, int *due)
{
    double sum = 0.0;
    *due = 0;
    for (int64_t i = 0; i < f->params.count; i++) {
        if (!nd_projectors_due(f->projectors, i, step, NULL))
            continue;
        const nd_param *p = &f->params.list[i];
        const nd_galore *g = nd_projectors_shape(f->projectors, i);
        const nd_view y = nd_view_of(f->y.data, ND_F32, g->sketch, nd_galore_small(g));
        ND_ASSERT_OK(nd_projectors_sketch(f->projectors, i, step, y,
                                          nd_cview_of(f->gradient.data, ND_F32, p->rows, p->cols),
                                          0.0f));
        for (int64_t j = 0; j < y.rows * y.cols; j++)
            sum += (double)((const float *)y.data)[j] * (double)(j % 7 + 1);
        ++*due;
    }
    return sum;
}

Test(projectors, the_random_matrices_of_a_step_are_drawn_once_for_all_micro_batches)
{
    fixture f;
    int due;
    create(&f);
    const double first = sketch_all(&f, 0, &due);
    cr_assert_gt(due, 1, "the test interleaves nothing");
    cr_assert_eq(uploads, due, "each is below ND_GALORE_DRAWN");
    cr_assert_eq(sketch_all(&f, 0, &due), first);
    cr_assert_eq(uploads, due);
    cr_assert_neq(sketch_all(&f, 4, &due), first);
    cr_assert_eq(uploads, 2 * due);
    destroy(&f);
}

Test(projectors, a_matrix_that_keeps_its_subspace_has_no_sketch)
{
    fixture f;
    int64_t index = 0;
    create(&f);
    while (!nd_projectors_due(f.projectors, index, 0, NULL))
        index++;
    const nd_param *p = &f.params.list[index];
    ND_ASSERT_FAILS(nd_projectors_sketch(f.projectors, index, 1, f.y,
                                         nd_cview_of(f.gradient.data, ND_F32, p->rows, p->cols),
                                         0.0f),
                    ND_EINTERNAL, "keeps its subspace in step 1");
    destroy(&f);
}
