/* How far apart two names are, to suggest the one that was meant. */
#ifndef ND_CORE_BASE_EDIT_DISTANCE_H
#define ND_CORE_BASE_EDIT_DISTANCE_H

/* Levenshtein distance without regard to case, of the first 63 characters. */
int nd_edit_distance(const char *a, const char *b);

#endif
