/* Event files of runs that start more than once. */
#include "support/run_files.h"
#include "support/support.h"
#include "train/log/crc32c.h"
#include "train/log/tensorboard.h"

#include <dirent.h>
#include <event.pb-c.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(tensorboard, .init = nd_test_run_setup, .fini = nd_test_run_teardown);

enum { EVENTS_MAX = 256, FILES_MAX = 16, SCALARS_MAX = 64 };

typedef struct event_list {
    int64_t steps[EVENTS_MAX]; /* of events with scalars */
    int count, restarts, files;
    int64_t restart_step; /* of the last mark */
    char names[FILES_MAX][300];
    char tags[SCALARS_MAX][64]; /* of the last event with scalars */
    float values[SCALARS_MAX];
    size_t scalars;
} event_list;

static int is_event_file(const struct dirent *entry)
{
    return strstr(entry->d_name, "tfevents") != NULL;
}

static void read_scalars(const Nd__Summary *summary, event_list *list)
{
    list->scalars = summary->n_value;
    cr_assert_leq(list->scalars, SCALARS_MAX);
    for (size_t i = 0; i < list->scalars; i++) {
        snprintf(list->tags[i], sizeof list->tags[i], "%s", summary->value[i]->tag);
        list->values[i] = summary->value[i]->simple_value;
    }
}

static void read_file(const char *path, event_list *list)
{
    size_t size = 0;
    char *bytes = nd_test_read_file(path, &size);
    cr_assert(bytes != NULL);
    for (size_t at = 0; at < size;) {
        uint64_t length;
        memcpy(&length, bytes + at, sizeof length);
        cr_assert_leq(at + 16 + length, size, "%s is cut off", path);
        Nd__Event *event = nd__event__unpack(NULL, length, (const uint8_t *)bytes + at + 12);
        cr_assert(event != NULL);
        if (event->summary) {
            list->steps[list->count++] = event->step;
            read_scalars(event->summary, list);
        }
        if (event->session_log) {
            cr_assert_eq(event->session_log->status, ND__SESSION_LOG__SESSION_STATUS__START);
            list->restart_step = event->step;
            list->restarts++;
        }
        nd__event__free_unpacked(event, NULL);
        at += 16 + length;
    }
    free(bytes);
}

/* All events of a directory in the order in which readers see them. */
static event_list *read_events(const char *directory)
{
    static event_list list;
    struct dirent **entries;
    memset(&list, 0, sizeof list);
    list.files = scandir(directory, &entries, is_event_file, alphasort);
    cr_assert(list.files > 0 && list.files <= FILES_MAX);
    for (int i = 0; i < list.files; i++) {
        char path[512];
        snprintf(list.names[i], sizeof list.names[i], "%s", entries[i]->d_name);
        snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
        read_file(path, &list);
        free(entries[i]);
    }
    free(entries);
    return &list;
}

Test(tensorboard, a_resumed_run_marks_the_restart_and_has_no_step_twice)
{
    char run[128], events[160];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    snprintf(events, sizeof events, "%s/tensorboard", run);
    nd_test_train(0, 0, nd_test_here.config, run,
                  "--total-steps 10 --set logging.checkpoint_at_end=false");
    cr_assert_eq(read_events(events)->restarts, 0);
    nd_test_train(0, 0, nd_test_here.config, run, "--resume auto");
    const event_list *list = read_events(events);
    cr_assert_eq(list->files, 2);
    cr_assert_eq(list->restarts, 1);
    cr_assert_eq(list->restart_step, 9);
    cr_assert_eq(list->count, 12);
    for (int i = 0; i < 12; i++)
        cr_assert_eq(list->steps[i], i + 1);
}

/* "ranks/<phase>_<kind>" is what metrics.jsonl has at phases_ms.<phase>.<key>. */
static void expect_scalar(const event_list *list, const char *phase, const char *kind,
                          const json_t *expected)
{
    char tag[64];
    size_t at = 0;
    snprintf(tag, sizeof tag, "ranks/%s_%s", phase, kind);
    while (at < list->scalars && strcmp(list->tags[at], tag) != 0)
        at++;
    cr_assert_lt(at, list->scalars, "there is no %s", tag);
    cr_assert_not_null(expected, "%s", tag);
    cr_assert_eq(list->values[at], (float)json_number_value(expected), "%s", tag);
}

