/* Encodes and decodes entries of a code stream (dist/weights/code_stream.h) in device memory. The
 * encoding has the same bytes as on the host, and decoding rejects the same inputs. */
#pragma once

#include "core/backend/backend.h"

/* An entry consists of the scales; a 32-bit word with the length of the changes
 * (dist/weights/changed_codes.h) in bytes, or ND_CODES_WHOLE; and those changes, or all codes as
 * trits, whichever is shorter. Entries follow each other without alignment. */
#define ND_CODES_WHOLE UINT32_MAX

/* The position of a stream that was found damaged while reading. */
#define ND_CODES_DAMAGED UINT64_MAX

/* One ternary matrix in device memory. */
typedef struct nd_code_entry {
    const char *name; /* of the tensor, for errors; shorter than ND_PARAM_NAME_MAX */
    int8_t *codes;    /* [count], count > 0 */
    int64_t count;
    float *scales; /* [groups] */
    int64_t groups;
} nd_code_entry;

/* encode and decode are ops of the backend: they run in the order of the calls and do not wait.
 * *at, in device memory, is the position in the stream in bytes. */
typedef struct nd_code_kernels {
    /* Bytes of `work` for matrices of up to `codes` codes and streams of up to `stream` bytes. */
    size_t (*work_bytes)(int64_t codes, int64_t stream);

    /* Encodes an entry at *at and advances *at past it; the stream must have room for a whole
     * entry. before [count]: the codes that other ranks have; not read with `whole`, which sends
     * all codes. */
    nd_status (*encode)(nd_backend *b, const nd_code_entry *entry, const int8_t *before, bool whole,
                        uint8_t *stream, uint64_t *at, void *work);

    /* Decodes the entry at *at of a stream of `bytes` bytes into `entry`, whose codes must be those
     * that the changes were made from, and advances *at past it. A truncated entry, or a change
     * beyond the last code, leaves codes and scales unchanged and sets *at to ND_CODES_DAMAGED,
     * after which further entries do nothing. The next call that waits for the device then returns
     * ND_EPEER. */
    nd_status (*decode)(nd_backend *b, const nd_code_entry *entry, const uint8_t *stream,
                        uint64_t bytes, uint64_t *at, void *work);
} nd_code_kernels;
