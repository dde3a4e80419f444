/* The table of keys, private to the config files. */
#pragma once

#include "core/config/config.h"

enum { ND_CONFIG_LINE_MAX = 1000 }; /* bytes of a line of an INI file; iniparser's limit is 1023 */

typedef enum nd_key_type {
    ND_KEY_INT,
    ND_KEY_DOUBLE,
    ND_KEY_BOOL,
    ND_KEY_CHOICE,
    ND_KEY_TEXT
} nd_key_type;

typedef struct nd_config_key {
    const char *section;
    const char *name;
    nd_key_type type;
    size_t offset;    /* of the value in nd_config */
    double low, high; /* allowed range of numbers, inclusive */
    const char *default_text;
    const char *choices; /* of ND_KEY_CHOICE: "a|b|c", in the order of the enumeration */
    const char *help;
} nd_config_key;

extern const nd_config_key nd_config_keys[];
extern const int nd_config_key_count;

/* The key of this name, ignoring case; NULL when there is none. */
const nd_config_key *nd_config_key_find(const char *section, const char *name);

/* Another name of a key: an old name, accepted with a warning, or another spelling, such as the E3
 * suite's use_8bit_optim, accepted without one. */
typedef struct nd_config_alias {
    const char *section, *name;
    const char *new_section, *new_name;
    const char *values, *new_values; /* "a|b" becomes "c|d", other values stay; NULL: all stay */
    bool spelling;
} nd_config_alias;

/* The alias of this name; NULL when there is none. */
const nd_config_alias *nd_config_alias_find(const char *section, const char *name);

/* Whether section.key is an alias of new_section.new_key. */
bool nd_config_alias_is(const char *section, const char *name, const char *new_section,
                        const char *new_name);

/* Writes to `text` the key's value for a value given under the alias. Returns false when the alias
 * takes only true and false and `value` is neither. */
bool nd_config_alias_value(const nd_config_alias *alias, const char *value, char *text,
                           size_t size);

/* The index of `value` in "a|b|c", or -1; the name at an index. The value of true|yes|on|1 or
 * false|no|off|0; returns false for other texts. */
int nd_config_choice_index(const char *choices, const char *value);
void nd_config_choice_name(const char *choices, int index, char *text, size_t size);
bool nd_config_parse_bool(const char *text, bool *value);

/* The known key nearest to what was written, rather one of the same section; NULL where none is
 * near (nd_name_distance). */
const nd_config_key *nd_config_key_nearest(const char *section, const char *name);

/* The value of a key as text that parses back to the same value. */
void nd_config_key_format(const nd_config *config, const nd_config_key *key, char *text,
                          size_t size);

/* "a whole number from 1 to 1000000", for messages and docs. */
void nd_config_key_allowed(const nd_config_key *key, char *text, size_t size);
