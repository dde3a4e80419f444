/* A benchmark over a whole run: its arguments, and the run they describe. */
#pragma once

#include "train/run/run.h"

#include <stdint.h>

typedef struct bench_program {
    const char *name;    /* "bench_throughput" */
    const char *summary; /* for --help */
    const char *count;   /* the flag that says how often to measure: "--steps" */
    int64_t count_most;  /* its largest value */
    const char **forced; /* "section.key=value" that win; NULL-terminated, may be NULL */
    nd_status (*measure)(nd_run *run, int64_t count);
    nd_status (*plan)(nd_config *config, int64_t count); /* in its place: opens its runs itself */
    const char *count_help;                              /* NULL: "how often to measure (15)" */
} bench_program;

/* Reads --config, --set and the count, opens the run (without a configuration: 6 layers of 512, 8
 * sequences of 512 tokens, synthetic), measures, and returns the exit code after printing any
 * error. */
int bench_main(const bench_program *program, int argc, char **argv);

/* Opens a run of one rank with its loader, calls `measure`, and closes the run. Takes ownership of
 * `backend`; NULL is the configuration's, and prints what the run is. */
nd_status bench_with_run(const nd_config *config, nd_backend *backend, int64_t count,
                         nd_status (*measure)(nd_run *run, int64_t count));

/* Runs `bench` over the ranks that mpirun started; returns the exit code after printing any error.
 */
int bench_ranks(const char *name, nd_status (*bench)(int argc, char **argv, nd_comm *comm),
                int argc, char **argv);

/* Allocates a matrix: of bf16 with random values, because with zeros a GPU needs less power and its
 * product an eighth less time; of other types with zeros. Only a few are drawn, and repeated with a
 * period that divides no row. The caller releases view->data. */
nd_status bench_allocate(nd_backend *backend, nd_dtype type, int64_t rows, int64_t cols,
                         nd_view *view);

/* Prints the error of a benchmark that failed; returns the exit code. */
int bench_exit(const char *name, nd_status status);
