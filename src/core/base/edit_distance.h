/* The distance between two names, for suggestions in error messages. */
#pragma once

/* Case-insensitive Levenshtein distance between the first 63 characters of each. */
int nd_edit_distance(const char *a, const char *b);
