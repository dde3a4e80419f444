#include "cli/config_arguments.h"

#include <string.h>

/* As a file with a key on two lines. */
static nd_status check_once(const nd_arg_list *set)
{
    for (int i = 0; i < set->count; i++) {
        const size_t length = strcspn(set->items[i], "=");
        for (int j = 0; j < i; j++)
            if (strcspn(set->items[j], "=") == length &&
                memcmp(set->items[i], set->items[j], length) == 0)
                return ND_FAIL(ND_ECONFIG, "--set: %.*s is given twice: '%s' and '%s'", (int)length,
                               set->items[i], set->items[j], set->items[i]);
    }
    return ND_OK;
}

nd_status nd_config_arguments_load(const nd_config_arguments *arguments, nd_config *config)
{
    char path[ND_CONFIG_TEXT_MAX];
    nd_config_defaults(config);
    if (!arguments->config)
        return ND_FAIL(ND_ECONFIG, "no configuration; give --config FILE (see --help)");
    ND_TRY(check_once(&arguments->set));
    ND_TRY(nd_config_find(arguments->config, path, sizeof path));
    ND_TRY(nd_config_read_file(config, path));
    for (int i = 0; i < arguments->set.count; i++)
        ND_TRY(nd_config_set(config, arguments->set.items[i], "--set"));
    return ND_OK;
}
