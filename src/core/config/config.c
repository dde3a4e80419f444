#include "core/config/config.h"

#include "core/base/directory.h"
#include "core/base/program_files.h"
#include "core/config/config_keys.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void *slot(nd_config *config, const nd_config_key *key)
{
    return (char *)config + key->offset;
}

static const void *const_slot(const nd_config *config, const nd_config_key *key)
{
    return (const char *)config + key->offset;
}

/* A finite number in decimal; what is too small for a double is no 0. */
static bool parse_double(const char *text, double *value)
{
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*value) && !strpbrk(text, "xX") &&
           !(*value == 0.0 && errno == ERANGE);
}

/* A whole number, written plainly or as 1e6. */
static bool parse_int(const char *text, int64_t *value)
{
    char *end;
    double real;
    errno = 0;
    const long long integer = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0)
        return *value = integer, true;
    if (!parse_double(text, &real) || real != floor(real) || fabs(real) > 1e15)
        return false;
    return *value = (int64_t)real, true;
}

/* Bytes of text that fit a line of the file that nd_config_write writes: NAME = "TEXT". */
static int text_limit(const nd_config_key *key)
{
    return ND_CONFIG_LINE_MAX - (int)strlen(key->name) - (int)strlen(" = \"\"");
}

/* Parses `text` into the key's slot; false when it is not allowed. */
static bool assign(nd_config *config, const nd_config_key *key, const char *text)
{
    switch (key->type) {
    case ND_KEY_INT: {
        int64_t value;
        if (!parse_int(text, &value) || value < (int64_t)key->low || value > (int64_t)key->high)
            return false;
        *(int64_t *)slot(config, key) = value;
        return true;
    }
    case ND_KEY_DOUBLE: {
        double value;
        if (!parse_double(text, &value) || value < key->low || value > key->high)
            return false;
        *(double *)slot(config, key) = value;
        return true;
    }
    case ND_KEY_BOOL:
        return nd_config_parse_bool(text, slot(config, key));
    case ND_KEY_CHOICE: {
        const int index = nd_config_choice_index(key->choices, text);
        if (index < 0)
            return false;
        *(int *)slot(config, key) = index;
        return true;
    }
    case ND_KEY_TEXT:
        break;
    }
    /* An INI file cannot represent these. */
    if (strlen(text) > (size_t)text_limit(key) || strpbrk(text, "\n\r\"") != NULL)
        return false;
    strcpy(slot(config, key), text);
    return true;
}

void nd_config_defaults(nd_config *config)
{
    memset(config, 0, sizeof *config);
    for (int i = 0; i < nd_config_key_count; i++)
        assign(config, &nd_config_keys[i], nd_config_keys[i].default_text);
}

void nd_config_key_format(const nd_config *config, const nd_config_key *key, char *text,
                          size_t size)
{
    const void *value = const_slot(config, key);
    switch (key->type) {
    case ND_KEY_INT:
        snprintf(text, size, "%lld", (long long)*(const int64_t *)value);
        return;
    case ND_KEY_DOUBLE: {
        const double real = *(const double *)value;
        for (int digits = 6; digits <= 17; digits++) { /* the shortest text that reads back equal */
            snprintf(text, size, "%.*g", digits, real);
            if (strtod(text, NULL) == real)
                return;
        }
        return;
    }
    case ND_KEY_BOOL:
        snprintf(text, size, "%s", *(const bool *)value ? "true" : "false");
        return;
    case ND_KEY_CHOICE:
        nd_config_choice_name(key->choices, *(const int *)value, text, size);
        return;
    case ND_KEY_TEXT:
        break;
    }
    snprintf(text, size, "%s", (const char *)value);
}

void nd_config_value(const nd_config *config, const char *section, const char *key, char *text,
                     size_t size)
{
    nd_config_key_format(config, nd_config_key_find(section, key), text, size);
}

