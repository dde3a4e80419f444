/* Which program this is: for logs, manifests and --version. */
#pragma once

#include <stddef.h>

/* "0.1.0" */
const char *nd_build_version(void);

/* The commit the program was built from, twelve digits, with "-dirty" when the tree had uncommitted
 * changes; "unknown" outside git. */
const char *nd_build_commit(void);

/* "Release, CUDA off, NCCL off, cuDNN off, compiler 12.2.0"; the build type also names the
 * sanitizers, if any. */
void nd_build_options(char *text, size_t size);