Test(tensorboard, has_minimum_median_maximum_and_the_slowest_rank_of_each_phase_of_a_step)
{
    char run[128], path[192];
    snprintf(run, sizeof run, "%s/run", nd_test_here.directory);
    nd_test_train(
        3, 0, nd_test_here.config, run,
        "--total-steps 1 --set training.batch_size=6 --set logging.checkpoint_at_end=false");
    snprintf(path, sizeof path, "%s/tensorboard", run);
    const event_list *list = read_events(path);
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    json_t *line = json_load_file(path, 0, NULL), *times;
    const char *phase;
    json_object_foreach(json_object_get(line, "phases_ms"), phase, times)
    {
        expect_scalar(list, phase, "min_ms", json_object_get(times, "min"));
        expect_scalar(list, phase, "median_ms", json_object_get(times, "median"));
        expect_scalar(list, phase, "max_ms", json_object_get(times, "max"));
        expect_scalar(list, phase, "max_rank", json_object_get(times, "rank"));
    }
    cr_assert_eq(json_object_size(json_object_get(line, "phases_ms")), 6);
    json_decref(line);
}

/* A start whose file holds steps first .. last. */
static void start(int64_t last_before, int64_t first, int64_t last)
{
    nd_tensorboard *t;
    ND_ASSERT_OK(nd_tensorboard_open(nd_test_here.directory, last_before, &t));
    for (int64_t step = first; step <= last; step++)
        ND_ASSERT_OK(nd_tensorboard_write(t, step, &(nd_scalar){"train/loss", 1.0}, 1));
    nd_tensorboard_close(t);
}

Test(tensorboard, starts_in_one_second_have_files_of_their_own_in_their_order)
{
    start(0, 1, 3);
    start(3, 4, 6);
    start(6, 7, 9);
    start(4, 5, 7);
    const event_list *list = read_events(nd_test_here.directory);
    cr_assert_eq(list->files, 4);
    cr_assert_eq(list->restarts, 2); /* the third's went with its steps */
    cr_assert_eq(list->count, 7);
    for (int i = 0; i < 7; i++)
        cr_assert_eq(list->steps[i], i + 1);
}

Test(tensorboard, a_restart_before_the_first_checkpoint_is_marked_too)
{
    start(0, 1, 3);
    start(0, 1, 2);
    const event_list *list = read_events(nd_test_here.directory);
    cr_assert_eq(list->restarts, 1);
    cr_assert_eq(list->restart_step, 1);
    cr_assert_eq(list->count, 2);
}

Test(tensorboard, what_a_crash_cut_off_is_taken_away)
{
    start(0, 1, 3);
    nd_test_shell(NULL, 0, "cd %s && for f in *tfevents*; do truncate -s -5 $f; done",
                  nd_test_here.directory);
    start(2, 3, 4);
    const event_list *list = read_events(nd_test_here.directory);
    cr_assert_eq(list->count, 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(list->steps[i], i + 1);
}

static void write_record(FILE *file, const Nd__Event *event)
{
    uint8_t bytes[256];
    const uint64_t length = nd__event__pack(event, bytes);
    const uint32_t checksums[] = {nd_crc32c_masked(&length, sizeof length),
                                  nd_crc32c_masked(bytes, (size_t)length)};
    fwrite(&length, sizeof length, 1, file);
    fwrite(&checksums[0], sizeof checksums[0], 1, file);
    fwrite(bytes, 1, (size_t)length, file);
    fwrite(&checksums[1], sizeof checksums[1], 1, file);
}

Test(tensorboard, another_programs_file_stays_as_it_is)
{
    char path[160], version[] = "brain.Event:2", writer[] = "another program";
    Nd__SourceMetadata source = ND__SOURCE_METADATA__INIT;
    Nd__Event event = ND__EVENT__INIT;
    size_t before = 0, after = 0;
    snprintf(path, sizeof path, "%s/events.out.tfevents.0000000001.host.1.0",
             nd_test_here.directory);
    FILE *file = fopen(path, "wb");
    source.writer = writer;
    event.source_metadata = &source;
    event.file_version = version;
    write_record(file, &event);
    event.step = 9;
    write_record(file, &event);
    fclose(file);
    char *bytes = nd_test_read_file(path, &before);
    start(4, 5, 6);
    char *again = nd_test_read_file(path, &after);
    cr_assert_eq(after, before);
    cr_assert_eq(memcmp(bytes, again, before), 0);
    free(bytes);
    free(again);
}

/* A time that no clock shows is no time to follow: adding to it would wrap around. */
Test(tensorboard, names_with_times_beyond_ten_digits_are_not_followed)
{
    char path[192];
    snprintf(path, sizeof path, "%s/events.out.tfevents.9223372036854775807.far.1",
             nd_test_here.directory);
    nd_test_write_file(path, "", 0);
    start(0, 1, 2);
    const event_list *list = read_events(nd_test_here.directory);
    cr_assert_eq(list->files, 2);
    cr_assert_eq(strspn(list->names[0] + strlen("events.out.tfevents."), "0123456789"), 10, "%s",
                 list->names[0]);
    cr_assert_eq(list->count, 2);
}
