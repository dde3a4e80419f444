/* One run at a time in a directory; a lock whose owner is gone is taken over. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/run/lock_owner.h"
#include "train/run/run_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(run_lock, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

static char output[16384];

static const char *lock_path(void)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/" ND_RUN_LOCK_NAME, nd_test_here.directory);
    return path;
}

/* In place of the C library's, so that a test can be a file system without file locks, or another
 * process that is faster. */
static bool no_file_locks;
static void (*before_lock)(void), (*before_rename)(void);

int flock(int file, int operation)
{
    if (before_lock) {
        void (*const act)(void) = before_lock;
        before_lock = NULL;
        act();
    }
    if (no_file_locks) {
        errno = ENOLCK;
        return -1;
    }
    return (int)syscall(SYS_flock, file, operation);
}

int rename(const char *from, const char *to)
{
    if (before_rename) {
        void (*const act)(void) = before_rename;
        before_rename = NULL;
        act();
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* A record that nobody has locked. */
static void leave_record(const nd_lock_owner *owner)
{
    char text[ND_LOCK_OWNER_TEXT_MAX];
    const int length = nd_lock_owner_format(owner, text, sizeof text);
    cr_assert_gt(length, 0);
    nd_test_write_file(lock_path(), text, (size_t)length);
}

static void taken_over(const nd_lock_owner *owner, const char *what)
{
    nd_run_lock *lock;
    leave_record(owner);
    nd_error_clear();
    cr_assert_eq(nd_run_lock_acquire(nd_test_here.directory, &lock), ND_OK, "%s: %s", what,
                 nd_error_get()->message);
    nd_run_lock_release(lock);
    cr_assert_neq(access(lock_path(), F_OK), 0, "%s: the lock is left", what);
}

/* A process number that nobody has. */
static int64_t ended_process(void)
{
    const pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return child;
}

Test(run_lock, a_directory_has_one_owner_who_is_named)
{
    nd_run_lock *lock, *second;
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld on host ", (long)getpid());
    ND_ASSERT_OK(nd_run_lock_acquire(nd_test_here.directory, &lock));
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &second), ND_ECONFIG, pid);
    nd_run_lock_release(lock);
    ND_ASSERT_OK(nd_run_lock_acquire(nd_test_here.directory, &lock));
    nd_run_lock_release(lock);
}

Test(run_lock, of_a_process_that_is_gone_is_taken_over)
{
    nd_lock_owner owner;
    nd_lock_owner_self(&owner);
    owner.locked = true;
    owner.pid = ended_process();
    taken_over(&owner, "no such process");
    nd_lock_owner_self(&owner);
    owner.process_start--;
    taken_over(&owner, "another process of the same number");
    nd_lock_owner_self(&owner);
    strcpy(owner.boot, "0b3e6f3a-0000-4000-8000-000000000000");
    taken_over(&owner, "the machine was started again");
    nd_lock_owner_self(&owner);
    owner.locked = true;
    owner.pid_namespace++;
    taken_over(&owner, "a container of this machine");
}

Test(run_lock, of_another_host_is_refused_with_what_to_do)
{
    nd_lock_owner self, owner;
    nd_run_lock *lock;
    nd_lock_owner_self(&self);
    owner = self;
    strcpy(owner.host, "far_away");
    strcpy(owner.boot, "0b3e6f3a-0000-4000-8000-000000000000");
    leave_record(&owner); /* made without a file lock, which would tell */
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &lock), ND_ECONFIG,
                    "on host far_away");
    cr_assert(strstr(nd_error_get()->message, "make sure that it has ended") != NULL);
    cr_assert(strstr(nd_error_get()->message, lock_path()) != NULL);
    cr_assert_eq(access(lock_path(), F_OK), 0);
}

