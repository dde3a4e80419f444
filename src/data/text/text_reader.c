#include "data/text/text_reader.h"

#include "data/text/decompressor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RAW_BYTES = 1 << 16 };

struct nd_text_reader {
    char *name;
    int file;
    struct stat opened;         /* when opened */
    int64_t consumed;           /* bytes read from the file */
    bool raw_end;               /* end of the file */
    nd_decompressor *decoder;   /* NULL: the file's bytes are the text's */
    char *raw;                  /* [RAW_BYTES] */
    size_t raw_at, raw_bytes;   /* raw[raw_at .. raw_bytes) is unread */
    char *head;                 /* [ND_TEXT_PEEK_BYTES] */
    size_t head_at, head_bytes; /* head[head_at .. head_bytes) was peeked, not read */
};

/* Checks at the end that the file is still as it was when opened. */
static nd_status check_unchanged(const nd_text_reader *r)
{
    struct stat now;
    if (!S_ISREG(r->opened.st_mode))
        return ND_OK;
    ND_FAIL_IF(fstat(r->file, &now) != 0, ND_EDATA, "%s: cannot stat this file: %s", r->name,
               strerror(errno));
    if (now.st_size != r->opened.st_size || r->consumed != (int64_t)now.st_size ||
        now.st_mtim.tv_sec != r->opened.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != r->opened.st_mtim.tv_nsec)
        return ND_FAIL(ND_EDATA,
                       "%s: changed while it was read (%lld bytes when it was opened, then %lld); "
                       "start again when nothing writes to it",
                       r->name, (long long)r->opened.st_size,
                       (long long)(r->consumed > now.st_size ? r->consumed : now.st_size));
    return ND_OK;
}

/* Reads the next bytes of the file when none are buffered. */
static nd_status fill(nd_text_reader *r)
{
    ssize_t got;
    if (r->raw_at < r->raw_bytes || r->raw_end)
        return ND_OK;
    do
        got = read(r->file, r->raw, RAW_BYTES);
    while (got < 0 && errno == EINTR);
    ND_FAIL_IF(got < 0, ND_EDATA, "%s: cannot read this file: %s", r->name, strerror(errno));
    r->raw_at = 0;
    r->raw_bytes = (size_t)got;
    r->consumed += got;
    r->raw_end = got == 0;
    if (r->raw_end || (S_ISREG(r->opened.st_mode) && r->consumed > (int64_t)r->opened.st_size))
        return check_unchanged(r);
    return ND_OK;
}

static nd_status decode(nd_text_reader *r, void *buffer, size_t size, size_t *got)
{
    *got = 0;
    while (*got == 0) {
        ND_TRY(fill(r));
        const size_t buffered = r->raw_bytes - r->raw_at;
        size_t used = 0;
        if (!r->decoder) {
            *got = used = buffered < size ? buffered : size;
            memcpy(buffer, r->raw + r->raw_at, used);
        } else if (buffered > 0 || nd_decompressor_is_inside(r->decoder)) {
            ND_TRY(nd_decompressor_run(r->decoder, r->name, r->raw + r->raw_at, buffered, &used,
                                       buffer, size, got));
        }
        r->raw_at += used;
        if (buffered == 0 && *got == 0 && r->raw_end) {
            ND_FAIL_IF(r->decoder && nd_decompressor_is_inside(r->decoder), ND_EDATA,
                       "%s: its compressed data is cut short at byte %lld", r->name,
                       (long long)r->consumed);
            return ND_OK;
        }
    }
    return ND_OK;
}

static nd_status open_file(nd_text_reader *r, const char *path)
{
    const bool standard_input = strcmp(path, "-") == 0;
    r->file = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    r->name = strdup(standard_input ? "(standard input)" : path);
    r->raw = malloc(RAW_BYTES);
    r->head = malloc(ND_TEXT_PEEK_BYTES);
    ND_FAIL_IF(!r->name || !r->raw || !r->head, ND_ENOMEM, "%s: no memory to read it", path);
    ND_FAIL_IF(r->file < 0 || fstat(r->file, &r->opened) != 0, ND_EDATA,
               "%s: cannot open this file: %s", path, strerror(errno));
    if (S_ISREG(r->opened.st_mode)) /* standard input may start in the middle */
        r->consumed = (int64_t)lseek(r->file, 0, SEEK_CUR);
    ND_TRY(fill(r));
    while (r->raw_bytes < ND_DECOMPRESSOR_MAGIC_BYTES && !r->raw_end) { /* a short read */
        ssize_t more = read(r->file, r->raw + r->raw_bytes, RAW_BYTES - r->raw_bytes);
        if (more <= 0 && !(more < 0 && errno == EINTR))
            break; /* the next fill() reports errors */
        r->raw_bytes += more > 0 ? (size_t)more : 0;
        r->consumed += more > 0 ? more : 0;
    }
    return nd_decompressor_open(r->raw, r->raw_bytes, r->name, &r->decoder);
}

nd_status nd_text_reader_open(const char *path, nd_text_reader **reader)
{
    *reader = NULL;
    nd_text_reader *r = calloc(1, sizeof *r);
    ND_FAIL_IF(!r, ND_ENOMEM, "%s: no memory to read it", path);
    ND_RETURN_MADE(open_file(r, path), r, nd_text_reader_close, reader);
}

void nd_text_reader_close(nd_text_reader *reader)
{
    if (!reader)
        return;
    if (reader->file > STDIN_FILENO)
        close(reader->file);
    nd_decompressor_close(reader->decoder);
    free(reader->name);
    free(reader->raw);
    free(reader->head);
    free(reader);
}

nd_status nd_text_reader_read(nd_text_reader *reader, void *buffer, size_t size, size_t *got)
{
    const size_t held = reader->head_bytes - reader->head_at;
    if (held == 0)
        return decode(reader, buffer, size, got);
    *got = held < size ? held : size;
    memcpy(buffer, reader->head + reader->head_at, *got);
    reader->head_at += *got;
    return ND_OK;
}

nd_status nd_text_reader_peek(nd_text_reader *reader, const char **bytes, size_t *count)
{
    size_t got = 1;
    while (reader->head_bytes < ND_TEXT_PEEK_BYTES && got > 0) {
        ND_TRY(decode(reader, reader->head + reader->head_bytes,
                      ND_TEXT_PEEK_BYTES - reader->head_bytes, &got));
        reader->head_bytes += got;
    }
    *bytes = reader->head;
    *count = reader->head_bytes;
    return ND_OK;
}

int64_t nd_text_reader_consumed(const nd_text_reader *reader)
{
    return reader->consumed;
}

bool nd_text_reader_is_compressed(const nd_text_reader *reader)
{
    return reader->decoder != NULL;
}

const char *nd_text_reader_name(const nd_text_reader *reader)
{
    return reader->name;
}