void nd_config_key_allowed(const nd_config_key *key, char *text, size_t size)
{
    switch (key->type) {
    case ND_KEY_INT:
        snprintf(text, size, "a whole number from %.0f to %.0f", key->low, key->high);
        return;
    case ND_KEY_DOUBLE:
        snprintf(text, size, "a number from %g to %g", key->low, key->high);
        return;
    case ND_KEY_BOOL:
        snprintf(text, size, "true or false");
        return;
    case ND_KEY_CHOICE: {
        size_t used = (size_t)snprintf(text, size, "one of ");
        for (const char *c = key->choices; *c && used + 3 < size; c++) {
            if (*c == '|') {
                text[used++] = ',';
                text[used++] = ' ';
            } else {
                text[used++] = *c;
            }
        }
        text[used] = '\0';
        return;
    }
    case ND_KEY_TEXT:
        break;
    }
    snprintf(text, size, "a line of text up to %d bytes, without \"", text_limit(key));
}

/* Records "dist.gradient_wire = int8 is now dist.grad_comm_dtype = int8" for the warning. */
static void record_old_name(nd_config *config, const nd_config_alias *alias, const char *value,
                            const char *new_value)
{
    const size_t used = strlen(config->old_names);
    snprintf(config->old_names + used, sizeof config->old_names - used,
             "%s%s.%s = %.40s is now %s.%s = %.40s", used ? "; " : "", alias->section, alias->name,
             value, alias->new_section, alias->new_name, new_value);
}

nd_status nd_config_set_key(nd_config *config, const char *section, const char *name,
                            const char *value, const char *origin)
{
    const nd_config_alias *alias = nd_config_alias_find(section, name);
    char new_value[ND_CONFIG_TEXT_MAX];
    if (alias) {
        ND_FAIL_IF(!nd_config_alias_value(alias, value, new_value, sizeof new_value), ND_ECONFIG,
                   "%s: [%s] %s = '%.200s' is not allowed; expected true or false", origin,
                   alias->section, alias->name, value);
        ND_TRY(nd_config_set_key(config, alias->new_section, alias->new_name, new_value, origin));
        if (!alias->spelling)
            record_old_name(config, alias, value, new_value);
        return ND_OK;
    }
    /* Earlier versions wrote state_bits = auto beside use_8bit_optim, which decides. */
    if (strcasecmp(name, "state_bits") == 0 && strcasecmp(value, "auto") == 0)
        return ND_OK;
    const nd_config_key *key = nd_config_key_find(section, name);
    if (!key) {
        const nd_config_key *nearest = nd_config_key_nearest(section, name);
        ND_FAIL_IF(!nearest, ND_ECONFIG,
                   "%s: unknown key '%s' in section [%s]; `nanochat_dist train --list-keys` prints "
                   "all keys",
                   origin, name, section);
        return ND_FAIL(ND_ECONFIG,
                       "%s: unknown key '%s' in section [%s]; the nearest known key is "
                       "'%s' in [%s]",
                       origin, name, section, nearest->name, nearest->section);
    }
    char allowed[256];
    nd_config_key_allowed(key, allowed, sizeof allowed);
    return ND_CHECK(assign(config, key, value), ND_ECONFIG,
                    "%s: [%s] %s = '%.200s' is not allowed; expected %s", origin, key->section,
                    key->name, value, allowed);
}

nd_status nd_config_set(nd_config *config, const char *assignment, const char *origin)
{
    char copy[2 * ND_CONFIG_TEXT_MAX];
    ND_FAIL_IF(strlen(assignment) >= sizeof copy, ND_ECONFIG,
               "%s: the assignment is longer than %zu bytes", origin, sizeof copy - 1);
    strcpy(copy, assignment);
    char *dot = strchr(copy, '.'), *equals = strchr(copy, '=');
    ND_FAIL_IF(!dot || !equals || dot > equals || dot == copy || equals == dot + 1, ND_ECONFIG,
               "%s: '%.200s' is not of the form section.key=value", origin, assignment);
    *dot = '\0';
    *equals = '\0';
    return nd_config_set_key(config, copy, dot + 1, equals + 1, origin);
}