Test(run_lock, of_another_host_is_taken_over_where_file_locks_or_slurm_say_that_it_is_gone)
{
    nd_lock_owner self, owner;
    nd_lock_owner_self(&self);
    self.slurm_job = 7;
    self.slurm_restarts = 1;
    owner = self;
    strcpy(owner.host, "far_away");
    strcpy(owner.boot, "0b3e6f3a-0000-4000-8000-000000000000");
    owner.locked = true;
    cr_assert_eq(nd_lock_owner_state(&owner, &self, ND_FILE_LOCK_FREE, true), ND_OWNER_GONE);
    cr_assert_eq(nd_lock_owner_state(&owner, &self, ND_FILE_LOCK_FREE, false), ND_OWNER_UNKNOWN);
    cr_assert_eq(nd_lock_owner_state(&owner, &self, ND_FILE_LOCK_HELD, true), ND_OWNER_ALIVE);
    owner.slurm_restarts = 0;
    cr_assert_eq(nd_lock_owner_state(&owner, &self, ND_FILE_LOCK_NONE, false), ND_OWNER_GONE);
    owner.slurm_job = 6;
    cr_assert_eq(nd_lock_owner_state(&owner, &self, ND_FILE_LOCK_NONE, false), ND_OWNER_UNKNOWN);
}

Test(run_lock, without_a_record_is_taken_over_once_nobody_is_writing_one)
{
    nd_run_lock *lock;
    nd_test_write_file(lock_path(), "", 0);
    ND_ASSERT_OK(nd_run_lock_acquire(nd_test_here.directory, &lock));
    nd_run_lock_release(lock);
}

Test(run_lock, whose_file_cannot_be_opened_is_an_error_that_names_it)
{
    nd_run_lock *lock;
    cr_assert_eq(symlink("/nowhere/at/all", lock_path()), 0);
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &lock), ND_EIO, lock_path());
}

/* The owner that was there is gone, and this process has the lock in a file of its own. */
static void replace_file(void)
{
    nd_lock_owner self;
    nd_lock_owner_self(&self);
    unlink(lock_path());
    leave_record(&self);
}

Test(run_lock, that_another_process_replaced_meanwhile_is_not_taken_for_the_one_that_was_looked_at)
{
    nd_lock_owner owner;
    nd_run_lock *lock;
    nd_lock_owner_self(&owner);
    owner.pid = ended_process();
    leave_record(&owner);
    before_lock = replace_file;
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &lock), ND_ECONFIG,
                    "is in use by process");
}

/* Another process has removed the stale lock, made its own, and is about to write its record. */
static void make_anew(void)
{
    unlink(lock_path());
    nd_test_write_file(lock_path(), "", 0);
}

Test(run_lock, made_anew_by_another_process_is_not_removed_for_the_stale_one_that_was_looked_at)
{
    nd_lock_owner owner;
    nd_run_lock *lock;
    no_file_locks = true;
    nd_lock_owner_self(&owner);
    owner.pid = ended_process();
    leave_record(&owner);
    before_rename = make_anew;
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &lock), ND_ECONFIG, "is in use by");
    cr_assert_eq(access(lock_path(), F_OK), 0);
}

Test(run_lock, without_file_locks_has_one_owner_too_and_is_taken_over_from_one_that_is_gone)
{
    nd_lock_owner owner;
    nd_run_lock *lock, *second;
    no_file_locks = true;
    ND_ASSERT_OK(nd_run_lock_acquire(nd_test_here.directory, &lock));
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &second), ND_ECONFIG,
                    "is in use by process");
    nd_run_lock_release(lock);
    nd_lock_owner_self(&owner);
    owner.pid = ended_process();
    taken_over(&owner, "no such process");
    nd_lock_owner_self(&owner);
    owner.pid_namespace++;
    leave_record(&owner); /* of a container beside this one, whose processes are not seen here */
    ND_ASSERT_FAILS(nd_run_lock_acquire(nd_test_here.directory, &lock), ND_ECONFIG,
                    "cannot be seen");
}

/* Takes the lock and checks that nobody else is inside; one in four dies there. Exit code 1: not
 * alone. */
static void take_once(const char *inside, bool die)
{
    nd_run_lock *lock = NULL;
    nd_error_clear();
    if (nd_run_lock_acquire(nd_test_here.directory, &lock) != ND_OK)
        return; /* the others had it all the time */
    const bool alone = mkdir(inside, 0777) == 0;
    rmdir(inside);
    if (die || !alone)
        _exit(!alone);
    nd_run_lock_release(lock);
}

static void take_by_many(void)
{
    enum { PROCESSES = 8, ROUNDS = 40 };
    char inside[128];
    int failed = 0;
    snprintf(inside, sizeof inside, "%s/inside", nd_test_here.directory);
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() != 0)
            continue;
        for (int round = 0; round < ROUNDS; round++) {
            int status = 0;
            if (fork() == 0) {
                take_once(inside, (p + round) % 4 == 0);
                _exit(0);
            }
            wait(&status);
            if (status != 0)
                _exit(1);
        }
        _exit(0);
    }
    for (int status; wait(&status) > 0;)
        failed += status != 0;
    cr_assert_eq(failed, 0);
}

