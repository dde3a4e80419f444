/* What the times of a step's phases cost (train/log/rank_times.h): everything that a step does for
 * them and would not do without them, by itself and many times over, since it is far less than what
 * one step differs from the next. Under mpirun, for the exchange; rank 0 prints microseconds a
 * step, of processor time but for the exchange, and what that is of a step of --step-ms. */
#include "bench_run.h"
#include "timing.h"

#include "cli/args.h"
#include "dist/comm.h"
#include "train/fault_points.h"
#include "train/log/tensorboard.h"
#include "train/step.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { LAPS = 10, ROUNDS = 2000, RANKS_MAX = 65536, SCALARS = 4 * ND_PHASE_COUNT };

/* What this process has used, by all its threads. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Two clock reads a lap, as step.c has where one phase ends and the next begins; it has
 * fewer laps. */
static double clock_reads(nd_comm *comm)
{
    volatile double sum = 0.0;
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS * LAPS; i++)
        sum = sum + nd_fault_seconds(comm) - nd_fault_seconds(comm);
    return (cpu_seconds() - start) / ROUNDS;
}

/* What a report takes longer with the times in it: they are half of it. Medians of alternate
 * rounds. */
static nd_status exchange(nd_comm *comm, double *seconds)
{
    static double times[2][ROUNDS];
    char mine[ND_STEP_REPORT_BYTES] = {0}, *all = malloc((size_t)comm->size * sizeof mine);
    nd_status status = ND_CHECK(all, ND_ENOMEM, "no memory for reports");
    for (int i = 0; i < 2 * ROUNDS; i++) {
        ND_IF_OK(comm->ops.barrier(comm));
        const double start = nd_seconds();
        const size_t bytes = sizeof mine - (i % 2 ? sizeof(nd_rank_times) : 0);
        ND_IF_OK(comm->ops.allgather(comm, all, mine, bytes));
        times[i % 2][i / 2] = nd_seconds() - start;
    }
    free(all);
    *seconds = median(times[0], ROUNDS) - median(times[1], ROUNDS);
    return status;
}

static nd_status summary(int ranks, nd_times_summary *s, double *seconds)
{
    ND_AUTOFREE nd_rank_times *times = calloc((size_t)ranks, sizeof *times);
    ND_AUTOFREE nd_slow_rank *slow = calloc((size_t)ranks, sizeof *slow);
    ND_AUTOFREE double *sorted = calloc((size_t)ranks, sizeof *sorted);
    ND_FAIL_IF(!times || !slow || !sorted, ND_ENOMEM, "no memory for %d ranks", ranks);
    for (int i = 0; i < ranks * ND_PHASE_COUNT; i++)
        times[i / ND_PHASE_COUNT].ms[i % ND_PHASE_COUNT] = (float)(i * 7919 % 1000);
    const double start = cpu_seconds();
    for (int i = 0; i < ROUNDS; i++) {
        *s = nd_times_summarize(times, sizeof *times, ranks, sorted);
        nd_slow_ranks_add(slow, times, sizeof *times, ranks, s);
    }
    *seconds = (cpu_seconds() - start) / ROUNDS;
    return ND_OK;
}

/* Rank 0's: an object in the line of metrics.jsonl, and scalars of an event. */
static nd_status records(const nd_times_summary *s, const char *directory, double *seconds)
{
    nd_tensorboard *tensorboard;
    nd_scalar scalars[SCALARS];
    ND_TRY(nd_tensorboard_open(directory, 0, &tensorboard));
    nd_status status = ND_OK;
    for (int i = 0; i < SCALARS; i++)
        scalars[i] = (nd_scalar){"ranks/forward_backward_median_ms", 1.0};
    const double start = cpu_seconds();
    for (int i = 0; status == ND_OK && i < ROUNDS; i++) {
        json_t *object = json_object();
        for (int p = 0; p < ND_PHASE_COUNT; p++)
            json_object_set_new(object, nd_phase_name((nd_phase)p),
                                json_pack("{s:f,s:f,s:f,s:i}", "min", s->phases[p].min, "median",
                                          s->phases[p].median, "max", s->phases[p].max, "rank",
                                          s->phases[p].rank));
        free(json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17)));
        json_decref(object);
        status = nd_tensorboard_write(tensorboard, i + 1, scalars, SCALARS);
    }
    *seconds = (cpu_seconds() - start) / ROUNDS;
    nd_tensorboard_close(tensorboard);
    return status;
}

static nd_status bench(int argc, char **argv, nd_comm *comm)
{
    int64_t ranks = comm->size;
    double step_ms = 100.0, parts[4], sum = 0.0;
    const char *directory = NULL;
    static const char *const names[] = {"clock reads", "exchange", "summary", "records"};
    const nd_arg args[] = {
        {"--ranks", ND_ARG_INT, &ranks, "N", "ranks to summarize (those of the launcher)"},
        {"--step-ms", ND_ARG_DOUBLE, &step_ms, "MS", "a step to compare with (100)"},
        {"--out", ND_ARG_TEXT, &directory, "DIR", "where the event file goes"}};
    const nd_command command = {"mpirun -np N bench_phases --out DIR [options]",
                                "What the times of a step's phases cost.", args,
                                sizeof args / sizeof *args};
    nd_times_summary s;
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(ranks < 1 || ranks > RANKS_MAX || !(step_ms > 0.0) || !directory, ND_ECONFIG,
               "--ranks is from 1 to %d, --step-ms above 0, and --out is needed", RANKS_MAX);
    parts[0] = clock_reads(comm);
    ND_TRY(exchange(comm, &parts[1]));
    if (comm->rank != 0)
        return ND_OK;
    ND_TRY(summary((int)ranks, &s, &parts[2]));
    ND_TRY(records(&s, directory, &parts[3]));
    for (int i = 0; i < 4; i++) {
        printf("%s %.2f us, ", names[i], 1e6 * parts[i]);
        sum += 1e3 * parts[i];
    }
    printf("in all %.3f ms: %.4f %% of a step of %g ms\n", sum, 100.0 * sum / step_ms, step_ms);
    return ND_OK;
}

int main(int argc, char **argv)
{
    return bench_ranks("bench_phases", bench, argc, argv);
}
