/* Encodes and decodes entries of a code stream (dist/code_stream.h) in device memory: the same bytes as on
 * the host, and the same input is refused. */
#pragma once

#include "core/backend/backend.h"

/* An entry: the scales; in 32 bits how many bytes of changes (dist/changed_codes.h) follow, or
 * ND_CODES_WHOLE; these, or all codes in trits, which is never longer. Entries stand one behind another,
 * at any address. */
#define ND_CODES_WHOLE UINT32_MAX

/* Where a stream that is read has turned out damaged. */
#define ND_CODES_DAMAGED UINT64_MAX

/* One ternary matrix in memory of the device. */
typedef struct nd_code_entry {
    const char *name; /* of the tensor, for errors; shorter than ND_PARAM_NAME_MAX */
    int8_t *codes;    /* [count], count > 0 */
    int64_t count;
    float *scales; /* [groups] */
    int64_t groups;
} nd_code_entry;

/* Both functions are ops of the backend: done in the order of the calls, and none waits. `at`, in memory
 * of the device, counts the bytes of the stream that are written or read so far. */
typedef struct nd_code_kernels {
    /* Bytes of `work` for matrices of up to `codes` codes and streams of up to `stream` bytes. */
    size_t (*work_bytes)(int64_t codes, int64_t stream);

    /* Writes the entry at *at of the stream, in which there is room for it whole, and moves *at behind it.
     * before: the codes that the others have, [count]; not read where `whole`: then all codes go. */
    nd_status (*make)(nd_backend *b, const nd_code_entry *entry, const int8_t *before, bool whole,
                      uint8_t *stream, uint64_t *at, void *work);

    /* Reads the entry at *at of a stream of `bytes` bytes, whose codes must be what they were changed from,
     * and moves *at behind it. One that is cut short or changes a code beyond the last leaves codes and
     * scales alone and makes *at ND_CODES_DAMAGED, where further entries do nothing. It is an error,
     * ND_EPEER, of the next call that waits for the device. */
    nd_status (*take)(nd_backend *b, const nd_code_entry *entry, const uint8_t *stream,
                      uint64_t bytes, uint64_t *at, void *work);
} nd_code_kernels;
