/* What owners publish after an update, in every format, among up to 1024 simulated ranks in one
 * group and in several. */
#include "dist/simulation/simulation.h"
#include "dist/weights/weight_gather.h"
#include "support/model_fixture.h"
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_BLOCK = 16 }; /* rows of the embedding that go to one rank: 256 values */

static nd_model_config fixture_config(void)
{
    nd_model_config config = nd_model_fixture_config(ND_ARCH_BITNET, ND_F32);
    config.vocab_size = 5 * ROW_BLOCK + 3;
    return config;
}

typedef struct replica {
    nd_model_fixture model;
    nd_weight_gather gather;
    nd_arena wire;
    nd_view *masters; /* [params.count], data NULL where another rank owns them */
} replica;

typedef struct job {
    nd_ownership own; /* of a group's ranks */
    int group;
    replica *ranks;
} job;

static nd_weight_gather gather_of(nd_weight_sync codes, nd_embedding_sync embedding)
{
    return (nd_weight_gather){.codes = codes, .embedding = embedding};
}

static void prepare(replica *r, const nd_ownership *own, int rank, nd_weight_gather gather)
{
    const nd_model_config config = fixture_config();
    r->model = nd_model_fixture_create(&config, false, 7);
    r->gather = gather;
    r->masters = calloc((size_t)own->count, sizeof *r->masters);
    for (int64_t i = 0; i < own->count; i++) {
        const nd_row_span span =
            nd_ownership_span(own, i, rank, r->model.model->params.list[i].rows);
        if (span.count > 0)
            r->masters[i] = nd_view_rows(r->model.masters[i], span.first, span.count);
    }
    nd_arena_start_sizing(&r->wire, "wire", r->model.backend);
    ND_ASSERT_OK(nd_weight_gather_reserve(&r->gather, r->model.model, own, rank, &r->wire));
    ND_ASSERT_OK(nd_arena_commit(&r->wire));
    ND_ASSERT_OK(nd_weight_gather_reserve(&r->gather, r->model.model, own, rank, &r->wire));
}

static void release(replica *r)
{
    nd_weight_gather_destroy(&r->gather);
    nd_arena_release(&r->wire);
    nd_model_fixture_destroy(&r->model);
    free(r->masters);
}

/* Everything is sent whole, then what three updates change: the last two as it is updated, from the
 * last weight to the first. */
static nd_status publish(nd_comm *comm, replica *r)
{
    ND_TRY(nd_weight_gather_run(&r->gather, r->model.model, r->masters, true, comm));
    for (int step = 1; step <= 3; step++) {
        r->gather.ahead = step > 1;
        for (int64_t i = 0; i < r->gather.own->count; i++)
            for (int64_t j = 0; r->masters[i].data && j < nd_view_count(nd_as_const(r->masters[i]));
                 j++) {
                float *w = (float *)r->masters[i].data + j;
                const int64_t element = w - (float *)r->model.masters[i].data;
                *w += (float)((element * 7 + step) % 11 - 5) * 0.02f;
            }
        for (int64_t i = r->gather.own->count - 1; i >= 0; i--)
            ND_TRY(nd_weight_gather_add(&r->gather, r->model.model, r->masters, i, comm));
        /* they are short: beyond three ranks they may not be worth an exchange of their own */
        cr_assert(comm->size > 3 ||
                  (r->gather.added.first != NULL) == (step > 1 && comm->size > 1));
        ND_TRY(nd_weight_gather_run(&r->gather, r->model.model, r->masters, false, comm));
        cr_assert(r->gather.added.first == NULL && r->gather.added.count == 0);
    }
    return ND_OK;
}

static nd_status publish_simulated(nd_simulation *simulation, nd_comm *comm, void *context)
{
    job *j = context;
    (void)simulation;
    comm->part_bytes = 256;
    comm->group_ranks = j->group;
    return publish(comm, &j->ranks[comm->rank]);
}

