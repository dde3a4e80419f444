#include "core/config/config_keys.h"

#include <strings.h>

/* Names and values of earlier versions, which old files contain, and E3's name of state_bits. */
static const nd_config_alias aliases[] = {
    {"training", "use_8bit_optim", "optimizer", "state_bits", "true|false", "8|32", true},
    {"hardware", "packed_codes", "hardware", "pack_ternary_weights", NULL, NULL, false},
    {"hardware", "attention", "hardware", "attention_backend", "own", "builtin", false},
    {"dist", "overlap", "dist", "overlap_grad_reduce", NULL, NULL, false},
    {"dist", "reduction", "dist", "grad_reduction", NULL, NULL, false},
    {"dist", "gradient_wire", "dist", "grad_comm_dtype", NULL, NULL, false},
    {"dist", "weight_wire", "dist", "weight_sync", "packed|trits|changed", "full|full_base3|delta",
     false},
    {"dist", "embedding_wire", "dist", "embedding_sync", "dense", "full", false},
    {"dist", "shorten_gradients", "dist", "grad_compression", NULL, NULL, false},
    {"dist", "check_interval", "dist", "replica_check_interval", NULL, NULL, false},
};

const nd_config_alias *nd_config_alias_find(const char *section, const char *name)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcasecmp(aliases[i].section, section) == 0 && strcasecmp(aliases[i].name, name) == 0)
            return &aliases[i];
    return NULL;
}

bool nd_config_alias_is(const char *section, const char *name, const char *new_section,
                        const char *new_name)
{
    const nd_config_alias *alias = nd_config_alias_find(section, name);
    return alias && strcasecmp(alias->new_section, new_section) == 0 &&
           strcasecmp(alias->new_name, new_name) == 0;
}

bool nd_config_alias_value(const nd_config_alias *alias, const char *value, char *text, size_t size)
{
    bool yes;
    if (alias->spelling && !nd_config_parse_bool(value, &yes))
        return false;
    if (alias->spelling)
        value = yes ? "true" : "false";
    const int index = alias->values ? nd_config_choice_index(alias->values, value) : -1;
    if (index >= 0)
        nd_config_choice_name(alias->new_values, index, text, size);
    else
        snprintf(text, size, "%s", value);
    return true;
}
