#include "cli/args.h"
#include "cli/cli.h"
#include "cli/config_arguments.h"
#include "train/signals.h"
#include "train/train.h"

#include <stdio.h>
#include <string.h>

typedef struct train_arguments {
    nd_config_arguments source;
    const char *run_dir, *resume, *dataset, *data_path, *checkpoint_dir;
    const char *n_samples, *epochs, *total_steps, *checkpoint_interval, *log_interval;
    bool list_keys, config_docs, print_run_dir, new_data;
} train_arguments;

/* Flags that set a key, applied after the file and --set. */
static nd_status apply_flag(nd_config *config, const char *section, const char *key,
                            const char *value, const char *flag)
{
    return value ? nd_config_set_key(config, section, key, value, flag) : ND_OK;
}

static nd_status apply_flags(nd_config *config, const train_arguments *a)
{
    ND_TRY(apply_flag(config, "logging", "run_dir", a->run_dir, "--run-dir"));
    ND_TRY(apply_flag(config, "data", "dataset", a->dataset, "--dataset"));
    ND_TRY(apply_flag(config, "data", "data_path", a->data_path, "--data-path"));
    ND_TRY(apply_flag(config, "data", "n_samples", a->n_samples, "--n-samples"));
    ND_TRY(apply_flag(config, "data", "epochs", a->epochs, "--epochs"));
    ND_TRY(apply_flag(config, "training", "total_steps", a->total_steps, "--total-steps"));
    ND_TRY(apply_flag(config, "logging", "checkpoint_dir", a->checkpoint_dir, "--checkpoint-dir"));
    ND_TRY(apply_flag(config, "logging", "log_interval", a->log_interval, "--log-interval"));
    return apply_flag(config, "logging", "checkpoint_interval", a->checkpoint_interval,
                      "--checkpoint-interval");
}

static nd_status load_config(const train_arguments *a, nd_config *config)
{
    ND_TRY(nd_config_arguments_load(&a->source, config));
    ND_TRY(apply_flags(config, a));
    return nd_config_check(config);
}

/* For what starts and watches a run (launch/run.sh): without ranks. */
static nd_status print_run_dir(const train_arguments *a)
{
    nd_config config;
    ND_TRY(nd_config_arguments_load(&a->source, &config));
    ND_TRY(apply_flags(&config, a));
    printf("%s\n", config.logging.run_dir);
    return ND_OK;
}

nd_status nd_cli_train(int argc, char **argv)
{
    train_arguments a = {.resume = "none"};
    const nd_arg args[] = {
        {"--config", ND_ARG_TEXT, &a.source.config, "FILE",
         "a path, or the name of an installed config (quickstart, e3/small/full), with or without "
         ".ini"},
        {"--set", ND_ARG_APPEND, &a.source.set, "SECTION.KEY=VALUE",
         "sets one key; may be repeated, and the last of a key counts"},
        {"--run-dir", ND_ARG_TEXT_OR_EMPTY, &a.run_dir, "DIR", "where the run writes its files"},
        {"--resume", ND_ARG_TEXT_OR_EMPTY, &a.resume, "auto|none|DIR",
         "auto: continue from the newest complete checkpoint; none: start a new run (the default); "
         "DIR: continue from this checkpoint or run"},
        {"--new-data", ND_ARG_FLAG, &a.new_data, NULL,
         "with --resume: continue although the data has changed, from the start of an epoch"},
        {"--dataset", ND_ARG_TEXT, &a.dataset, "synthetic|shards", "where tokens come from"},
        {"--data-path", ND_ARG_TEXT_OR_EMPTY, &a.data_path, "DIR", "packed shards"},
        {"--n-samples", ND_ARG_TEXT, &a.n_samples, "N", "synthetic: sequences in the data set"},
        {"--epochs", ND_ARG_TEXT, &a.epochs, "N", "stop after N passes over the data"},
        {"--total-steps", ND_ARG_TEXT, &a.total_steps, "N", "optimizer steps"},
        {"--checkpoint-interval", ND_ARG_TEXT, &a.checkpoint_interval, "N",
         "steps between checkpoints"},
        {"--log-interval", ND_ARG_TEXT, &a.log_interval, "N", "steps between progress lines"},
        {"--checkpoint-dir", ND_ARG_TEXT_OR_EMPTY, &a.checkpoint_dir, "DIR",
         "where checkpoints go"},
        {"--print-run-dir", ND_ARG_FLAG, &a.print_run_dir, NULL,
         "print where the run would write its files and exit"},
        {"--list-keys", ND_ARG_FLAG, &a.list_keys, NULL, "print every configuration key and exit"},
        {"--print-config-docs", ND_ARG_FLAG, &a.config_docs, NULL, "print docs/config.md and exit"},
    };
    const nd_command command = {
        "nanochat_dist [train] --config FILE [options]",
        "Trains a model. Under mpirun or srun every process is one rank of the run.", args,
        sizeof args / sizeof args[0]};
    bool helped;
    ND_TRY(nd_args_parse(&command, argc, argv, NULL, &helped));
    if (a.list_keys)
        nd_config_write_help(stdout);
    if (a.config_docs)
        nd_config_write_markdown(stdout);
    if (helped || a.list_keys || a.config_docs)
        return ND_OK;
    if (a.print_run_dir)
        return print_run_dir(&a);
    ND_FAIL_IF(a.resume[0] == '\0', ND_ECONFIG,
               "--resume is empty; give auto, none, or the directory of a checkpoint or run");
    ND_FAIL_IF(a.new_data && strcmp(a.resume, "none") == 0, ND_ECONFIG,
               "--new-data is for a run that is continued: give --resume auto or DIR, too");
    ND_TRY(nd_signals_start());
    nd_train_options options = {.resume = a.resume, .new_data = a.new_data};
    nd_comm *comm = NULL;
    ND_TRY(nd_comm_create(&comm));
    nd_status status = nd_comm_agree(comm, load_config(&a, &options.config));
    ND_IF_OK(nd_train(&options, comm));
    fflush(stdout);
    nd_cli_discard_output();
    return nd_cli_shutdown(comm, status);
}
