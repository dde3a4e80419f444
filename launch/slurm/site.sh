# What differs from site to site, in one place. Read twice: by you before sbatch, for where jobs go,
#
#   . launch/slurm/site.sh && sbatch launch/slurm/cpu.sbatch --config e3/full --run-dir runs/full
#
# and by every job, for how ranks are started. What is set already stays as it is.

# Where these files lie; a job finds them there again. A copy of this file elsewhere must be told.
export ND_SLURM=${ND_SLURM:-$(dirname "$(readlink -f "${BASH_SOURCE[0]:-$0}")")}
[ -e "$ND_SLURM/job.sh" ] ||
    echo "site.sh: no job.sh in $ND_SLURM: export ND_SLURM=.../launch/slurm before you source a copy" >&2

# Account, partition and whatever else sbatch must be told; see INPUT ENVIRONMENT VARIABLES in
# sbatch(1). export SBATCH_ACCOUNT=... export SBATCH_PARTITION=... export SBATCH_QOS=...

# The program, and what it needs to be found.
# module load openmpi hdf5
# The checkout's, or the installed one that these files came with, unless you name another.
nd_built=$ND_SLURM/../../build/release/nanochat_dist
[ -x "$nd_built" ] || nd_built=$ND_SLURM/../../../../bin/nanochat_dist
export ND_PROGRAM=${ND_PROGRAM:-$nd_built}

# How ranks are started: srun (with PMIx, which `srun --mpi=list` must name) or mpirun.
export ND_LAUNCHER=${ND_LAUNCHER:-srun}
export ND_SRUN_OPTIONS=${ND_SRUN_OPTIONS:---mpi=pmix}
export ND_MPIRUN_OPTIONS=${ND_MPIRUN_OPTIONS:---bind-to none}

# How often in a row a job starts its ranks again after one was lost, without a step done in
# between, before it puts itself back into the queue; 0 does that at once.
export ND_MAX_RESTARTS=${ND_MAX_RESTARTS:-3}

# The network between nodes, for Open MPI: all interfaces unless some are named.
# export OMPI_MCA_btl_tcp_if_include=ib0