void nd_config_leave_machine(nd_config *config)
{
    if (config->hardware.target == ND_TARGET_CUDA)
        config->hardware.target = ND_TARGET_AUTO;
    if (config->hardware.attention_backend == ND_ATTENTION_CUDNN)
        config->hardware.attention_backend = ND_ATTENTION_AUTO;
    config->hardware.cuda_graphs = false;
    config->hardware.threads = 0;
    config->hardware.cpu_isa = 0; /* auto */
    config->dist.grad_reduction = ND_REDUCTION_OWNERS;
}

int64_t nd_config_ffn_dim(const nd_config *config)
{
    return llround(config->model.ffn_mult * (double)config->model.hidden_dim);
}

int nd_config_state_bits(const nd_config *config)
{
    static const int bits[] = {
        [ND_STATE_BITS_32] = 32, [ND_STATE_BITS_8] = 8, [ND_STATE_BITS_4] = 4};
    return bits[config->optimizer.state_bits];
}

int nd_config_projector_bits(const nd_config *c)
{
    if (c->optimizer.galore_projector_bits == ND_PROJECTOR_BITS_AUTO)
        return nd_config_state_bits(c) == 32 ? 32 : 8;
    return c->optimizer.galore_projector_bits == ND_PROJECTOR_BITS_32 ? 32 : 8;
}

bool nd_config_uses_reference(const nd_config *config)
{
    return config->training.use_collider && config->training.collider_rule == ND_COLLIDER_EXCESS;
}

bool nd_config_filters(const nd_config *config, int64_t step)
{
    /* Divided, not multiplied: 55 / 100 is 0.55 as it is read, 0.55 * 100 is more than 55. */
    const double at = (double)step / (double)config->training.total_steps;
    return config->training.use_collider && at >= config->training.collider_from &&
           at < config->training.collider_until;
}

bool nd_config_has_rounds(const nd_config *config)
{
    return config->dist.workers > 1 || config->dist.sync_every > 1;
}

size_t nd_config_part_bytes(const nd_config *config)
{
    return config->dist.part_kib > 0 ? (size_t)8192 << config->dist.part_kib : 0;
}

int64_t nd_config_micro_batch(const nd_config *config)
{
    if (config->training.micro_batch_size > 0)
        return config->training.micro_batch_size;
    const int64_t part = config->training.batch_size / config->dist.workers;
    int64_t micro = 1;
    while (part % (2 * micro) == 0 && part / (2 * micro) >= 8)
        micro *= 2;
    return micro;
}

nd_status nd_config_find(const char *name, const char *what, char *path, size_t size)
{
    static const char *const places[] = {"",
                                         "/../share/nanochat_dist/configs/",
                                         "/../share/nanochat_dist/configs/e3/",
                                         "/../share/nanochat_dist/configs/models/",
                                         "/../../configs/",
                                         "/../../configs/e3/",
                                         "/../../configs/models/"};
    const int count = sizeof places / sizeof *places;
    const size_t length = strlen(name);
    char with_ending[ND_CONFIG_TEXT_MAX + 8];
    const nd_status status = nd_program_file_find(places, count, name, what, path, size);
    if (status == ND_OK || length > ND_CONFIG_TEXT_MAX ||
        (length > 4 && strcmp(name + length - 4, ".ini") == 0))
        return status;
    snprintf(with_ending, sizeof with_ending, "%s.ini", name);
    bool is_directory = false;
    nd_path_is_directory(name, &is_directory);
    nd_error_clear();
    const nd_status found = nd_program_file_find(places, count, with_ending, what, path, size);
    if (found == ND_OK || !is_directory || length >= size)
        return found;
    nd_error_clear();
    strcpy(path, name); /* reading it says what it is */
    return ND_OK;
}
