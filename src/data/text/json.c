#include "data/text/json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

static _Thread_local bool refused; /* an allocation of this thread's Jansson */

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    refused |= !memory;
    return memory;
}

static void initialize(void)
{
    json_set_alloc_funcs(allocate, free);
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
    *root = json_loadb(text, size, flags, error);
    if (refused) {
        json_decref(*root);
        *root = NULL;
    }
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
