#include "core/base/facts.h"

#include <stdio.h>
#include <string.h>

static size_t line_length(const char *line)
{
    return strcspn(line, "\n");
}

static const char *next_line(const char *line)
{
    const size_t length = line_length(line);
    return line + length + (line[length] == '\n');
}

static size_t key_length(const char *line)
{
    const char *equals = memmem(line, line_length(line), " = ", 3);
    return equals ? (size_t)(equals - line) : line_length(line);
}

static bool keys_equal(const char *a, const char *b)
{
    const size_t length = key_length(a);
    return length == key_length(b) && memcmp(a, b, length) == 0;
}

static bool has_key(const char *text, const char *line)
{
    for (; *text; text = next_line(text))
        if (keys_equal(text, line))
            return true;
    return false;
}

static void copy_value(const char *line, char *value, size_t size)
{
    const size_t key = key_length(line), length = line_length(line);
    snprintf(value, size, "%.*s", (int)(length > key ? length - key - 3 : 0), line + key + 3);
}

bool nd_facts_differ(const char *first, const char *second, nd_fact_difference *d)
{
    while (*first && line_length(first) == line_length(second) &&
           memcmp(first, second, line_length(first)) == 0) {
        first = next_line(first);
        second = next_line(second);
    }
    if (!*first && !*second)
        return false;
    const bool both = *first && *second && keys_equal(first, second);
    /* If the second text has this key further down, its lines up to there are new. */
    const bool in_first = both || (*first && !has_key(second, first));
    const bool in_second = both || !in_first;
    const char *line = in_first ? first : second;
    snprintf(d->key, sizeof d->key, "%.*s", (int)key_length(line), line);
    strcpy(d->first, "absent");
    strcpy(d->second, "absent");
    if (in_first)
        copy_value(first, d->first, sizeof d->first);
    if (in_second)
        copy_value(second, d->second, sizeof d->second);
    return true;
}
