#include "data/text/text_input.h"

#include "data/tokenizer/utf8.h"

#include <string.h>
#include <strings.h>

/* Signatures of files that are not text themselves but may contain it. */
static const struct {
    const char *magic;
    size_t bytes, at;
    const char *what; /* the format and what to do */
    bool columns;     /* a table: refused instead of skipped */
} formats[] = {
    {"PAR1", 4, 0, "a Parquet file; write its text column as JSON Lines first (docs/formats.md)",
     true},
    {"ARROW1", 6, 0, "an Arrow file; write its text column as JSON Lines first", true},
    {"ORC", 3, 0, "an ORC file; write its text column as JSON Lines first", true},
    {"\xfd"
     "7zXZ",
     6, 0, "compressed with xz; decompress it first", false},
    {"BZh", 3, 0, "compressed with bzip2; decompress it first", false},
    {"\x04\x22\x4d\x18", 4, 0, "compressed with lz4; decompress it first", false},
    {"PK\x03\x04", 4, 0, "a zip archive; unpack it first", false},
    {"7z\xbc\xaf\x27\x1c", 6, 0, "a 7z archive; unpack it first", false},
    {"ustar", 5, 257, "a tar archive; unpack it first", false},
    {"%PDF-", 5, 0, "a PDF file; extract its text first", false},
    {"\x89HDF\r\n\x1a\n", 8, 0, "an HDF5 file, a shard perhaps", false},
    {"\xff\xfe", 2, 0, "not UTF-8, UTF-16 perhaps; convert it first (iconv)", false},
    {"\xfe\xff", 2, 0, "not UTF-8, UTF-16 perhaps; convert it first (iconv)", false},
};

/* Why the bytes are not text; NULL when they look like text. */
static const char *non_text_reason(const char *text, size_t bytes, bool *columns)
{
    size_t non_text = 0;
    *columns = false;
    for (size_t i = 0; i < bytes;) {
        uint32_t code = 0;
        const size_t length = nd_utf8_decode(text + i, bytes - i, &code);
        non_text += length == 0 || (code < ' ' && !memchr("\t\n\v\f\r\b\x1b", (int)code, 7));
        i += length ? length : 1;
    }
    const bool is_text = !memchr(text, '\0', bytes) && non_text * 3 < bytes + 1;
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        if (bytes < formats[f].at + formats[f].bytes ||
            memcmp(text + formats[f].at, formats[f].magic, formats[f].bytes) != 0)
            continue;
        *columns = formats[f].columns && memchr(text, '\0', bytes);
        if (!is_text)
            return formats[f].what;
    }
    return is_text ? NULL : "not text";
}

static bool ends_with(const char *path, size_t length, const char *ending)
{
    const size_t bytes = strlen(ending);
    return length >= bytes && strncasecmp(path + length - bytes, ending, bytes) == 0;
}

static bool is_named_jsonl(const char *path)
{
    static const char *const compressed[] = {".gz", ".zst", ".zstd"};
    size_t length = strlen(path);
    for (size_t i = 0; i < 3; i++) {
        if (ends_with(path, length, compressed[i])) {
            length -= strlen(compressed[i]);
            break;
        }
    }
    return ends_with(path, length, ".jsonl") || ends_with(path, length, ".ndjson") ||
           ends_with(path, length, ".jsonlines");
}

static nd_status inspect(nd_text_reader *r, const char *path, int named, const nd_text_rules *rules,
                         nd_left_out *left_out, bool *accepted)
{
    const char *head, *name = nd_text_reader_name(r);
    size_t bytes, skipped;
    bool columns;
    char mark[3];
    *accepted = true;
    ND_TRY(nd_text_reader_peek(r, &head, &bytes));
    if (rules->binary)
        return ND_OK;
    ND_FAIL_IF(rules->refuse_jsonl && is_named_jsonl(path), ND_EDATA,
               "%s: JSON Lines by its name; give --jsonl-field NAME, the field that holds the "
               "text, or leave it out with --glob",
               name);
    const char *reason = non_text_reason(head, bytes, &columns);
    ND_FAIL_IF(reason && (named || columns), ND_EDATA, "%s: %s; or %s", name, reason,
               named ? "give --binary to read it as it is" : "leave it out with --glob");
    *accepted = !reason;
    if (reason)
        nd_left_out_add(left_out, ND_LEFT_BINARY, "%s: %s", path, reason);
    else if (bytes >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0)
        return nd_text_reader_read(r, mark, 3, &skipped);
    return ND_OK;
}

nd_status nd_text_input_open(const char *path, int named, const nd_text_rules *rules,
                             nd_left_out *left_out, nd_text_reader **reader)
{
    nd_text_reader *r;
    bool accepted = false;
    *reader = NULL;
    ND_TRY(nd_text_reader_open(path, &r));
    const nd_status status = inspect(r, path, named, rules, left_out, &accepted);
    if (accepted && status == ND_OK)
        *reader = r;
    else
        nd_text_reader_close(r);
    return status;
}
