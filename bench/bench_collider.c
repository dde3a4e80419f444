/* What Collider saves: time of the backward pass and of the step at several parts of filtered
 * tokens, beside the step without it.
 *
 *   bench_collider [--config FILE] [--rounds N] [--set SECTION.KEY=VALUE]...
 *
 * The threshold is 1, so that exactly the asked part is filtered. Each round runs every variant
 * once; ratios are taken within a round and their medians compared, because machines are shared.
 * The backward pass is what a training pass takes beyond the forward pass with its loss; with
 * Collider it holds the choice of tokens, the compaction and the head's second product. */
#include "bench_run.h"
#include "timed_ops.h"
#include "timing.h"
#include "train/step.h"

#include <stdio.h>

enum { ROUNDS_MAX = 256, VARIANTS = 4 };
static const double sparsities[VARIANTS] = {0.0, 0.35, 0.40, 0.50};

typedef struct timings {
    double forward[ROUNDS_MAX];
    double backward[VARIANTS][ROUNDS_MAX], step[VARIANTS][ROUNDS_MAX];
    double kept[VARIANTS];
} timings;

static void choose_variant(nd_run *run, int variant)
{
    nd_model_set_filtering(run->model, sparsities[variant] > 0.0);
    run->model->collider.params.sparsity = sparsities[variant];
}

static nd_status time_round(nd_run *run, const int32_t *tokens, int64_t round, timings *t)
{
    const nd_gradients_ready silent = {NULL, NULL};
    const nd_model_gradients into = nd_gradient_reducer_begin(run->reducer, 0).into;
    nd_loss loss;
    nd_step_result result;
    double start = nd_seconds();
    ND_TRY(nd_model_evaluate(run->model, tokens, run->model->config.micro_batch, &loss));
    t->forward[round] = nd_seconds() - start;
    for (int v = 0; v < VARIANTS; v++) {
        choose_variant(run, v);
        start = nd_seconds();
        ND_TRY(nd_model_train(run->model, tokens, 1e-6f, into, silent, &loss));
        t->backward[v][round] = nd_seconds() - start - t->forward[round];
        t->kept[v] = (double)loss.kept / (double)loss.tokens;
        ND_TRY(nd_step_run(run, false, &result));
        t->step[v][round] = result.step_ms * 1e-3;
    }
    return ND_OK;
}

static double median_ratio(const double *values, const double *whole, int rounds)
{
    double ratios[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++)
        ratios[i] = values[i] / whole[i];
    return median(ratios, rounds);
}

/* Where a backward pass without Collider and one with 35 % filtered spend their time. */
static nd_status time_operations(nd_run *run, const int32_t *tokens, int rounds)
{
    const nd_gradients_ready silent = {NULL, NULL};
    const nd_model_gradients into = nd_gradient_reducer_begin(run->reducer, 0).into;
    double sums[3][TIMED_OPS] = {{0.0}}, wall[3] = {0.0};
    for (int round = 0; round < rounds; round++)
        for (int pass = 0; pass < 3; pass++) {
            double times[TIMED_OPS];
            nd_loss loss;
            choose_variant(run, pass == 2);
            timed_ops_start(run->backend);
            const double start = nd_seconds();
            if (pass == 0)
                ND_TRY(
                    nd_model_evaluate(run->model, tokens, run->model->config.micro_batch, &loss));
            else
                ND_TRY(nd_model_train(run->model, tokens, 1e-6f, into, silent, &loss));
            wall[pass] += nd_seconds() - start;
            timed_ops_stop(run->backend, times);
            for (int i = 0; i < TIMED_OPS; i++)
                sums[pass][i] += times[i];
        }
    printf("\nbackward passes by operation, means of %d\n\n", rounds);
    printf("| operation | all tokens | 35 %% filtered | ratio |\n|---|---|---|---|\n");
    for (int i = 0; i <= TIMED_OPS; i++) {
        const double *forward = i < TIMED_OPS ? &sums[0][i] : &wall[0];
        const double all = (i < TIMED_OPS ? sums[1][i] : wall[1]) - *forward;
        const double part = (i < TIMED_OPS ? sums[2][i] : wall[2]) - *forward;
        if (all + part > 1e-4 * (double)rounds)
            printf("| %s | %.1f ms | %.1f ms | %.3f |\n", i < TIMED_OPS ? timed_op_names[i] : "all",
                   all / rounds * 1e3, part / rounds * 1e3, part / all);
    }
    return ND_OK;
}

static nd_status measure(nd_run *run, int64_t count)
{
    const int rounds = (int)count;
    static timings t, warm;
    const int32_t *tokens;
    double wait;
    ND_TRY(nd_loader_next(run->data.loader, &tokens, &wait));
    ND_TRY(time_round(run, tokens, 0, &warm));
    for (int round = 0; round < rounds; round++)
        ND_TRY(time_round(run, tokens, round, &t));
    printf("\nforward %.1f ms a micro-batch; medians of %d rounds\n\n",
           median(t.forward, rounds) * 1e3, rounds);
    printf("| filtered | kept rows | backward | of that without | step | of that without |\n");
    printf("|---|---|---|---|---|---|\n");
    for (int v = 0; v < VARIANTS; v++) {
        const double backward = median_ratio(t.backward[v], t.backward[0], rounds);
        const double step = median_ratio(t.step[v], t.step[0], rounds);
        double values[2][ROUNDS_MAX];
        for (int i = 0; i < rounds; i++) {
            values[0][i] = t.backward[v][i];
            values[1][i] = t.step[v][i];
        }
        printf("| %.0f %% | %.3f | %.1f ms | **%.3f** | %.1f ms | **%.3f** |\n",
               sparsities[v] * 100.0, t.kept[v], median(values[0], rounds) * 1e3, backward,
               median(values[1], rounds) * 1e3, step);
    }
    return time_operations(run, tokens, rounds);
}

int main(int argc, char **argv)
{
    static const char *forced[] = {"training.use_collider=true", "training.collider_threshold=1",
                                   "training.collider_sparsity=0.5", NULL};
    const bench_program program = {.name = "bench_collider",
                                   .summary = "Time of the backward pass on a part of the tokens.",
                                   .count = "--rounds",
                                   .count_most = ROUNDS_MAX,
                                   .forced = forced,
                                   .measure = measure};
    return bench_main(&program, argc, argv);
}
