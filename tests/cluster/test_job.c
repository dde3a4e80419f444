/* The batch scripts with stand-ins for the commands of Slurm, for what a job needs to be told that
 * test_slurm's cluster does not bring about. */
#include "support/run_files.h"
#include "support/support.h"

TestSuite(job, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

/* `job CODE`: cpu.sbatch, of which the ranks end with CODE. Jobs 7 and 8 are the tasks 1 and 0 of
 * the array 7. */
#define SETUP                                                                                      \
    "mkdir bin run; cd bin; printf '#!/bin/sh\\n' | tee srun scontrol program sleep > /dev/null;"  \
    "cat >> scontrol <<'END'\n"                                                                    \
    "case $1$2 in requeue*) echo $2 >> ../requeued; exit;; esac\n"                                 \
    "case $3 in 7_* | 8 | 9) n=1;; 7) n=2;; *) exit 1;; esac\n"                                    \
    "for i in $(seq $n); do echo 'JobId=x'; echo '   JobState=RUNNING Reason=None'; done\nEND\n"   \
    "echo 'case \"$*\" in *--print-run-dir) echo run;; *) exit $CODE;; esac' >> program;"          \
    "echo 'while case $1 in -*) ;; *) false;; esac; do shift; done; exec \"$@\"' >> srun;"         \
    "chmod +x *; export PATH=$PWD:$PATH ND_PROGRAM=$PWD/program ND_MAX_RESTARTS=0;"                \
    "export ND_SLURM=" ND_SOURCE_DIR "/launch/slurm SLURM_JOB_NODELIST=n SLURM_NTASKS=1;"          \
    "job() { : > ../requeued; CODE=$1 bash $ND_SLURM/cpu.sbatch > ../log 2>&1; test $? = $1; };"

static void run(const char *script)
{
    nd_test_run_scripts(SETUP, script);
}

Test(job, of_an_array_puts_its_own_task_back_into_the_queue_and_no_other)
{
    run("export SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 SLURM_JOB_ID=7; job 75 || exit 1;"
        "test \"$(cat ../requeued)\" = 7_1 || exit 2;"
        "SLURM_ARRAY_TASK_ID=0 SLURM_JOB_ID=8; job 75 || exit 3;"
        "test \"$(cat ../requeued)\" = 7_0");
}

Test(job, that_loses_a_rank_to_any_signal_goes_back_into_the_queue_and_after_an_error_does_not)
{
    run("export SLURM_JOB_ID=9; for c in 5 129 134 137 152 159 205; do job $c || exit $c;"
        " test \"$(cat ../requeued)\" = 9 || exit $c; done;"
        "for c in 0 2 3 4 6; do job $c || exit $c; test ! -s ../requeued || exit $c; done");
}

Test(job, is_refused_without_slurm_or_site_with_what_to_do)
{
    run("( unset SLURM_JOB_ID; job 2 ) || exit 1; grep -q 'this is for sbatch' ../log || exit 2;"
        "cp $ND_SLURM/cpu.sbatch .; unset ND_SLURM; SLURM_SUBMIT_DIR=/nowhere;"
        "export SLURM_SUBMIT_DIR; for posix in '' --posix; do bash $posix cpu.sbatch > ../log 2>&1;"
        "test $? = 2 || exit 3; grep -q 'source launch/slurm/site.sh' ../log || exit 4; done");
}
