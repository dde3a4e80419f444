#include "core/base/edit_distance.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Case-insensitive Levenshtein distance between the first 63 characters of each. */
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    const int m = (int)strnlen(a, LONGEST), n = (int)strnlen(b, LONGEST);
    int row[LONGEST + 1];
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; i <= m; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            const int above = row[j];
            const int substitution = diagonal + (strncasecmp(a + i - 1, b + j - 1, 1) != 0);
            const int gap = (above < row[j - 1] ? above : row[j - 1]) + 1;
            row[j] = substitution < gap ? substitution : gap;
            diagonal = above;
        }
    }
    return row[n];
}

static bool are_initials(const char *written, const char *known)
{
    int words = 0;
    for (const char *at = known; *at; at++) {
        if (at > known && at[-1] != '_' && at[-1] != '-')
            continue;
        if (tolower((unsigned char)*written++) != tolower((unsigned char)*at))
            return false;
        words++;
    }
    return *written == '\0' && words > 1;
}

int nd_name_distance(const char *written, const char *known)
{
    const int edits = edit_distance(written, known);
    const size_t m = strnlen(written, 63), n = strlen(known); /* of which edits are counted */
    if (edits > 1 && ((m > 2 && strcasestr(known, written)) || are_initials(written, known)))
        return 1;
    return 3 * (size_t)edits <= (m > n ? m : n) ? edits : -1;
}
