/* Processes that a launcher started together, and that MPI does not join. */
#include "support/run_files.h"
#include "support/support.h"

#include <string.h>

TestSuite(launchers, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static char output[16384];

/* One step of training with these variables. */
static int train_with(const char *variables)
{
    return nd_test_shell(output, sizeof output,
                         "env %s %s --config %s --run-dir %s/run --total-steps 1", variables,
                         ND_BINARY, nd_test_here.config, nd_test_here.directory);
}

static void refused(const char *variables, const char *count, const char *advice)
{
    cr_assert_eq(train_with(variables), 2, "%s: %s", variables, output);
    cr_assert(strstr(output, count) != NULL, "%s: %s", variables, output);
    cr_assert(strstr(output, advice) != NULL, "%s: %s", variables, output);
    cr_assert_neq(nd_test_shell(NULL, 0, "ls %s/run", nd_test_here.directory), 0,
                  "%s: the directory was touched", variables);
}

Test(launchers, tasks_of_srun_that_mpi_does_not_join_are_refused_before_anything_is_touched)
{
    static const char advice[] = "srun --mpi=pmix";
    refused("SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0",
            "srun started 4 processes (SLURM_STEP_NUM_TASKS), but Open MPI", advice);
    refused("SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_STEP_ID=2 SLURM_PROCID=0", "(SLURM_NTASKS)",
            advice);
    refused("SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=3", "(SLURM_NTASKS)", advice);
}

Test(launchers, processes_of_another_mpirun_are_refused)
{
    refused("PMI_SIZE=2 MPI_LOCALNRANKS=2", "(PMI_SIZE)", "which -a mpirun");
    refused("MPI_LOCALNRANKS=3", "3 processes (MPI_LOCALNRANKS)", "which -a mpirun");
    refused("PMI_RANK=0 PMI_SIZE=2 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
            "2 processes (PMI_SIZE)", "joins only 1 of them");
    refused("FLUX_JOB_SIZE=4 FLUX_TASK_RANK=1", "flux started 4 processes", "flux run");
    refused("WORLD_SIZE=4 RANK=1 MASTER_ADDR=n1", "a launcher of PyTorch started 4 processes",
            "mpirun");
    refused("TORCHELASTIC_RUN_ID=x WORLD_SIZE=8", "torchrun started 8 processes", "mpirun");
}

Test(launchers, one_process_in_a_shell_or_a_step_of_slurm_trains)
{
    static const char *const alone[] = {
        "SLURM_JOB_ID=7 SLURM_NTASKS=4",                          /* the shell of salloc */
        "SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0",           /* a batch script */
        "SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_STEP_ID=4294967290", /* an interactive step */
        "SLURM_NTASKS=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1",  /* srun -n1 */
        "WORLD_SIZE=8",                                           /* of a container platform */
    };
    for (size_t i = 0; i < sizeof alone / sizeof *alone; i++)
        cr_assert_eq(train_with(alone[i]), 0, "%s: %s", alone[i], output);
}

Test(launchers, what_else_the_number_of_a_job_holds_stays_out_of_the_configuration)
{
    cr_assert_eq(train_with("SLURM_JOB_ID=\"$(printf '7\\nepochs = 1')\""), 0, "%s", output);
    cr_assert_eq(nd_test_shell(output, sizeof output, "%s info %s/run 2>&1", ND_BINARY,
                               nd_test_here.directory),
                 0, "%s", output);
}

/* mpirun's helpers are started by srun, one a node, and what they start inherits
 * their variables. */
Test(launchers, mpirun_inside_a_slurm_job_trains)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "SLURM_STEP_ID=1 SLURM_STEP_NUM_TASKS=3 SLURM_NTASKS=3 SLURM_PROCID=1 "
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 "
        "mpirun --oversubscribe -np 2 %s --config %s --run-dir %s/run --total-steps 1",
        ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strstr(output, "over 2 ranks (mpi)") != NULL, "%s", output);
}

/* A script around each rank stands between it and mpirun, whose output is a file. */
Test(launchers, the_log_of_ranks_within_a_script_redraws_nothing_in_a_file)
{
    const int code = nd_test_shell(
        output, sizeof output,
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 "
        "mpirun --oversubscribe -np 2 sh -c '\"$@\"; exit $?' sh %s --config %s --run-dir %s/run "
        "--total-steps 1",
        ND_BINARY, nd_test_here.config, nd_test_here.directory);
    cr_assert_eq(code, 0, "%s", output);
    cr_assert(strchr(output, '\r') == NULL, "%s", output);
}
