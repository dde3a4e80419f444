/* Started under mpirun by test_worlds.c: ranks_train CONFIG RUN_DIR...
 *
 * Trains in each of the directories in turn, from the newest checkpoint there, if there is one: one
 * start of the ranks for several runs. */
#include "cli/cli.h"
#include "train/run/run.h"
#include "train/train.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    nd_train_options *options = calloc(1, sizeof *options);
    nd_comm *comm = NULL;
    nd_status status = ND_OK;
    if (argc < 3 || !options || nd_comm_create(&comm) != ND_OK)
        return 2;
    options->resume = "auto";
    nd_config_defaults(&options->config);
    status = nd_config_read_file(&options->config, argv[1]);
    if (status == ND_OK)
        status = nd_config_check(&options->config);
    for (int i = 2; i < argc && status == ND_OK; i++) {
        snprintf(options->config.logging.run_dir, sizeof options->config.logging.run_dir, "%s",
                 argv[i]);
        status = nd_train(options, comm);
    }
    status = nd_cli_shutdown(comm, status);
    nd_cli_print_error(-1);
    free(options);
    return nd_error_exit_code(status);
}
