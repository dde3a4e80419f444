/* How far apart two names are, to suggest the one that was meant. */
#pragma once

/* Levenshtein distance without regard to case, of the first 63 characters. */
int nd_edit_distance(const char *a, const char *b);
