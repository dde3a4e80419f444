/* What Collider saves: time of the backward pass and of the step at several parts of filtered tokens,
 * beside the step without it.
 *
 *   bench_collider [--config FILE] [--rounds N] [--set SECTION.KEY=VALUE]...
 *
 * The threshold is 1, so that exactly the asked part is filtered. Each round runs every variant once;
 * ratios are taken within a round and their medians compared, because machines are shared. The backward
 * pass is what a training pass takes beyond the forward pass with its loss; with Collider it holds the
 * choice of tokens, the compaction and the head's second product. */
#include "cli/args.h"
#include "timing.h"
#include "train/run.h"
#include "train/step.h"

#include <omp.h>
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
    run->model->config.collider = sparsities[variant] > 0.0;
    run->model->collider.params.sparsity = sparsities[variant];
}

static nd_status time_round(nd_run *run, const int32_t *tokens, int64_t round, timings *t)
{
    const nd_gradients_ready silent = {NULL, NULL};
    const nd_model_gradients into = {run->gradients[0], false, false};
    nd_loss loss;
    nd_step_result result;
    double start = seconds();
    ND_TRY(nd_model_evaluate(run->model, tokens, run->model->config.micro_batch, &loss));
    t->forward[round] = seconds() - start;
    for (int v = 0; v < VARIANTS; v++) {
        choose_variant(run, v);
        start = seconds();
        ND_TRY(nd_model_train(run->model, tokens, 1e-6f, into, silent, &loss));
        t->backward[v][round] = seconds() - start - t->forward[round];
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

static nd_status measure(nd_run *run, int rounds)
{
    static timings t, warm;
    const int32_t *tokens;
    double wait;
    ND_TRY(nd_loader_next(run->loader, &tokens, &wait));
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
    return ND_OK;
}

static nd_status configure(nd_config *config, const char *file, const nd_arg_list *set)
{
    static const char *const shape[] = {"model.vocab_size=4096",  "training.seq_length=512",
                                        "training.batch_size=8",  "training.micro_batch_size=8",
                                        "data.dataset=synthetic", "model.num_layers=6"};
    nd_config_defaults(config);
    if (file)
        ND_TRY(nd_config_read_file(config, file));
    for (int i = 0; !file && i < 6; i++)
        ND_TRY(nd_config_set(config, shape[i], "bench"));
    for (int i = 0; i < set->count; i++)
        ND_TRY(nd_config_set(config, set->items[i], "--set"));
    ND_TRY(nd_config_set(config, "training.use_collider=true", "bench"));
    ND_TRY(nd_config_set(config, "training.collider_threshold=1", "bench"));
    ND_TRY(nd_config_set(config, "training.collider_sparsity=0.5", "bench"));
    return nd_config_check(config);
}

static nd_status bench(int argc, char **argv)
{
    const char *file = NULL;
    int64_t rounds = 15;
    nd_arg_list set = {.count = 0};
    bool helped;
    const nd_arg args[] = {
        {"--config", ND_ARG_TEXT, &file, "FILE", "a configuration (6 layers of 512, T 512, B 8)"},
        {"--rounds", ND_ARG_INT, &rounds, "N", "rounds measured (15)"},
        {"--set", ND_ARG_APPEND, &set, "SECTION.KEY=VALUE", "sets one key"},
    };
    const nd_command command = {"bench_collider [options]",
                                "Time of the backward pass on a part of the tokens.", args, 3};
    ND_TRY(nd_args_parse(&command, argc, argv, NULL, &helped));
    if (helped)
        return ND_OK;
    if (rounds < 1 || rounds > ROUNDS_MAX)
        return ND_FAIL(ND_ECONFIG, "--rounds is from 1 to %d", ROUNDS_MAX);
    nd_run *run = calloc(1, sizeof *run);
    nd_config *config = calloc(1, sizeof *config);
    nd_comm *comm = NULL;
    nd_status status = ND_OK;
    if (!run || !config) {
        status = ND_FAIL(ND_ENOMEM, "no memory for a run");
        goto done;
    }
    ND_TRY_GOTO(configure(config, file, &set), done);
    ND_TRY_GOTO(nd_comm_create_solo(&comm), done);
    ND_TRY_GOTO(nd_run_create(config, comm, run), done);
    ND_TRY_GOTO(nd_run_start_loader(run), done);
    printf("%.2fM parameters, %lld x %lld tokens a micro-batch, checkpointing %s, %d threads\n",
           (double)nd_params_total(&run->model->params) * 1e-6,
           (long long)run->model->config.micro_batch, (long long)config->training.seq_length,
           config->hardware.gradient_checkpointing ? "on" : "off", omp_get_max_threads());
    ND_TRY_GOTO(measure(run, (int)rounds), done);
done:
    if (run)
        nd_run_destroy(run);
    nd_comm_destroy(comm);
    free(run);
    free(config);
    return status;
}

int main(int argc, char **argv)
{
    const nd_status status = bench(argc, argv);
    if (status != ND_OK)
        fprintf(stderr, "bench_collider: %s\n", nd_error_get()->message);
    return nd_error_exit_code(status);
}
