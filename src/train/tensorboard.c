#include "train/tensorboard.h"

#include "core/base/durable_file.h"
#include "train/crc32c.h"

#include <errno.h>
#include <event.pb-c.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct nd_tensorboard {
    int file;
    char path[4096];
};

static double wall_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One record, whole or not at all: readers stop at the first that is cut off. */
static nd_status write_event(nd_tensorboard *t, const Nd__Event *event)
{
    const size_t size = nd__event__get_packed_size(event),
                 head = sizeof(uint64_t) + sizeof(uint32_t);
    const uint64_t length = size;
    uint8_t *record = malloc(head + size + sizeof(uint32_t));
    if (!record)
        return ND_FAIL(ND_ENOMEM, "no memory for an event of %zu bytes", size);
    nd__event__pack(event, record + head);
    const uint32_t length_crc = nd_crc32c_masked(&length, sizeof length);
    const uint32_t data_crc = nd_crc32c_masked(record + head, size);
    memcpy(record, &length, sizeof length);
    memcpy(record + sizeof length, &length_crc, sizeof length_crc);
    memcpy(record + head + size, &data_crc, sizeof data_crc);
    const nd_status status =
        nd_file_append(t->file, t->path, record, head + size + sizeof data_crc);
    free(record);
    return status;
}

nd_status nd_tensorboard_open(const char *directory, nd_tensorboard **tensorboard)
{
    char host[256] = "host";
    ND_TRY(nd_directory_create(directory));
    nd_tensorboard *t = calloc(1, sizeof *t);
    if (!t)
        return ND_FAIL(ND_ENOMEM, "no memory for an event file");
    gethostname(host, sizeof host - 1);
    snprintf(t->path, sizeof t->path, "%s/events.out.tfevents.%lld.%s.%ld.0", directory,
             (long long)time(NULL), host, (long)getpid());
    t->file = open(t->path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (t->file < 0) {
        const nd_status status = ND_FAIL(ND_EIO, "cannot write %s: %s", t->path, strerror(errno));
        free(t);
        return status;
    }
    char version[] = "brain.Event:2";
    Nd__Event event = ND__EVENT__INIT;
    event.wall_time = wall_time();
    event.file_version = version;
    const nd_status status = write_event(t, &event);
    if (status != ND_OK) {
        nd_tensorboard_close(t);
        return status;
    }
    *tensorboard = t;
    return ND_OK;
}

void nd_tensorboard_close(nd_tensorboard *t)
{
    if (!t)
        return;
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
