#include "data/text/json.h"

#include "core/base/grow.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>

static _Thread_local bool refused; /* an allocation of this thread's Jansson */

/* What Jansson takes and gives back while it reads a text. Where its buffer for a word cannot grow
 * it goes on, and writes beyond its memory; so control leaves it at once, and it frees nothing. */
typedef struct block {
    void *taken, *given_back;
} block;
static _Thread_local struct {
    bool active;
    jmp_buf leave;
    block *blocks;
    size_t taken, given_back, capacity;
} reading;

static void *refuse(void)
{
    refused = true;
    if (reading.active)
        longjmp(reading.leave, 1);
    return NULL;
}

static void *allocate(size_t size)
{
    if (reading.active) {
        block *grown =
            nd_grown(reading.blocks, &reading.capacity, reading.taken + 1, sizeof *grown);
        if (!grown)
            return refuse();
        reading.blocks = grown;
    }
    void *memory = malloc(size);
    if (!memory)
        return refuse();
    if (reading.active)
        reading.blocks[reading.taken++].taken = memory;
    return memory;
}

static void give_back(void *memory)
{
    if (reading.active && memory)
        reading.blocks[reading.given_back++].given_back = memory;
    else
        free(memory);
}

static json_t *load(const char *text, size_t size, size_t flags, json_error_t *error)
{
    json_t *volatile root = NULL;
    reading.active = true;
    if (setjmp(reading.leave) == 0)
        root = json_loadb(text, size, flags, error);
    reading.active = false;
    for (size_t i = 0; i < (refused ? reading.taken : reading.given_back); i++)
        free(refused ? reading.blocks[i].taken : reading.blocks[i].given_back);
    free(reading.blocks);
    reading.blocks = NULL;
    reading.taken = reading.given_back = reading.capacity = 0;
    return root;
}

static void initialize(void)
{
    json_set_alloc_funcs(allocate, give_back);
}

/* From here on `refused` says whether something was. */
static void watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialize);
    refused = false;
}

nd_status nd_json_parse(const void *text, size_t size, size_t flags, const char *name,
                        json_t **root, json_error_t *error)
{
    watch();
    *root = load(text, size, flags, error);
    return nd_json_status(ND_OK, name);
}

nd_status nd_json_status(nd_status status, const char *name)
{
    if (!refused)
        return status;
    nd_error_clear();
    return ND_FAIL(ND_ENOMEM, "%s: no memory to parse it", name);
}

char *nd_json_text(const json_t *value, size_t flags)
{
    watch();
    char *text = json_dumps(value, flags);
    if (!refused)
        return text;
    free(text);
    return NULL;
}
