/* What the sanitizers are told, linked into every program of the asan and tsan presets (see
 * cmake/Modules.cmake), so that it also holds for ranks under mpirun. Only libraries that are not
 * ours and not instrumented are named here.
 *
 * Leaks (asan). Open MPI keeps tables for the life of the process and frees some after
 * LeakSanitizer looks; its components are unloaded by then, which is why dlclose() below keeps them
 * mapped: a leak in an unloaded library has no name to match. Finding the names takes 0.3 s of each
 * rank, so that what MPI_Init allocates is none to begin with.
 *
 * Races (tsan). Open MPI, HDF5, oneDNN, SentencePiece and libgomp synchronize in ways that are not
 * seen, as they are compiled without -fsanitize. What they touch is left out
 * (ignore_noninstrumented_modules). OpenMP's barriers are not seen either, so a test has one OpenMP
 * thread (OMP_THREAD_LIMIT=1 in tests/CMakeLists.txt); the loader's and the other threads that this
 * program starts itself are watched in full. */

/* Makes the linker take this file from its archive: see -u in cmake/Modules.cmake. */
extern const int nd_sanitizer_defaults;
const int nd_sanitizer_defaults = 1;

int dlclose(void *handle);
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>

/* Absent in a program without MPI. */
int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided) __attribute__((weak));
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    __lsan_disable();
    const int code = PMPI_Init_thread(argc, argv, required, provided);
    __lsan_enable();
    return code;
}
#endif

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libmpi.so\n"
           "leak:libopen-pal.so\n"
           "leak:libopen-rte.so\n"
           "leak:/openmpi/\n"   /* components, lib/openmpi3/mca_*.so */
           "leak:libhdf5\n"     /* 1.10 loses memory when it refuses a damaged file */
           "leak:libhwloc.so\n" /* on behalf of Open MPI */
           "leak:libpmix.so\n"  /* the same */
           /* the same: the stack ends in libc, and we never call it */
           "leak:__vasprintf_internal\n";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}
