/* The distance between two names, for suggestions in error messages. */
#pragma once

/* How far what was written is from a known name whose words are joined by '_' or '-': the edit
 * distance, and 1 at most where it is a part of three letters or more of the name or its words'
 * initials ("warmup" and "ws" of warmup_steps). -1 where it is not near: at more than a third of
 * the longer of the two. */
int nd_name_distance(const char *written, const char *known);