static bool same(nd_view a, nd_view b)
{
    return (!a.data && !b.data) || memcmp(a.data, b.data, nd_view_bytes(nd_as_const(a))) == 0;
}

/* Whether all replicas are what one rank makes of the same masters, in groups of `group` ranks. */
static void compare(int ranks, int group, nd_weight_gather gather)
{
    const nd_model_config config = fixture_config();
    nd_model_fixture shape = nd_model_fixture_create(&config, false, 7);
    const int64_t count = shape.model->params.count;
    double cost[count];
    job j = {.group = group, .ranks = calloc((size_t)ranks, sizeof *j.ranks)};
    nd_ownership alone;
    replica one = {0};
    nd_comm *solo = NULL;
    for (int64_t i = 0; i < count; i++)
        cost[i] = (double)(shape.model->params.list[i].rows * shape.model->params.list[i].cols);
    ND_ASSERT_OK(nd_ownership_create(cost, count, group, &j.own));
    ND_ASSERT_OK(nd_ownership_create(cost, count, 1, &alone));
    const int64_t embedding = nd_params_embedding(&shape.model->params);
    j.own.load[j.own.owner[embedding]] -= cost[embedding];
    ND_ASSERT_OK(
        nd_ownership_share_rows(&j.own, embedding, config.vocab_size, ROW_BLOCK, cost[embedding]));
    cr_assert_eq(j.own.rows[embedding] != NULL, group > 1);
    for (int r = 0; r < ranks; r++)
        prepare(&j.ranks[r], &j.own, r % group, gather);
    prepare(&one, &alone, 0, gather);
    ND_ASSERT_OK(nd_comm_create_solo(&solo));
    ND_ASSERT_OK(publish(solo, &one));
    const nd_simulated_machine machine = {.ranks = ranks,
                                          .hosts = (ranks + 7) / 8,
                                          .between = {5e-6, 8e-11},
                                          .within = {1e-6, 8e-12},
                                          .delay = 1e-5};
    ND_ASSERT_OK(nd_simulation_run(&machine, publish_simulated, &j, NULL));
    for (int r = 0; r < ranks; r++)
        for (int64_t i = 0; i < count; i++) {
            const nd_weight *a = &j.ranks[r].model.model->weights[i];
            const nd_weight *b = &one.model.model->weights[i];
            cr_assert(same(a->codes, b->codes) && same(a->scales, b->scales) &&
                          same(a->dense, b->dense),
                      "%d ranks in groups of %d: %s of rank %d", ranks, group,
                      shape.model->params.list[i].name, r);
        }
    for (int r = 0; r < ranks; r++)
        release(&j.ranks[r]);
    release(&one);
    nd_comm_destroy(solo);
    nd_model_fixture_destroy(&shape);
    nd_ownership_destroy(&j.own);
    nd_ownership_destroy(&alone);
    free(j.ranks);
}

static void compare_all(int most, nd_weight_sync codes, nd_embedding_sync embedding)
{
    static const struct {
        int ranks, group;
    } jobs[] = {{1, 1}, {2, 2},   {3, 3},   {8, 8},     {8, 2},
                {8, 1}, {64, 64}, {64, 16}, {256, 256}, {1024, 64}};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs && jobs[i].ranks <= most; i++)
        compare(jobs[i].ranks, jobs[i].group, gather_of(codes, embedding));
}

Test(simulated_weights, full_codes_make_every_replica_that_of_one_rank)
{
    compare_all(256, ND_WEIGHT_SYNC_FULL, ND_EMBEDDING_SYNC_FULL);
}

Test(simulated_weights, trits_and_changed_embeddings_make_every_replica_that_of_one_rank)
{
    compare_all(64, ND_WEIGHT_SYNC_FULL_BASE3, ND_EMBEDDING_SYNC_INT8_DELTA);
}

Test(simulated_weights, changed_codes_make_every_replica_that_of_one_rank)
{
    compare_all(1024, ND_WEIGHT_SYNC_DELTA, ND_EMBEDDING_SYNC_INT8_DELTA);
}
