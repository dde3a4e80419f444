/* Runs the tests of a program for the tsan preset: see criterion/criterion.h. */
#include "standin_tests.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JOBS_MAX = 64 };

typedef struct running {
    pid_t pid;
    nd_standin_test *test;
    double started;
} running;

typedef struct tally {
    int tested, passing, failing, crashing;
} tally;

void nd_standin_fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    nd_standin_report(file, line, what, format, arguments);
    va_end(arguments);
    _exit(1);
}

static const nd_standin_options *options_of_suite(const char *suite)
{
    static const nd_standin_options none;
    for (const nd_standin_test *t = nd_standin_tests; t; t = t->next)
        if (!t->run && strcmp(t->suite, suite) == 0)
            return &t->options;
    return &none;
}

/* In the child. */
static void run(const nd_standin_test *test)
{
    const nd_standin_options *suite = options_of_suite(test->suite);
    const double timeout = test->options.timeout > 0 ? test->options.timeout : suite->timeout;
    /* ThreadSanitizer makes everything several times slower. */
    alarm((unsigned)(10 * timeout));
    void (*const init)(void) = test->options.init ? test->options.init : suite->init;
    void (*const fini)(void) = test->options.fini ? test->options.fini : suite->fini;
    if (init)
        init();
    test->run();
    if (fini)
        fini();
    exit(0); /* ThreadSanitizer turns this into 66 when it has found something */
}

static void start(nd_standin_test *test, running *slot)
{
    printf("[RUN ] %s::%s\n", test->suite, test->name);
    fflush(NULL);
    slot->test = test;
    slot->started = nd_standin_now();
    slot->pid = fork();
    if (slot->pid == 0)
        run(test);
}

static void finish(running *slot, int status, tally *t)
{
    const double seconds = nd_standin_now() - slot->started;
    const bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == ND_STANDIN_SKIPPED;
    const bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    slot->pid = 0;
    if (skipped) {
        printf("[SKIP] %s::%s\n", slot->test->suite, slot->test->name);
        return;
    }
    t->tested++;
    t->passing += passed;
    t->failing += !passed && WIFEXITED(status);
    t->crashing += WIFSIGNALED(status);
    if (WIFSIGNALED(status))
        printf("[----] %s::%s: killed by signal %d\n", slot->test->suite, slot->test->name,
               WTERMSIG(status));
    printf("[%s] %s::%s: (%.2fs)\n", passed ? "PASS" : "FAIL", slot->test->suite, slot->test->name,
           seconds);
}

static void finish_one(running *slots, tally *t)
{
    int status;
    const pid_t pid = wait(&status);
    for (int i = 0; i < JOBS_MAX; i++)
        if (pid > 0 && slots[i].pid == pid)
            finish(&slots[i], status, t);
}

int main(int argc, char **argv)
{
    int jobs = 1, busy = 0;
    running slots[JOBS_MAX] = {0};
    tally t = {0};
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--jobs") == 0)
            jobs = atoi(argv[i + 1]);
    jobs = jobs < 1 ? 1 : jobs > JOBS_MAX ? JOBS_MAX : jobs;
    for (nd_standin_test *test = nd_standin_tests; test; test = test->next) {
        if (!test->run)
            continue;
        if (busy == jobs)
            finish_one(slots, &t);
        else
            busy++;
        running *slot = slots;
        while (slot->pid != 0)
            slot++;
        start(test, slot);
    }
    for (; busy > 0; busy--)
        finish_one(slots, &t);
    printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: %d \n", t.tested,
           t.passing, t.failing, t.crashing);
    return t.failing + t.crashing > 0;
}
