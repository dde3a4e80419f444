/* --config and --set, for every command that takes a configuration. */
#pragma once

#include "cli/args.h"
#include "core/config/config.h"

typedef struct nd_config_arguments {
    const char *config; /* a path or an installed name */
    nd_arg_list set;
} nd_config_arguments;

/* Applies the defaults, then the file, then every --set, without nd_config_check. */
nd_status nd_config_arguments_load(const nd_config_arguments *arguments, nd_config *config);
