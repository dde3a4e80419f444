/* The rows of bad_input_rows.h about starts: launchers, directories that are in use, ranks and
 * checkpoints that do not belong together. */
#pragma once

#include "cli/bad_input_rows.h"

/* Trains for ever beside what comes after, whose exit code is the row's. */
#define BESIDE_A_LIVE_RUN(command)                                                                 \
    "$B --config $D/ok.ini --run-dir $W/run --total-steps 100000000 > $W/out & p=$!; "             \
    "while [ ! -s $W/run/metrics.jsonl ]; do sleep 0.1; done; " command                            \
    "; c=$?; kill -9 $p; (exit $c)"
#define TWO_RANKS(first, second)                                                                   \
    "mpirun --oversubscribe -np 1 $B --config " first " : -np 1 $B --config " second
#define FOUR_RANKS "mpirun --oversubscribe -np 4 $B --config $D/ok.ini --run-dir $W/run"
#define PLAN_GROUPS                                                                                \
    "$B plan --config $D/ok.ini --set dist.group_ranks=2 --set training.batch_size=24 "            \
    "--bandwidth 1 --flops 1e9"

static const bad_input bad_starts[] = {
    {"starts",
     "srun without PMI: tasks that MPI does not join",
     "",
     "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 $B --config $D/ok.ini --run-dir $W/run",
     2,
     {"srun started 4 processes", "joins only 1", "srun --mpi=pmix"}},
    {"starts",
     "another MPI's mpirun",
     "",
     "PMI_SIZE=2 $B --config $D/ok.ini --run-dir $W/run",
     2,
     {"2 processes (PMI_SIZE)", "which -a mpirun"}},
    {"starts",
     "a second start in a live run's directory",
     "",
     BESIDE_A_LIVE_RUN("$B --config $D/ok.ini --run-dir $W/run"),
     2,
     {"row", "is in use by process", "another directory"}},
    {"starts",
     "a second start with a live run's checkpoints",
     "",
     BESIDE_A_LIVE_RUN("$B --config $D/ok.ini --run-dir $W/other --checkpoint-dir "
                       "$W/run/checkpoints"),
     2,
     {"run/checkpoints is in use by process"}},
    {"starts",
     "a directory that another host uses",
     "mkdir $W/run && echo '{\"host\": \"node7\", \"pid\": 12, \"run_id\": \"0123456789abcdef\", "
     "\"started\": \"2026-01-31 23:59:59\", \"launcher\": \"srun\", \"boot_id\": \"x\", "
     "\"machine_id\": \"y\", \"process_start\": 1, \"pid_namespace\": 1, \"file_lock\": false, "
     "\"slurm_job\": 0, \"slurm_restarts\": 0}' > $W/run/run.lock",
     "$B --config $D/ok.ini --run-dir $W/run",
     2,
     {"process 12 on host node7 (run 0123456789abcdef, started 2026-01-31 23:59:59 by srun)",
      "cannot be seen from host", "then remove"}},
    {"starts",
     "a rank with another seed",
     "sed 's/warmup/seed = 7\\nwarmup/' $D/ok.ini > $W/other.ini",
     TWO_RANKS("$D/ok.ini --run-dir $W/run", "$W/other.ini --run-dir $W/run"),
     2,
     {"rank 1: ranks differ: 'training.seed' is 7 on this rank and"}},
    {"starts",
     "a rank with another copy of the data",
     COPY_SHARDS " && cp $W/shards/train_00000.h5 $W/shards/train_00001.h5 && "
                 "$B pack --index $W/shards",
     TWO_RANKS("$D/shards.ini --run-dir $W/run",
               "$D/shards.ini --run-dir $W/run --data-path $W/shards"),
     3,
     {"rank 1: ranks have different data: 'shard train_00001.h5' is", "absent on rank 0"}},
    {"starts",
     "a shard added since the checkpoint, --resume auto",
     COPY_RUN " && " COPY_SHARDS " && cp $W/shards/train_00000.h5 $W/shards/train_00001.h5 && "
              "$B pack --index $W/shards",
     RESUME " --data-path $W/shards",
     3,
     {"'shard train_00001.h5' was absent, is", "--new-data"}},
    {"starts",
     "another run's checkpoint among those of a run",
     COPY_RUN " && " SHARDS "2 --total-steps 8 > $W/out && cp -r "
              "$W/run2/checkpoints/step_00000008 $W/run/checkpoints",
     RESUME,
     4,
     {"step_00000008 is of run", "holds run", "--run-dir DIR"}},
    {"starts",
     "a checkpoint of more workers, --resume auto",
     "$B --config $D/ok.ini --run-dir $W/run --set dist.workers=4 --set dist.sync_every=4 > "
     "/dev/null",
     "$B --config $D/ok.ini --run-dir $W/run --resume auto --set dist.workers=2 --set "
     "dist.sync_every=4",
     4,
     {"run/checkpoints/step_00000006: is of a run with 4 workers", "has 2 workers",
      "choose [dist] workers = 4, or start from"}},
    {"starts",
     "a checkpoint of workers for a run without",
     "$B --config $D/ok.ini --run-dir $W/run --set dist.workers=2 > /dev/null",
     "$B --config $D/ok.ini --run-dir $W/run --resume auto",
     4,
     {"is of a run with 2 workers", "has no workers (workers = 1, sync_every = 1)",
      "choose [dist] workers = 2"}},
    {"starts",
     "outer momentum in 8 bits for one in 32",
     "$B --config $D/ok.ini --run-dir $W/run --set dist.workers=2 --set model.hidden_dim=64 > "
     "/dev/null",
     "$B --config $D/ok.ini --run-dir $W/run --resume auto --set dist.workers=2 --set "
     "model.hidden_dim=64 --set dist.outer_state_bits=8",
     4,
     {"holds no outer_momentum_codes of", "outer_state_bits"}},
    {"starts",
     "groups that do not divide the ranks",
     "",
     FOUR_RANKS " --set dist.group_ranks=3",
     2,
     {"group_ranks = 3 does not divide the 4 ranks of this run; 1, 2, 4 would, or 0"}},
    {"starts",
     "more groups than micro-batches",
     "",
     FOUR_RANKS " --set dist.group_ranks=1 --set training.batch_size=2",
     2,
     {"makes 2 of them, which 4 ranks cannot share evenly", "start 1 or 2 ranks",
      "is a multiple of 4"}},
    {"starts",
     "groups that straddle hosts",
     "",
     PLAN_GROUPS " --ranks 6 --hosts 2",
     2,
     {"group_ranks = 2: groups of 2 ranks would straddle hosts", "1, 3, 6 would fit"}},
    {"starts",
     "groups on hosts with different numbers of ranks",
     "",
     PLAN_GROUPS " --ranks 8 --hosts 3",
     2,
     {"the first of 3 hosts having 3 ranks and the last 2; 1, 8 would fit, or 0"}},
    {"starts",
     "groups with workers that synchronize rarely",
     "",
     FOUR_RANKS " --set dist.group_ranks=2 --set dist.workers=2",
     2,
     {"group_ranks = 2 contradicts workers = 2", "use group_ranks = 0"}},
};

enum { BAD_STARTS = sizeof bad_starts / sizeof bad_starts[0] };
