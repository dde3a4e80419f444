/* What programs that run tests in Criterion's place share: the list of the tests, and what is said
 * of one. */
#pragma once

#include <criterion/criterion.h>

#include <stdarg.h>

/* The first of the program's tests and suites; the others follow by `next`, in their order. */
extern nd_standin_test *nd_standin_tests;

/* Prints where and what did not hold, and the message, of `format` and its values unless that is
 * NULL. */
void nd_standin_report(const char *file, int line, const char *what, const char *format,
                       va_list arguments);

/* Seconds since some moment. */
double nd_standin_now(void);
