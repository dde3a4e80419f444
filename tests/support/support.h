/* What tests share. */
#pragma once

#include "core/base/error.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

/* Criterion's assertions store an int in a one-bit field. */
#pragma GCC diagnostic ignored "-Wconversion"

/* Asserts that a call succeeds and shows the error's message when it does not. */
#define ND_ASSERT_OK(expression)                                                                   \
    do {                                                                                           \
        nd_error_clear();                                                                          \
        const nd_status nd_assert_status_ = (expression);                                          \
        cr_assert(nd_assert_status_ == ND_OK, "%s: %s", #expression, nd_error_get()->message);     \
    } while (0)

/* For simulated ranks, in which an assertion of Criterion must not leave by longjmp: returns an
 * error that names the line. The function has a `comm`. */
#define ND_HOLDS(condition)                                                                        \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return ND_FAIL(ND_EINTERNAL, "rank %d, line %d: %s does not hold", comm->rank,         \
                           __LINE__, #condition);                                                  \
    } while (0)

/* Asserts that a call fails with `expected` and a message that contains `text`. */
#define ND_ASSERT_FAILS(expression, expected, text)                                                \
    do {                                                                                           \
        nd_error_clear();                                                                          \
        const nd_status nd_assert_status_ = (expression);                                          \
        cr_assert(nd_assert_status_ == (expected), "%s: status %d, expected %d (%s)", #expression, \
                  (int)nd_assert_status_, (int)(expected), nd_error_get()->message);               \
        cr_assert(strstr(nd_error_get()->message, (text)) != NULL, "%s: \"%s\" lacks \"%s\"",      \
                  #expression, nd_error_get()->message, (text));                                   \
    } while (0)

/* A fresh directory for one test, removed by nd_test_remove_directory. The result is static. */
const char *nd_test_directory(void);
void nd_test_remove_directory(const char *path);

/* Runs a shell command; returns its exit code (128 + signal when killed) and up to `size` bytes of
 * what it printed on both outputs. */
int nd_test_shell(char *output, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same under mpirun with this many ranks, on one machine whatever its number of cores. */
int nd_test_mpirun(char *output, size_t size, int ranks, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Waits, 10 s at most, for every process whose command line matches the pattern to end, since a
 * launcher that has ended may be ahead of ranks that are ending; `left` gets those that did not. */
void nd_test_processes_left(char *left, size_t size, const char *pattern);

/* A whole file, NUL-terminated; the caller frees it. NULL when it cannot be read. */
char *nd_test_read_file(const char *path, size_t *bytes);
void nd_test_write_file(const char *path, const void *bytes, size_t size);
