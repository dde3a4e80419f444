/* When work is recorded, replayed and run op by op, on a backend that only keeps account. */
#include "support/support.h"

#include "train/replay.h"

#include <stdio.h>
#include <string.h>

static struct {
    char trace[512];
    bool can, refuses, stale, recording;
    bool waits, fails; /* the work: while it is recorded, always */
    int open;
} f;

static void note(const char *what)
{
    strcat(f.trace, what);
    strcat(f.trace, " ");
}

static nd_status record(nd_backend *b, bool *can)
{
    (void)b;
    *can = f.recording = f.can;
    note("record");
    return f.refuses ? ND_FAIL(ND_EINTERNAL, "no capture here") : ND_OK;
}

static nd_status record_end(nd_backend *b, nd_recording **recording)
{
    (void)b;
    f.recording = false;
    note(recording ? "keep" : "drop");
    if (recording) {
        *recording = (nd_recording *)&f;
        f.open++;
    }
    return ND_OK;
}

static nd_status play(nd_backend *b, nd_recording *recording, bool *stale)
{
    (void)b;
    cr_assert(recording == (nd_recording *)&f);
    *stale = f.stale;
    note(f.stale ? "stale" : "play");
    f.stale = false;
    return ND_OK;
}

static void release_recording(nd_backend *b, nd_recording *recording)
{
    (void)b;
    cr_assert(recording == (nd_recording *)&f);
    note("release");
    f.open--;
}

static nd_status work(void *context)
{
    (void)context;
    note("work");
    if (f.waits && f.recording)
        return ND_FAIL(ND_EINTERNAL, "an op that is recorded waits");
    return f.fails ? ND_FAIL(ND_ENUMERIC, "the work fails") : ND_OK;
}

static nd_backend backend = {.ops = {.name = "fake",
                                     .record = record,
                                     .record_end = record_end,
                                     .replay = play,
                                     .release_recording = release_recording}};
static nd_log quiet;
static nd_replay *replay;

static void start(void)
{
    memset(&f, 0, sizeof f);
    f.can = true;
    ND_ASSERT_OK(nd_replay_create(&backend, &quiet, &replay));
}

static void end(void)
{
    nd_replay_destroy(replay);
    cr_assert_eq(f.open, 0);
}

TestSuite(replay, .init = start, .fini = end);

static void run(int key)
{
    ND_ASSERT_OK(nd_replay_run(replay, &key, sizeof key, work, NULL));
}

Test(replay, work_runs_then_is_recorded_then_replayed)
{
    run(1);
    cr_assert_str_eq(f.trace, "work ");
    run(1);
    cr_assert_str_eq(f.trace, "work record work keep play ");
    run(1);
    run(1);
    cr_assert_str_eq(f.trace, "work record work keep play play play ");
    const nd_replay_counts counts = nd_replay_counted(replay);
    cr_assert(counts.recorded == 1 && counts.replayed == 3);
}

Test(replay, other_keys_are_other_work)
{
    run(1);
    run(2);
    cr_assert_str_eq(f.trace, "work work ");
    run(2);
    cr_assert_str_eq(f.trace, "work work record work keep play ");
}

Test(replay, what_was_recorded_before_memory_moved_is_recorded_again)
{
    run(1);
    run(1);
    f.trace[0] = '\0';
    f.stale = true;
    run(1);
    cr_assert_str_eq(f.trace, "stale release record work keep play ");
    cr_assert_eq(f.open, 1);
}

Test(replay, a_recording_that_fails_is_dropped_and_the_work_runs)
{
    run(1);
    f.waits = true;
    run(1);
    cr_assert_str_eq(f.trace, "work record work drop work ");
    cr_assert_eq(nd_error_get()->status, ND_OK);
    f.trace[0] = '\0';
    f.waits = false;
    run(1);
    run(2);
    run(2);
    cr_assert_str_eq(f.trace, "work work work ");
}

Test(replay, a_backend_that_makes_none_or_refuses_runs_everything)
{
    f.can = false;
    run(1);
    run(1);
    run(1);
    cr_assert_str_eq(f.trace, "work record work work ");
    nd_replay_destroy(replay);
    start();
    f.refuses = true;
    run(1);
    run(1);
    run(1);
    cr_assert_str_eq(f.trace, "work record work work ");
}

Test(replay, a_fallback_says_why_in_the_log)
{
    char text[256] = "";
    quiet.file = fmemopen(text, sizeof text, "w");
    f.can = false;
    run(1);
    run(1);
    fclose(quiet.file);
    quiet.file = NULL;
    cr_assert(strstr(text, "ops run one by one: the fake backend cannot record ops") != NULL, "%s",
              text);
}

Test(replay, errors_of_the_work_itself_are_passed_on)
{
    const int key = 1;
    f.fails = true;
    ND_ASSERT_FAILS(nd_replay_run(replay, &key, sizeof key, work, NULL), ND_ENUMERIC,
                    "the work fails");
    ND_ASSERT_FAILS(nd_replay_run(replay, &key, sizeof key, work, NULL), ND_ENUMERIC,
                    "the work fails");
}

Test(replay, the_work_not_used_for_longest_is_forgotten)
{
    run(0);
    run(0);
    for (int key = 1; key < ND_REPLAY_KEPT; key++)
        run(key);
    cr_assert_eq(f.open, 1);
    run(0);
    run(ND_REPLAY_KEPT); /* in the place of 1 */
    cr_assert_eq(f.open, 1);
    for (int key = 2; key < ND_REPLAY_KEPT; key++)
        run(ND_REPLAY_KEPT + key);
    run(3 * ND_REPLAY_KEPT);
    cr_assert_eq(f.open, 0);
}
