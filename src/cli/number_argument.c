#include "cli/number_argument.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double scale_of(const char *suffix)
{
    static const struct {
        const char *suffix;
        double scale;
    } scales[] = {{"", 1}, {"K", 1e3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}};
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        if (strcmp(suffix, scales[i].suffix) == 0)
            return scales[i].scale;
    }
    return NAN;
}

nd_status nd_cli_parse_integer(const char *flag, const char *text, int64_t least, int64_t most,
                               int64_t *value)
{
    char *end;
    const double number = strtod(text, &end) * scale_of(end);
    if (end == text || !(number >= (double)least && number <= (double)most) ||
        floor(number) < number)
        return ND_FAIL(ND_ECONFIG, "%s is '%s'; expected a whole number from %lld to %lld", flag,
                       text, (long long)least, (long long)most);
    *value = (int64_t)number;
    return ND_OK;
}

nd_status nd_cli_parse_fraction(const char *flag, const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    if (end == text || *end != '\0' || !(*value >= 0 && *value < 1))
        return ND_FAIL(ND_ECONFIG, "%s is '%s'; expected a number of at least 0 and less than 1",
                       flag, text);
    return ND_OK;
}