Test(run_lock, is_never_held_by_two_of_many_processes)
{
    take_by_many();
}

Test(run_lock, is_never_held_by_two_without_file_locks_either)
{
    no_file_locks = true;
    take_by_many();
}

/* A training that goes on until it is killed, once it has made some steps. */
static pid_t start_training(const char *run)
{
    char command[1024], metrics[160];
    snprintf(command, sizeof command,
             "exec %s --config %s --run-dir %s --total-steps 100000 --set "
             "training.schedule_type=constant >/dev/null 2>&1",
             ND_BINARY, nd_test_here.config, run);
    const pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", run);
    for (int i = 0; access(metrics, F_OK) != 0; i++) {
        cr_assert_lt(i, 3000, "the run does not start");
        usleep(10000);
    }
    return child;
}

static void end_training(pid_t child, int signal)
{
    kill(child, signal);
    waitpid(child, NULL, 0);
}

Test(run_lock, a_second_start_in_a_live_runs_directory_is_refused_and_touches_nothing)
{
    char run[128], before[8192];
    static const char *const starts[] = {"--run-dir %s", "--run-dir %s --resume auto",
                                         "--run-dir %s_other --checkpoint-dir %s/checkpoints"};
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    const pid_t child = start_training(run);
    int stopped = 0;
    kill(child, SIGSTOP); /* so that nothing but a second start changes what is here */
    cr_assert(waitpid(child, &stopped, WUNTRACED) == child && WIFSTOPPED(stopped));
    nd_test_shell(before, sizeof before, "cd %s && find . | sort && cksum metrics.jsonl", run);
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        char arguments[512], expected[64], after[8192];
        snprintf(arguments, sizeof arguments, starts[i], run, run);
        snprintf(expected, sizeof expected, "in use by process %ld on host ", (long)child);
        const int code = nd_test_shell(output, sizeof output, "%s --config %s %s", ND_BINARY,
                                       nd_test_here.config, arguments);
        cr_assert_eq(code, 2, "%s: exit %d: %s", arguments, code, output);
        cr_assert(strstr(output, expected) != NULL, "%s", output);
        nd_test_shell(after, sizeof after, "cd %s && find . | sort && cksum metrics.jsonl", run);
        cr_assert_str_eq(after, before);
    }
    kill(child, SIGCONT);
    end_training(child, SIGTERM);
    cr_assert_neq(nd_test_shell(output, sizeof output, "find %s -name '*.lock*' | grep .", run), 0,
                  "a signal leaves %s", output);
}

Test(run_lock, of_a_run_that_was_killed_is_taken_over_by_the_next_start)
{
    char run[128];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    end_training(start_training(run), SIGKILL);
    cr_assert_eq(nd_test_shell(output, sizeof output, "ls %s/" ND_RUN_LOCK_NAME, run), 0);
    nd_test_train(0, 0, nd_test_here.config, run, "--total-steps 4");
    cr_assert_neq(nd_test_shell(output, sizeof output, "find %s -name '*.lock*' | grep .", run), 0,
                  "%s", output);
}

Test(run_lock, is_released_after_an_error)
{
    char run[128];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    nd_test_train(0, 3, nd_test_here.config, run, "--dataset shards --data-path /nowhere");
    cr_assert_neq(nd_test_shell(output, sizeof output, "find %s -name '*.lock*' | grep .", run), 0,
                  "%s", output);
}

Test(run_lock, a_kill_while_the_locks_are_taken_leaves_nothing_in_the_way)
{
    static const char *const points[] = {"lock", "locked"};
    char run[128];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    for (int i = 0; i < 2; i++) {
        const int code = nd_test_shell(
            output, sizeof output,
            "ND_FAULT=kill@%s:step=0:rank=0 %s/nanochat_dist_faulty --config %s --run-dir %s",
            points[i], ND_TEST_PROGRAMS, nd_test_here.config, run);
        cr_assert_eq(code, 137, "%s: exit %d: %s", points[i], code, output);
        nd_test_train(0, 0, nd_test_here.config, run, "--total-steps 1");
    }
}
