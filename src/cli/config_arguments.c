#include "cli/config_arguments.h"

nd_status nd_config_arguments_load(const nd_config_arguments *arguments, nd_config *config)
{
    char path[ND_CONFIG_TEXT_MAX];
    nd_config_defaults(config);
    ND_FAIL_IF(!arguments->config, ND_ECONFIG, "no configuration; give --config FILE (see --help)");
    ND_TRY(nd_config_find(arguments->config, "config", path, sizeof path));
    ND_TRY(nd_config_read_file(config, path));
    for (int i = 0; i < arguments->set.count; i++)
        ND_TRY(nd_config_set(config, arguments->set.items[i], "--set"));
    return ND_OK;
}
