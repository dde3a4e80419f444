/* Reads and writes INI files. iniparser parses them, but ignores duplicate keys, long lines and
 * keys outside sections, so a scan finds those first; it also knows line numbers for messages. */
#include "core/base/close.h"
#include "core/config/config.h"
#include "core/config/config_keys.h"

#include <ctype.h>
#include <errno.h>
#include <iniparser.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { LINES_MAX = 4096 };

/* The position of each key in a file. */
typedef struct key_position {
    char section[64];
    char name[64];
    int line;
    char *quoted; /* text between quotes, or NULL: iniparser's versions differ in \\ */
} key_position;

typedef struct scan {
    const char *path;
    key_position *places;
    int count;
} scan;

static char *trim_spaces(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

static int line_of(const scan *s, const char *section, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (strcasecmp(s->places[i].section, section) == 0 &&
            strcasecmp(s->places[i].name, name) == 0)
            return s->places[i].line;
    return 0;
}

static bool known_section(const char *section)
{
    for (int i = 0; i < nd_config_key_count; i++)
        if (strcasecmp(nd_config_keys[i].section, section) == 0)
            return true;
    return false;
}

static nd_status scan_section(const scan *s, int number, char *text, char *section, size_t size)
{
    char *end = strchr(text, ']');
    ND_FAIL_IF(!end, ND_ECONFIG, "%s:%d: '%.80s' opens a section without ']'", s->path, number,
               text);
    *end = '\0';
    char *rest = trim_spaces(end + 1);
    ND_FAIL_IF(*rest, ND_ECONFIG,
               "%s:%d: '%.80s' follows a section's name; move it to a line of its own", s->path,
               number, rest);
    const char *name = trim_spaces(text + 1);
    ND_FAIL_IF(!known_section(name), ND_ECONFIG,
               "%s:%d: unknown section [%.60s]; sections are [model], [training], [optimizer], "
               "[data], [hardware], [dist], [logging]",
               s->path, number, name);
    snprintf(section, size, "%s", name);
    return ND_OK;
}

/* A key under both names. Earlier versions wrote use_8bit_optim too: see check_state_bits. */
static nd_status check_both_names(const scan *s, int number, const char *section, const char *name)
{
    for (int i = 0; i < s->count; i++) {
        const key_position *place = &s->places[i];
        const bool is_new = nd_config_alias_is(place->section, place->name, section, name);
        const bool is_old = nd_config_alias_is(section, name, place->section, place->name);
        ND_FAIL_IF((is_new || is_old) && strcasecmp(is_new ? name : place->name, "state_bits") != 0,
                   ND_ECONFIG,
                   "%s:%d: '%s' and '%s' on line %d are the same key; keep '%s', its present name",
                   s->path, number, name, place->name, place->line, is_new ? name : place->name);
    }
    return ND_OK;
}

static nd_status scan_quoted(const scan *s, int number, const char *value, key_position *place)
{
    const char quotes[] = {*value, '\0'};
    const size_t length = strcspn(value + 1, quotes);
    ND_FAIL_IF(!value[1 + length], ND_ECONFIG, "%s:%d: '%.80s' lacks its closing quotation mark",
               s->path, number, value);
    const char *rest = value + 2 + length + strspn(value + 2 + length, " \t");
    ND_FAIL_IF(*rest && *rest != '#' && *rest != ';', ND_ECONFIG,
               "%s:%d: '%.80s' follows the closing quotation mark; only a comment may", s->path,
               number, rest);
    place->quoted = strndup(value + 1, length);
    return ND_CHECK(place->quoted, ND_ENOMEM, "no memory for a value");
}

/* The parser ends a value at these characters; in a path they may be meant. */
static nd_status check_comment(const scan *s, int number, const char *section, const char *name,
                               const char *value)
{
    const nd_config_key *key = nd_config_key_find(section, name);
    const size_t length = strcspn(value, "#;");
    return ND_CHECK(!key || key->type != ND_KEY_TEXT || length == 0 || !value[length] ||
                        isspace((unsigned char)value[length - 1]),
                    ND_ECONFIG,
                    "%s:%d: '%.200s': '%c' begins a comment; put the value in quotation marks, or "
                    "a space before the comment",
                    s->path, number, value, value[length]);
}

static nd_status scan_key(scan *s, int number, char *text, const char *section)
{
    char *equals = strchr(text, '=');
    ND_FAIL_IF(!equals, ND_ECONFIG,
               "%s:%d: '%.80s' is neither a section, a comment nor key = value", s->path, number,
               text);
    *equals = '\0';
    const char *name = trim_spaces(text);
    ND_FAIL_IF(*name == '\0', ND_ECONFIG, "%s:%d: no key before '='", s->path, number);
    ND_FAIL_IF(*section == '\0', ND_ECONFIG, "%s:%d: key '%.60s' comes before any [section]",
               s->path, number, name);
    const int earlier = line_of(s, section, name);
    ND_TRY(check_both_names(s, number, section, name));
    ND_FAIL_IF(earlier, ND_ECONFIG, "%s:%d: key '%.60s' in [%s] is given twice; first on line %d",
               s->path, number, name, section, earlier);
    ND_FAIL_IF(s->count == LINES_MAX, ND_ECONFIG, "%s:%d: more than %d keys", s->path, number,
               LINES_MAX);
    key_position *place = &s->places[s->count++];
    snprintf(place->section, sizeof place->section, "%s", section);
    snprintf(place->name, sizeof place->name, "%s", name);
    place->line = number;
    const char *value = trim_spaces(equals + 1);
    return *value == '"' || *value == '\'' ? scan_quoted(s, number, value, place)
                                           : check_comment(s, number, section, name, value);
}

/* Rejects what the parser would skip: NUL bytes, as after a crash, and a byte order mark. */
static nd_status check_bytes(const scan *s, FILE *file)
{
    int number = 1, byte = fgetc(file);
    ND_FAIL_IF(byte == 0xef, ND_ECONFIG, "%s:1: begins with a byte order mark; save it without",
               s->path);
    for (; byte != EOF && byte != '\0'; byte = fgetc(file))
        number += byte == '\n';
    ND_FAIL_IF(byte == '\0', ND_ECONFIG, "%s:%d: a NUL byte: damaged, or not a text file", s->path,
               number);
    rewind(file);
    return ND_OK;
}

static nd_status scan_lines(scan *s, FILE *file)
{
    char line[ND_CONFIG_LINE_MAX + 2], section[64] = "";
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        const size_t length = strlen(line);
        ND_FAIL_IF(length > 0 && line[length - 1] != '\n' && !feof(file), ND_ECONFIG,
                   "%s:%d: a line longer than %d bytes", s->path, number, ND_CONFIG_LINE_MAX);
        char *text = trim_spaces(line);
        if (*text == '\0' || *text == '#' || *text == ';')
            continue;
        const size_t end = strlen(text);
        ND_FAIL_IF(text[end - 1] == '\\', ND_ECONFIG, "%s:%d: lines are not continued with '\\'",
                   s->path, number);
        if (*text == '[')
            ND_TRY(scan_section(s, number, text, section, sizeof section));
        else
            ND_TRY(scan_key(s, number, text, section));
    }
    return ferror(file) ? ND_FAIL(ND_ECONFIG, "%s: %s", s->path, strerror(errno)) : ND_OK;
}

