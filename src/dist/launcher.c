#include "dist/launcher.h"

#include "core/base/close.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct launcher {
    const char *name;
    const char *count; /* the variable that says how many processes it started */
    const char *advice;
} launcher;

#define USE_OWN_MPIRUN                                                                             \
    "start the program with the mpirun of the MPI it was built with (`nanochat_dist --version` "   \
    "names it, `which -a mpirun` lists those that are installed)"
#define USE_PMIX                                                                                   \
    "start it with `srun --mpi=pmix` (`srun --mpi=list` shows what this Slurm offers), or with "   \
    "mpirun"

/* The innermost decides and comes first: mpirun in a Slurm job starts its helpers with srun, and
 * its ranks inherit those variables. */
static const launcher launchers[] = {
    {"mpirun of Open MPI", "OMPI_COMM_WORLD_SIZE", USE_OWN_MPIRUN},
    {"mpirun of MVAPICH", "MV2_COMM_WORLD_SIZE", USE_OWN_MPIRUN},
    {"jsrun", "JSM_NAMESPACE_SIZE", USE_OWN_MPIRUN},
    {"a launcher with PMI (mpirun of MPICH or Intel MPI, srun)", "PMI_SIZE",
     USE_OWN_MPIRUN ", or with `srun --mpi=pmix`"},
    {"mpirun of MPICH or Intel MPI", "MPI_LOCALNRANKS", USE_OWN_MPIRUN},
    {"flux", "FLUX_JOB_SIZE", "start it with `flux run -o pmi=pmix`, or with mpirun"},
};
static const launcher slurm_step = {"srun", "SLURM_STEP_NUM_TASKS", USE_PMIX};
static const launcher slurm_task = {"srun", "SLURM_NTASKS", USE_PMIX};
static const launcher torchrun = {"torchrun", "WORLD_SIZE", USE_OWN_MPIRUN};
static const launcher pytorch = {"a launcher of PyTorch", "WORLD_SIZE", USE_OWN_MPIRUN};

/* Within a job SLURM_NTASKS is set everywhere, even in the batch script and salloc's shell, which
 * start single processes. Steps that srun did not start have the largest ids. */
static bool in_slurm_step(void)
{
    const char *id = getenv("SLURM_STEP_ID"), *task = getenv("SLURM_PROCID");
    if (id)
        return strtoull(id, NULL, 10) < 0xfffffff0ULL;
    return getenv(slurm_step.count) || (task && atoi(task) > 0);
}

static const launcher *find_launcher(void)
{
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (getenv(launchers[i].count))
            return &launchers[i];
    if (in_slurm_step())
        return getenv(slurm_step.count) ? &slurm_step : &slurm_task;
    if (getenv("TORCHELASTIC_RUN_ID"))
        return &torchrun;
    return getenv("RANK") && getenv("MASTER_ADDR") ? &pytorch : NULL;
}

/* A variable that a launcher sets for ranks that MPI may join; NULL: none is set. */
static const char *mark_of_ranks(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (getenv(marks[i]))
            return marks[i];
    return NULL;
}

bool nd_launcher_has_mpi(void)
{
    return mark_of_ranks() != NULL;
}

static bool began_with_variable(pid_t process, const char *name)
{
    ND_AUTOFREE char *entry = NULL;
    char path[64];
    size_t size = 0;
    const size_t length = strlen(name);
    bool found = false;
    snprintf(path, sizeof path, "/proc/%ld/environ", (long)process);
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "re");
    while (file && !found && getdelim(&entry, &size, '\0', file) > 0)
        found = strncmp(entry, name, length) == 0 && entry[length] == '=';
    return found;
}

static pid_t parent_of(pid_t process)
{
    char path[64], text[512];
    long parent = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)process);
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    const char *name_end = strrchr(text, ')'); /* "12 (name) S 1 ..." */
    return name_end && sscanf(name_end, ") %*c %ld", &parent) == 1 ? (pid_t)parent : 0;
}

pid_t nd_launcher_process(void)
{
    const char *mark = mark_of_ranks();
    pid_t process = getppid();
    while (mark && process > 1 && began_with_variable(process, mark))
        process = parent_of(process);
    return process;
}

const char *nd_launcher_name(void)
{
    const launcher *found = find_launcher();
    return found ? found->name : nd_launcher_has_mpi() ? "a launcher with PMIx" : "none";
}

nd_status nd_launcher_check(int size, const char *library)
{
    const launcher *found = find_launcher();
    const char *count = found ? getenv(found->count) : NULL;
    if (!count || atoll(count) <= size)
        return ND_OK;
    return ND_FAIL(ND_ECONFIG,
                   "%s started %lld processes (%s), but %s joins only %d of them: each would do "
                   "the whole work alone, in the same directory; %s",
                   found->name, atoll(count), found->count, library, size, found->advice);
}
