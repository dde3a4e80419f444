/* Listing directories and moving their entries. A directory that cannot be listed is an error,
 * never an empty directory. All paths are shorter than PATH_MAX. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>

typedef struct nd_names {
    char **list; /* in the order of their bytes */
    int count;
} nd_names;

/* The names in a directory, without "." and "..". A directory that does not exist has none; a
 * dangling symbolic link is an error. The caller frees them. Errors: ND_EIO with the path and the
 * system's reason, ND_ENOMEM; *names is then empty. */
nd_status nd_directory_names(const char *path, nd_names *names);
void nd_names_free(nd_names *names);

/* Whether the path exists, if only as a dangling symbolic link. Errors: ND_EIO when unknown. */
nd_status nd_path_exists(const char *path, bool *exists);

/* Whether the path is a directory and not a symbolic link to one. Errors: as nd_path_exists. */
nd_status nd_path_is_directory(const char *path, bool *is_directory);

/* Whether both paths lead to the same file or directory. */
bool nd_path_same(const char *a, const char *b);

/* Whether the path still leads to the open file: nobody has renamed, removed or replaced it. */
bool nd_path_is_open_file(const char *path, int file);

/* Renames; fails if `to` exists, even as an empty directory. After a failure *cross_device (may be
 * NULL) says whether the two are on different file systems. Errors: ND_EIO with both paths and the
 * reason. */
nd_status nd_rename_new(const char *from, const char *to, bool *cross_device);

/* Whether this file system can fsync a directory. If not, nd_path_sync skips directories, and
 * renames and new files may be lost when the machine crashes. */
bool nd_directory_can_sync(const char *path);