static int ignore_iniparser_error(const char *format, ...)
{
    (void)format;
    return 0;
}

/* For a file with use_8bit_optim and state_bits: whether the former has no effect. It is false by
 * default, and state_bits = auto, a value of earlier versions, leaves the choice to it. */
static nd_status check_state_bits(const scan *s, const dictionary *values,
                                  const key_position *place, const char *value, bool *ineffective)
{
    bool eight;
    const char *bits = iniparser_getstring(values, "optimizer:state_bits", NULL);
    *ineffective = false;
    if (!bits || strcasecmp(place->name, "use_8bit_optim") != 0 ||
        !nd_config_parse_bool(value, &eight) || strcasecmp(bits, "auto") == 0)
        return ND_OK;
    *ineffective = !eight || strcmp(bits, "8") == 0;
    return ND_CHECK(*ineffective, ND_ECONFIG,
                    "%s:%d: use_8bit_optim = true contradicts [optimizer] state_bits = %s on "
                    "line %d; keep one of them",
                    s->path, place->line, bits, line_of(s, "optimizer", "state_bits"));
}

static nd_status assign_all(nd_config *config, const scan *s, const dictionary *values)
{
    for (int i = 0; i < s->count; i++) {
        const key_position *place = &s->places[i];
        char full[160], origin[ND_CONFIG_TEXT_MAX + 16];
        snprintf(full, sizeof full, "%s:%s", place->section, place->name);
        snprintf(origin, sizeof origin, "%s:%d", s->path, place->line);
        const char *value = place->quoted ? place->quoted : iniparser_getstring(values, full, NULL);
        ND_FAIL_IF(!value, ND_ECONFIG, "%s: key '%s' has no value", origin, place->name);
        bool ineffective;
        ND_TRY(check_state_bits(s, values, place, value, &ineffective));
        if (ineffective)
            continue;
        ND_TRY(nd_config_set_key(config, place->section, place->name, value, origin));
    }
    return ND_OK;
}

static void release(scan *s)
{
    for (int i = 0; i < s->count; i++)
        free(s->places[i].quoted);
    free(s->places);
}

