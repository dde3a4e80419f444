/* Runs the tests of a program for the tsan preset: see criterion/criterion.h. */
#include <criterion/criterion.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { JOBS_MAX = 64 };

typedef struct running {
    pid_t pid;
    nd_standin_test *test;
    struct timespec started;
} running;

typedef struct tally {
    int tested, passing, failing, crashing;
} tally;

static nd_standin_test *first_test, **last_test = &first_test;

void nd_standin_add(nd_standin_test *test)
{
    *last_test = test;
    last_test = &test->next;
}

void nd_standin_fail(const char *file, int line, const char *what, const char *format, ...)
{
    fprintf(stderr, "[----] %s:%d: Assertion Failed\n[----]   %s\n", file, line, what);
    if (format) {
        va_list arguments;
        va_start(arguments, format);
        fprintf(stderr, "[----]   ");
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
        va_end(arguments);
    }
    fflush(NULL);
    _exit(1);
}

static const nd_standin_options *options_of_suite(const char *suite)
{
    static const nd_standin_options none;
    for (const nd_standin_test *t = first_test; t; t = t->next)
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
    clock_gettime(CLOCK_MONOTONIC, &slot->started);
    slot->pid = fork();
    if (slot->pid == 0)
        run(test);
}

static void finish(running *slot, int status, tally *t)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double seconds = (double)(now.tv_sec - slot->started.tv_sec) +
                           (double)(now.tv_nsec - slot->started.tv_nsec) * 1e-9;
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
    for (nd_standin_test *test = first_test; test; test = test->next) {
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
