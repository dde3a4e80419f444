#include "cli/args.h"

#include "cli/cli.h"
#include "core/base/edit_distance.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void print_help(const nd_command *command, FILE *out)
{
    fprintf(out, "usage: %s\n\n%s\n\n", command->usage, command->about);
    for (int i = 0; i < command->arg_count; i++) {
        const nd_arg *arg = &command->args[i];
        char left[64];
        snprintf(left, sizeof left, "%s %s", arg->name, arg->metavar ? arg->metavar : "");
        fprintf(out, "  %-30s %s\n", left, arg->help);
    }
    fprintf(out, "  %-30s %s\n", "--help", "this text");
    fprintf(out, "  %-30s %s\n", "--version", "the version, how it was built, and its libraries");
}

/* The option nearest to `name`; NULL where none is near. */
static const nd_arg *nearest(const nd_command *command, const char *name)
{
    const nd_arg *best = NULL;
    int best_distance = 0;
    for (int i = 0; i < command->arg_count; i++) {
        const int distance =
            nd_name_distance(name + strspn(name, "-"), command->args[i].name + strlen("--"));
        if (distance >= 0 && (!best || distance < best_distance)) {
            best = &command->args[i];
            best_distance = distance;
        }
    }
    return best;
}

static nd_status refuse_option(const nd_command *command, const char *text, size_t length)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    const nd_arg *near = nearest(command, name);
    ND_FAIL_IF(near, ND_ECONFIG, "unknown option '%s'; the nearest is %s (see --help)", name,
               near->name);
    return ND_FAIL(ND_ECONFIG, "unknown option '%s' (see --help)", name);
}

/* NaN for an unknown suffix. */
static long double suffix_scale(const char *suffix)
{
    static const struct {
        const char *suffix;
        long double scale;
    } scales[] = {{"", 1}, {"K", 1e3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}};
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
        if (strcmp(suffix, scales[i].suffix) == 0)
            return scales[i].scale;
    return NAN;
}

static nd_status assign_value(const nd_arg *arg, const char *text)
{
    char *end;
    switch (arg->type) {
    case ND_ARG_TEXT:
        ND_FAIL_IF(*text == '\0', ND_ECONFIG, "%s is empty; it needs a value: %s %s", arg->name,
                   arg->name, arg->metavar);
        *(const char **)arg->value = text;
        return ND_OK;
    case ND_ARG_TEXT_OR_EMPTY:
        *(const char **)arg->value = text;
        return ND_OK;
    case ND_ARG_INT: {
        const long double number = strtold(text, &end), value = number * suffix_scale(end);
        ND_FAIL_IF(end == text || strpbrk(text, "xX") || floorl(value) != value, ND_ECONFIG,
                   "%s: '%.80s' is not a whole number", arg->name, text);
        ND_FAIL_IF(!(value >= 0.0L && value < 0x1p63L), ND_ECONFIG,
                   "%s: '%.80s' is not a whole number of 0 or more", arg->name, text);
        *(int64_t *)arg->value = (int64_t)value;
        return ND_OK;
    }
    case ND_ARG_DOUBLE: {
        const double value = strtod(text, &end);
        ND_FAIL_IF(end == text || *end || strpbrk(text, "xX") || !isfinite(value), ND_ECONFIG,
                   "%s: '%.80s' is not a number", arg->name, text);
        *(double *)arg->value = value;
        return ND_OK;
    }
    case ND_ARG_APPEND: {
        nd_arg_list *list = arg->value;
        ND_FAIL_IF(list->count == ND_ARG_LIST_MAX, ND_ECONFIG, "%s: given more than %d times",
                   arg->name, ND_ARG_LIST_MAX);
        list->items[list->count++] = text;
        return ND_OK;
    }
    case ND_ARG_FLAG:
        break;
    }
    return ND_FAIL(ND_ECONFIG, "%s takes no value", arg->name);
}

nd_status nd_args_check_range(const char *name, int64_t value, int64_t min, int64_t max)
{
    return ND_CHECK(value >= min && value <= max, ND_ECONFIG,
                    "%s is %lld; expected a whole number from %lld to %lld", name, (long long)value,
                    (long long)min, (long long)max);
}

static nd_status parse_option(const nd_command *command, int argc, char **argv, int *at,
                              uint64_t *given)
{
    const char *text = argv[*at], *equals = strchr(text, '=');
    const size_t length = equals ? (size_t)(equals - text) : strlen(text);
    const nd_arg *arg = NULL;
    for (int i = 0; i < command->arg_count; i++)
        if (strlen(command->args[i].name) == length &&
            strncmp(command->args[i].name, text, length) == 0)
            arg = &command->args[i];
    if (!arg)
        return refuse_option(command, text, length);
    if (arg->type == ND_ARG_FLAG && !equals) {
        *(bool *)arg->value = true;
        return ND_OK;
    }
    const uint64_t bit = UINT64_C(1) << (arg - command->args);
    ND_FAIL_IF(arg->type != ND_ARG_APPEND && *given & bit, ND_ECONFIG, "%s is given twice",
               arg->name);
    *given |= bit;
    if (equals)
        return assign_value(arg, equals + 1);
    ND_FAIL_IF(*at + 1 >= argc, ND_ECONFIG, "%s needs a value: %s %s", arg->name, arg->name,
               arg->metavar);
    return assign_value(arg, argv[++*at]);
}

/* Prints what --help and --version ask for. Returns whether it was asked for. */
static bool answer(const nd_command *command, const char *word)
{
    const bool help = nd_cli_is_help(word), version = nd_cli_is_version(word);
    if (help)
        print_help(command, stdout);
    if (version)
        nd_cli_print_version(stdout);
    return help || version;
}

nd_status nd_args_parse(const nd_command *command, int argc, char **argv, nd_arg_rest *rest,
                        bool *helped)
{
    uint64_t given = 0;
    bool options_end = false;
    *helped = false;
    if (rest)
        *rest = (nd_arg_rest){argv + 1, 0};
    for (int i = 1; i < argc; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) {
            options_end = true;
            continue;
        }
        *helped = !options_end && answer(command, argv[i]);
        if (*helped)
            return ND_OK;
        if (!options_end && argv[i][0] == '-' && argv[i][1] != '\0') {
            ND_TRY(parse_option(command, argc, argv, &i, &given));
            continue;
        }
        ND_FAIL_IF(!rest, ND_ECONFIG, "unexpected argument '%.80s' (see --help)", argv[i]);
        rest->items[rest->count++] = argv[i];
    }
    return ND_OK;
}
