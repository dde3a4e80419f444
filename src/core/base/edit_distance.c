#include "core/base/edit_distance.h"

#include <string.h>
#include <strings.h>

int nd_edit_distance(const char *a, const char *b)
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