nd_status nd_config_read_file(nd_config *config, const char *path)
{
    ND_CLEANUP(release) scan s = {path, calloc(LINES_MAX, sizeof(key_position)), 0};
    struct stat info;
    /* The file is read twice, which a pipe does not allow. */
    ND_FAIL_IF(stat(path, &info) == 0 && !S_ISREG(info.st_mode), ND_ECONFIG,
               "%s: not a regular file", path);
    ND_FAIL_IF(!s.places, ND_ENOMEM, "%s: no memory to read it", path);
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "r");
    ND_FAIL_IF(!file, ND_ECONFIG, "%s: %s", path, strerror(errno));
    ND_TRY(check_bytes(&s, file));
    ND_TRY(scan_lines(&s, file));
    iniparser_set_error_callback(ignore_iniparser_error);
    dictionary *values = iniparser_load(path);
    ND_FAIL_IF(!values, ND_ECONFIG, "%s: not an INI file that iniparser can read", path);
    const nd_status status = assign_all(config, &s, values);
    iniparser_freedict(values);
    return status;
}

/* Whether key i is the first of its section in the table. */
static bool begins_section(int i)
{
    return i == 0 || strcmp(nd_config_keys[i].section, nd_config_keys[i - 1].section) != 0;
}

nd_status nd_config_write(const nd_config *config, FILE *out)
{
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        if (begins_section(i))
            fprintf(out, "%s[%s]\n", i > 0 ? "\n" : "", key->section);
        char text[ND_CONFIG_TEXT_MAX];
        nd_config_key_format(config, key, text, sizeof text);
        if (key->type == ND_KEY_TEXT)
            fprintf(out, "%s = \"%s\"\n", key->name, text);
        else
            fprintf(out, "%s = %s\n", key->name, text);
    }
    return ferror(out) ? ND_FAIL(ND_EIO, "writing the configuration: %s", strerror(errno)) : ND_OK;
}

/* Whether changing the key in the middle of a run may change its results. */
static bool affects_results(const nd_config_key *key)
{
    static const char *const sections[] = {"model", "training", "optimizer", "data"};
    static const char *const dist_keys[] = {"workers",          "sync_every",
                                            "outer_lr",         "outer_momentum",
                                            "outer_comm_dtype", "outer_state_bits"};
    bool affects = false;
    for (size_t s = 0; s < sizeof sections / sizeof sections[0]; s++)
        affects |= strcmp(key->section, sections[s]) == 0;
    for (size_t k = 0; k < sizeof dist_keys / sizeof dist_keys[0]; k++)
        affects |= strcmp(key->section, "dist") == 0 && strcmp(key->name, dist_keys[k]) == 0;
    return affects;
}

int nd_config_write_differences(const nd_config *before, const nd_config *now, FILE *out)
{
    int count = 0;
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        char old[ND_CONFIG_TEXT_MAX], new[ND_CONFIG_TEXT_MAX];
        nd_config_key_format(before, key, old, sizeof old);
        nd_config_key_format(now, key, new, sizeof new);
        if (!affects_results(key) || strcmp(old, new) == 0)
            continue;
        fprintf(out, "%s.%s was %s, is %s\n", key->section, key->name, old, new);
        count++;
    }
    return count;
}

void nd_config_write_facts(const nd_config *config, const char *const *without, FILE *out)
{
    for (int i = 0; i < nd_config_key_count; i++) {
        char name[160], value[ND_CONFIG_TEXT_MAX];
        bool left_out = false;
        snprintf(name, sizeof name, "%s.%s", nd_config_keys[i].section, nd_config_keys[i].name);
        for (const char *const *w = without; *w; w++)
            left_out |= strcmp(*w, name) == 0;
        nd_config_key_format(config, &nd_config_keys[i], value, sizeof value);
        if (!left_out)
            fprintf(out, "%s = %s\n", name, value);
    }
}

void nd_config_write_markdown(FILE *out)
{
    fputs("# Configuration keys\n\nGenerated by `nanochat_dist train --print-config-docs`; do not "
          "edit.\n",
          out);
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        if (begins_section(i))
            fprintf(out,
                    "\n## [%s]\n\n| key | default | allowed | what it does |\n"
                    "|---|---|---|---|\n",
                    key->section);
        char allowed[256];
        nd_config_key_allowed(key, allowed, sizeof allowed);
        fprintf(out, "| `%s` | `%s` | %s | %s |\n", key->name,
                *key->default_text ? key->default_text : "(empty)", allowed, key->help);
    }
}

void nd_config_write_help(FILE *out)
{
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        if (begins_section(i))
            fprintf(out, "\n[%s]\n", key->section);
        fprintf(out, "  %-24s %s (default %s)\n", key->name, key->help,
                *key->default_text ? key->default_text : "empty");
    }
}
