/* Started alone or under mpirun by test_remote.c: ranks_remote CONFIG DIR [SECTION.KEY=VALUE]...
 *
 * Trains, evaluates, saves and resumes twice: on the CPU backend, and on the same backend with its
 * memory out of the host's reach (support/wrapped_backend.h). Exits 0 when every number is the same
 * to the bit on this rank. */
#include "support/wrapped_backend.h"

#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/evaluate.h"
#include "train/rounds.h"
#include "train/step.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 6, SAVED_AT = 3 };

typedef struct results {
    nd_step_result steps[STEPS];
    nd_evaluation evaluation;
} results;

#define DO(expression)                                                                             \
    do {                                                                                           \
        if ((expression) != ND_OK) {                                                               \
            fprintf(stderr, "rank %d, %s: %s: %s\n", comm->rank, remote ? "remote" : "cpu",        \
                    #expression, nd_error_get()->message);                                         \
            comm->ops.abort(comm, 1);                                                              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static nd_run *start(const nd_config *config, nd_comm *comm, bool remote)
{
    const nd_cpu_backend_options options = {.threads = 1};
    nd_run *run = calloc(1, sizeof *run);
    if (!run)
        exit(1);
    DO(nd_cpu_backend_create(&options, &run->backend));
    if (remote)
        DO(nd_remote_backend_create(run->backend, &run->backend));
    DO(nd_run_create(config, comm, run));
    return run;
}

static void end(nd_run *run)
{
    nd_run_destroy(run);
    free(run);
}

static void train(const nd_config *config, nd_comm *comm, bool remote, const char *directory,
                  results *out)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    nd_config c = *config;
    nd_step_result ahead;
    memset(out, 0, sizeof *out);
    snprintf(c.logging.run_dir, sizeof c.logging.run_dir, "%s/%s", directory,
             remote ? "remote" : "cpu");
    nd_run *run = start(&c, comm, remote);
    DO(nd_run_start_loader(run));
    for (int i = 0; i < SAVED_AT; i++)
        DO(nd_step_run(run, false, &out->steps[i]));
    DO(nd_save_begin(run, false));
    snprintf(path, sizeof path, "%.4000s/checkpoints/step_%08d", c.logging.run_dir, SAVED_AT);
    DO(nd_save_begin(run, true)); /* the same step again, from a copy where memory is remote */
    DO(nd_run_reset_error_feedback(run)); /* as the step loop does */
    DO(nd_step_run(run, false, &ahead));
    DO(nd_save_finish(run));
    end(run);
    run = start(&c, comm, remote);
    DO(nd_checkpoint_restore(run, path));
    DO(nd_run_start_loader(run));
    for (int i = SAVED_AT; i < STEPS; i++)
        DO(nd_step_run(run, false, &out->steps[i]));
    if (out->steps[SAVED_AT].loss != ahead.loss) {
        fprintf(stderr, "resumed: loss %.17g, before %.17g\n", out->steps[SAVED_AT].loss,
                ahead.loss);
        exit(1);
    }
    DO(nd_evaluate(run->model, run->data.val, comm, 0, &out->evaluation));
    end(run);
}

int main(int argc, char **argv)
{
    static results plain, other;
    const bool remote = false;
    nd_config *config = calloc(1, sizeof *config);
    nd_comm *comm = NULL;
    if (argc < 3 || !config || nd_comm_create(&comm) != ND_OK)
        return 1;
    nd_config_defaults(config);
    DO(nd_config_read_file(config, argv[1]));
    for (int i = 3; i < argc; i++)
        DO(nd_config_set(config, argv[i], "argument"));
    DO(nd_config_check(config));
    train(config, comm, false, argv[2], &plain);
    train(config, comm, true, argv[2], &other);
    int wrong = 0;
    for (int i = 0; i < STEPS; i++) {
        const nd_step_result *a = &plain.steps[i], *b = &other.steps[i];
        if (a->loss != b->loss || a->grad_norm != b->grad_norm || a->total_loss != b->total_loss) {
            fprintf(stderr, "step %d: loss %.17g and %.17g, norm %.17g and %.17g\n", i + 1, a->loss,
                    b->loss, a->grad_norm, b->grad_norm);
            wrong = 1;
        }
    }
    if (plain.evaluation.loss != other.evaluation.loss || !(plain.evaluation.loss > 0.0)) {
        fprintf(stderr, "held-out loss %.17g and %.17g\n", plain.evaluation.loss,
                other.evaluation.loss);
        wrong = 1;
    }
    free(config);
    nd_comm_destroy(comm);
    return wrong;
}
