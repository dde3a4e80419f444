/* Descriptions as lines of "key = value", compared to name the first key in which they differ. */
#pragma once

#include <stdbool.h>

typedef struct nd_fact_difference {
    char key[256];
    char first[256], second[256]; /* the values; "absent" where a text has no such key */
} nd_fact_difference;

/* Whether two texts with the same order of keys differ, and the first key in which they do. */
bool nd_facts_differ(const char *first, const char *second, nd_fact_difference *difference);
