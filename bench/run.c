#include "bench_run.h"

#include "cli/args.h"
#include "core/backend/threads.h"
#include "core/base/float_formats.h"
#include "core/base/rng.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

static nd_status configure(nd_config *config, const char *file, const nd_arg_list *set,
                           const char **forced)
{
    static const char *const shape[] = {"model.vocab_size=4096",  "training.seq_length=512",
                                        "training.batch_size=8",  "training.micro_batch_size=8",
                                        "data.dataset=synthetic", "model.num_layers=6"};
    nd_config_defaults(config);
    if (file)
        ND_TRY(nd_config_read_file(config, file));
    for (size_t i = 0; !file && i < sizeof shape / sizeof *shape; i++)
        ND_TRY(nd_config_set(config, shape[i], "bench"));
    for (int i = 0; i < set->count; i++)
        ND_TRY(nd_config_set(config, set->items[i], "--set"));
    for (; forced && *forced; forced++)
        ND_TRY(nd_config_set(config, *forced, "bench"));
    return nd_config_check(config);
}

static void print_shape(const nd_run *run)
{
    const nd_config *config = &run->config;
    printf(
        "%.2fM parameters, %lld x %lld tokens a step in %lld micro-batches, checkpointing %s, %d "
        "threads\n",
        (double)nd_params_total(&run->model->params) * 1e-6, (long long)config->training.batch_size,
        (long long)config->training.seq_length, (long long)run->micro_batches,
        config->hardware.gradient_checkpointing ? "on" : "off", omp_get_max_threads());
}

nd_status bench_with_run(const nd_config *config, nd_backend *backend, int64_t count,
                         nd_status (*measure)(nd_run *run, int64_t count))
{
    nd_run run = {.backend = backend};
    nd_comm *comm = NULL;
    nd_status status = nd_comm_create_solo(&comm);
    ND_IF_OK(nd_run_create(config, comm, &run));
    ND_IF_OK(nd_run_start_loader(&run));
    if (status == ND_OK && !backend)
        print_shape(&run);
    ND_IF_OK(measure(&run, count));
    nd_run_destroy(&run);
    nd_comm_destroy(comm);
    return status;
}

nd_status bench_allocate(nd_backend *b, nd_dtype type, int64_t rows, int64_t cols, nd_view *view)
{
    enum { DRAWN = 65521 };
    const size_t bytes = (size_t)(rows * cols) * nd_dtype_size(type);
    ND_AUTOFREE uint16_t *host = calloc(1, bytes);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory for %zu bytes", bytes);
    *view = nd_view_of(NULL, type, rows, cols);
    for (int64_t i = 0; type == ND_BF16 && i < rows * cols; i++)
        host[i] = i < DRAWN ? nd_bf16_from_float((float)nd_rng_uniform(11, (uint64_t)i) - 0.5f)
                            : host[i - DRAWN];
    ND_TRY(b->ops.allocate(b, bytes, &view->data));
    return b->ops.upload(b, view->data, host, bytes);
}

static nd_status bench(const bench_program *p, int argc, char **argv)
{
    const char *file = NULL;
    int64_t count = 15;
    nd_arg_list set = {.count = 0};
    const nd_arg args[] = {
        {"--config", ND_ARG_TEXT, &file, "FILE", "a configuration (6 layers of 512, T 512, B 8)"},
        {p->count, ND_ARG_INT, &count, "N",
         p->count_help ? p->count_help : "how often to measure (15)"},
        {"--set", ND_ARG_APPEND, &set, "SECTION.KEY=VALUE", "sets one key"},
    };
    const nd_command command = {p->name, p->summary, args, sizeof args / sizeof *args};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(count < 1 || count > p->count_most, ND_ECONFIG, "%s is from 1 to %lld", p->count,
               (long long)p->count_most);
    nd_config config;
    ND_TRY(configure(&config, file, &set, p->forced));
    return p->plan ? p->plan(&config, count) : bench_with_run(&config, NULL, count, p->measure);
}

int bench_exit(const char *name, nd_status status)
{
    if (status != ND_OK)
        fprintf(stderr, "%s: %s\n", name, nd_error_get()->message);
    return nd_error_exit_code(status);
}

int bench_ranks(const char *name, nd_status (*bench_on)(int argc, char **argv, nd_comm *comm),
                int argc, char **argv)
{
    nd_comm *comm = NULL;
    nd_machine_limit_spinning(argv);
    nd_status status = nd_comm_create_mpi(&comm);
    ND_IF_OK(bench_on(argc, argv, comm));
    if (status == ND_OK)
        nd_comm_destroy(comm);
    return bench_exit(name, status);
}

int bench_main(const bench_program *program, int argc, char **argv)
{
    nd_machine_limit_spinning(argv);
    return bench_exit(program->name, bench(program, argc, argv));
}
