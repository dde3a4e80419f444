/* Started alone by test_failed_saves.c: ranks_replace CONFIG RUN. Saves step 4 twice, with another
 * state in between, so that the second checkpoint takes the place of the first. */
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/step.h"

#include <string.h>

static nd_status save_twice(nd_run *run)
{
    char first[ND_CHECKPOINT_PATH_MAX], path[ND_CHECKPOINT_PATH_MAX];
    nd_step_result step;
    while (run->position.step < 4)
        ND_TRY(nd_step_run(run, false, &step));
    ND_TRY(nd_save_begin(run, false));
    snprintf(first, sizeof first, "%s", run->saving.state_sha256);
    ND_TRY(nd_step_run(run, false, &step));
    run->position.step = 4;
    ND_TRY(nd_save_begin(run, false));
    nd_checkpoint c;
    snprintf(path, sizeof path, "%.4000s/checkpoints/step_00000004", run->config.logging.run_dir);
    ND_TRY(nd_checkpoint_open(path, true, &c));
    const bool second = strcmp(c.state_sha256, first) != 0;
    nd_checkpoint_close(&c);
    return second ? ND_OK : ND_FAIL(ND_EINTERNAL, "%s: still the first", path);
}

int main(int argc, char **argv)
{
    static nd_run run;
    static nd_config config;
    nd_comm *comm = NULL;
    if (argc < 3 || nd_comm_create_solo(&comm) != ND_OK)
        return 2;
    nd_config_defaults(&config);
    nd_status status = nd_config_read_file(&config, argv[1]);
    snprintf(config.logging.run_dir, sizeof config.logging.run_dir, "%s", argv[2]);
    if (status == ND_OK)
        status = nd_run_create(&config, comm, &run);
    if (status == ND_OK)
        status = nd_run_start_loader(&run);
    if (status == ND_OK)
        status = save_twice(&run);
    if (status != ND_OK)
        fprintf(stderr, "%s\n", nd_error_get()->message);
    nd_run_destroy(&run);
    nd_comm_destroy(comm);
    return status != ND_OK;
}
