/* Texts of lines "key = value", which say what something is: two of them are equal or differ in a first
 * key that can be named. */
#pragma once

#include <stdbool.h>

typedef struct nd_fact_difference {
    char key[256];
    char first[256], second[256]; /* the values; "absent" where a text has no such key */
} nd_fact_difference;

/* Whether two texts differ, and the first key in which they do. Keys come in the same order in both. */
bool nd_facts_differ(const char *first, const char *second, nd_fact_difference *difference);
