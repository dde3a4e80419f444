#include "train/log/tensorboard.h"

#include "core/base/close.h"
#include "core/base/durable_file.h"
#include "train/log/crc32c.h"

#include <dirent.h>
#include <errno.h>
#include <event.pb-c.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WRITER "nanochat_dist"

#define TIME_MAX 9999999998LL /* ten digits, also when incremented */

enum { EVENT_BYTES_MAX = 1 << 24 };

struct nd_tensorboard {
    int file;
    char path[PATH_MAX + 320];
};

static double wall_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Writes one record, whole or not at all: readers stop at the first incomplete one. */
static nd_status write_event(nd_tensorboard *t, const Nd__Event *event)
{
    const size_t size = nd__event__get_packed_size(event),
                 head = sizeof(uint64_t) + sizeof(uint32_t);
    const uint64_t length = size;
    ND_AUTOFREE uint8_t *record = malloc(head + size + sizeof(uint32_t));
    ND_FAIL_IF(!record, ND_ENOMEM, "no memory for an event of %zu bytes", size);
    nd__event__pack(event, record + head);
    const uint32_t length_crc = nd_crc32c_masked(&length, sizeof length);
    const uint32_t data_crc = nd_crc32c_masked(record + head, size);
    memcpy(record, &length, sizeof length);
    memcpy(record + sizeof length, &length_crc, sizeof length_crc);
    memcpy(record + head + size, &data_crc, sizeof data_crc);
    return nd_file_append(t->file, t->path, record, head + size + sizeof data_crc);
}

static int is_event_file(const struct dirent *entry)
{
    return strncmp(entry->d_name, ND_EVENTS_PREFIX, strlen(ND_EVENTS_PREFIX)) == 0;
}

/* The next event of a file, with its end in *end; NULL at the end of the file or an incomplete
 * record. */
static Nd__Event *read_event(FILE *file, size_t *end)
{
    uint64_t length;
    uint32_t crc;
    Nd__Event *event = NULL;
    if (fread(&length, sizeof length, 1, file) != 1 || fread(&crc, sizeof crc, 1, file) != 1 ||
        crc != nd_crc32c_masked(&length, sizeof length) || length > EVENT_BYTES_MAX)
        return NULL;
    ND_AUTOFREE uint8_t *bytes = malloc((size_t)length + 1);
    if (bytes && fread(bytes, 1, (size_t)length, file) == length &&
        fread(&crc, sizeof crc, 1, file) == 1 && crc == nd_crc32c_masked(bytes, (size_t)length))
        event = nd__event__unpack(NULL, (size_t)length, bytes);
    *end += sizeof length + 2 * sizeof crc + (size_t)length;
    return event;
}

/* Truncates a file after the last complete event of a step up to `last_step` (steps ascend within a
 * file). Other programs' files, and files that cannot be truncated, stay: the restart mark tells
 * readers to drop those steps. */
static void drop_later_steps(const char *path, int64_t last_step)
{
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "rbe");
    size_t end = 0, keep = 0;
    bool ours = false;
    Nd__Event *event;
    while (file && (event = read_event(file, &end)) != NULL) {
        const Nd__SourceMetadata *source = event->source_metadata;
        ours |= keep == 0 && source && strcmp(source->writer, WRITER) == 0;
        const bool earlier = event->step <= last_step;
        nd__event__free_unpacked(event, NULL);
        if (!ours || !earlier)
            break;
        keep = end;
    }
    const bool cut = ours && truncate(path, (off_t)keep) == 0;
    (void)cut;
}

/* Prepares the files of earlier starts; `latest` is the latest time in their names, else 0. */
static nd_status continue_files(const char *directory, int64_t last_step, long long *latest)
{
    struct dirent **entries;
    *latest = 0;
    const int count = scandir(directory, &entries, is_event_file, NULL);
    ND_FAIL_IF(count < 0, ND_EIO, "cannot list %s: %s", directory, strerror(errno));
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        const long long seconds = atoll(entries[i]->d_name + strlen(ND_EVENTS_PREFIX));
        if (seconds <= TIME_MAX) /* named as by create_file */
            *latest = seconds > *latest ? seconds : *latest;
        if (snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name) < (int)sizeof path)
            drop_later_steps(path, last_step);
        free(entries[i]);
    }
    free(entries);
    return ND_OK;
}

/* Readers take files in order of their names. */
static nd_status create_file(nd_tensorboard *t, const char *directory, long long latest)
{
    char host[256] = "host";
    long long seconds = (long long)time(NULL);
    gethostname(host, sizeof host - 1);
    if (seconds <= latest)
        seconds = latest + 1;
    do
        snprintf(t->path, sizeof t->path, "%s/" ND_EVENTS_PREFIX "%010lld.%s.%ld.0", directory,
                 seconds, host, (long)getpid());
    while ((t->file = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666)) <
               0 &&
           errno == EEXIST && ++seconds);
    return ND_CHECK(t->file >= 0, ND_EIO, "cannot write %s: %s", t->path, strerror(errno));
}

static nd_status write_beginning(nd_tensorboard *t, bool restart, int64_t last_step)
{
    char version[] = "brain.Event:2", writer[] = WRITER;
    Nd__SourceMetadata source = ND__SOURCE_METADATA__INIT;
    source.writer = writer;
    Nd__Event event = ND__EVENT__INIT;
    event.wall_time = wall_time();
    event.file_version = version;
    event.source_metadata = &source;
    ND_TRY(write_event(t, &event));
    if (!restart)
        return ND_OK;
    Nd__SessionLog start = ND__SESSION_LOG__INIT;
    start.status = ND__SESSION_LOG__SESSION_STATUS__START;
    nd__event__init(&event);
    event.wall_time = wall_time();
    event.step = last_step + 1;
    event.session_log = &start;
    return write_event(t, &event);
}

nd_status nd_tensorboard_open(const char *directory, int64_t last_step,
                              nd_tensorboard **tensorboard)
{
    long long latest;
    ND_TRY(nd_directory_create(directory));
    ND_TRY(continue_files(directory, last_step, &latest));
    nd_tensorboard *t = calloc(1, sizeof *t);
    ND_FAIL_IF(!t, ND_ENOMEM, "no memory for an event file");
    t->file = -1;
    nd_status status = create_file(t, directory, latest);
    ND_IF_OK(write_beginning(t, latest > 0, last_step));
    ND_RETURN_MADE(status, t, nd_tensorboard_close, tensorboard);
}

void nd_tensorboard_close(nd_tensorboard *t)
{
    if (!t)
        return;
    if (t->file >= 0)
        close(t->file);
    free(t);
}

nd_status nd_tensorboard_write(nd_tensorboard *t, int64_t step, const nd_scalar *scalars, int count)
{
    Nd__SummaryValue values[count];
    Nd__SummaryValue *pointers[count];
    char tags[count][64];
    for (int i = 0; i < count; i++) {
        nd__summary_value__init(&values[i]);
        snprintf(tags[i], sizeof tags[i], "%s", scalars[i].tag);
        values[i].tag = tags[i];
        values[i].value_case = ND__SUMMARY_VALUE__VALUE_SIMPLE_VALUE;
        values[i].simple_value = (float)scalars[i].value;
        pointers[i] = &values[i];
    }
    Nd__Summary summary = ND__SUMMARY__INIT;
    summary.n_value = (size_t)count;
    summary.value = pointers;
    Nd__Event event = ND__EVENT__INIT;
    event.wall_time = wall_time();
    event.step = step;
    event.summary = &summary;
    return write_event(t, &event);
}
