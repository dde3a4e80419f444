/* The part of Criterion that the tests use, for the tsan preset only: Criterion starts its tests
 * through a memory arena at a fixed address, which ThreadSanitizer's layout leaves no room for.
 * Here every test is a fork() of the program. Messages and the closing line are Criterion's. */
#pragma once

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct nd_standin_options {
    void (*init)(void);
    void (*fini)(void);
    double timeout; /* seconds; 0: the suite's, or none */
    int sentinel;
} nd_standin_options;

typedef struct nd_standin_test {
    const char *suite, *name;
    void (*run)(void); /* NULL: the options of a suite */
    nd_standin_options options;
    struct nd_standin_test *next;
} nd_standin_test;

void nd_standin_add(nd_standin_test *test);
void nd_standin_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((noreturn));

#define ND_STANDIN_ADD(id, suite_name, test_name, function, ...)                                   \
    static nd_standin_test id = {suite_name, test_name, function, {__VA_ARGS__}, NULL};            \
    __attribute__((constructor)) static void id##_add(void)                                        \
    {                                                                                              \
        nd_standin_add(&id);                                                                       \
    }

#define ND_STANDIN_TEST(suite, name, ...)                                                          \
    static void suite##_##name##_run(void);                                                        \
    ND_STANDIN_ADD(suite##_##name##_test, #suite, #name, suite##_##name##_run, __VA_ARGS__)        \
    static void suite##_##name##_run(void)
#define ND_STANDIN_SUITE(suite, ...)                                                               \
    ND_STANDIN_ADD(suite##_suite, #suite, NULL, NULL, __VA_ARGS__)                                 \
    struct nd_standin_takes_the_semicolon

#define Test(...) ND_STANDIN_TEST(__VA_ARGS__, .sentinel = 0)
#define TestSuite(...) ND_STANDIN_SUITE(__VA_ARGS__, .sentinel = 0)

/* Assertions take a format and its values after what they compare. */
#define ND_FIRST(...) ND_FIRST_(__VA_ARGS__, 0)
#define ND_FIRST_(first, ...) first
#define ND_REST(...) ND_REST_(__VA_ARGS__, NULL)
#define ND_REST_(first, ...) __VA_ARGS__
#define ND_STANDIN_CHECK(held, what, ...)                                                          \
    do {                                                                                           \
        if (!(held))                                                                               \
            nd_standin_fail(__FILE__, __LINE__, what, __VA_ARGS__);                                \
    } while (0)

#define cr_assert(...) ND_STANDIN_CHECK(ND_FIRST(__VA_ARGS__), #__VA_ARGS__, ND_REST(__VA_ARGS__))
#define cr_assert_not(...)                                                                         \
    ND_STANDIN_CHECK(!(ND_FIRST(__VA_ARGS__)), "not " #__VA_ARGS__, ND_REST(__VA_ARGS__))
#define cr_assert_fail(...) ND_STANDIN_CHECK(false, "fail", ND_REST(0, __VA_ARGS__))
#define cr_assert_null(...)                                                                        \
    ND_STANDIN_CHECK((ND_FIRST(__VA_ARGS__)) == NULL, #__VA_ARGS__ " is null", ND_REST(__VA_ARGS__))
#define cr_assert_not_null(...)                                                                    \
    ND_STANDIN_CHECK((ND_FIRST(__VA_ARGS__)) != NULL, #__VA_ARGS__ " is not null",                 \
                     ND_REST(__VA_ARGS__))

#define ND_STANDIN_COMPARE(a, op, ...)                                                             \
    ND_STANDIN_CHECK((a)op(ND_FIRST(__VA_ARGS__)), #a " " #op " " #__VA_ARGS__,                    \
                     ND_REST(__VA_ARGS__))
#define cr_assert_eq(a, ...) ND_STANDIN_COMPARE(a, ==, __VA_ARGS__)
#define cr_assert_neq(a, ...) ND_STANDIN_COMPARE(a, !=, __VA_ARGS__)
#define cr_assert_lt(a, ...) ND_STANDIN_COMPARE(a, <, __VA_ARGS__)
#define cr_assert_leq(a, ...) ND_STANDIN_COMPARE(a, <=, __VA_ARGS__)
#define cr_assert_gt(a, ...) ND_STANDIN_COMPARE(a, >, __VA_ARGS__)
#define cr_assert_geq(a, ...) ND_STANDIN_COMPARE(a, >=, __VA_ARGS__)

#define cr_assert_str_eq(a, ...)                                                                   \
    ND_STANDIN_CHECK(strcmp((a), (ND_FIRST(__VA_ARGS__))) == 0, #a " equals " #__VA_ARGS__,        \
                     ND_REST(__VA_ARGS__))
#define cr_assert_str_neq(a, ...)                                                                  \
    ND_STANDIN_CHECK(strcmp((a), (ND_FIRST(__VA_ARGS__))) != 0, #a " differs from " #__VA_ARGS__,  \
                     ND_REST(__VA_ARGS__))
#define cr_assert_arr_eq(a, b, ...)                                                                \
    ND_STANDIN_CHECK(memcmp((a), (b), (ND_FIRST(__VA_ARGS__))) == 0, #a " equals " #b,             \
                     ND_REST(__VA_ARGS__))
#define cr_assert_arr_neq(a, b, ...)                                                               \
    ND_STANDIN_CHECK(memcmp((a), (b), (ND_FIRST(__VA_ARGS__))) != 0, #a " differs from " #b,       \
                     ND_REST(__VA_ARGS__))
#define cr_assert_float_eq(a, b, ...)                                                              \
    ND_STANDIN_CHECK(fabs((double)((a) - (b))) <= (double)(ND_FIRST(__VA_ARGS__)),                 \
                     #a " is near " #b, ND_REST(__VA_ARGS__))

enum { ND_STANDIN_SKIPPED = 77 }; /* exit code of a test that cannot run here */
#define cr_skip_test(...)                                                                          \
    do {                                                                                           \
        ND_STANDIN_LOG("skipped: " __VA_ARGS__);                                                   \
        fflush(NULL);                                                                              \
        _exit(ND_STANDIN_SKIPPED);                                                                 \
    } while (0)

#define ND_STANDIN_LOG(...)                                                                        \
    do {                                                                                           \
        fprintf(stderr, "[----] " __VA_ARGS__);                                                    \
        fputc('\n', stderr);                                                                       \
    } while (0)
#define cr_log_info(...) ND_STANDIN_LOG(__VA_ARGS__)
#define cr_log_warn(...) ND_STANDIN_LOG(__VA_ARGS__)
#define cr_log_error(...) ND_STANDIN_LOG(__VA_ARGS__)
