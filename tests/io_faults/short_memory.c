/* Memory that runs short once, for nanochat_dist_faulty, whose own calls of these functions the
 * linker leads here; Jansson allocates here, too. With ND_SHORT_MEMORY=N allocation N fails, and
 * with ND_SHORT_MEMORY_COUNT=FILE the process writes there how many there were. */
#include <errno.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long allocations;
static long failing;

static int fails(void)
{
    if (atomic_fetch_add(&allocations, 1) + 1 != failing)
        return 0;
    errno = ENOMEM;
    return 1;
}

#define WRAP(type, name, parameters, arguments)                                                    \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails() ? NULL : __real_##name arguments;                                           \
    }

WRAP(void *, malloc, (size_t size), (size))
WRAP(void *, calloc, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, (void *memory, size_t size), (memory, size))
WRAP(void *, reallocarray, (void *memory, size_t count, size_t size), (memory, count, size))
WRAP(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size))
WRAP(char *, strdup, (const char *text), (text))
WRAP(char *, strndup, (const char *text, size_t size), (text, size))
WRAP(FILE *, open_memstream, (char **text, size_t *size), (text, size))

__attribute__((constructor)) static void start(void)
{
    const char *number = getenv("ND_SHORT_MEMORY");
    failing = number ? atol(number) : 0;
    json_set_alloc_funcs(__wrap_malloc, free);
}

__attribute__((destructor)) static void stop(void)
{
    const char *path = getenv("ND_SHORT_MEMORY_COUNT");
    FILE *out = path ? fopen(path, "w") : NULL;
    if (!out)
        return;
    fprintf(out, "%ld\n", (long)atomic_load(&allocations));
    fclose(out);
}
