/* The memory of a run by category: one arena each, and what the process uses besides. */
#pragma once

#include "core/base/arena.h"

typedef enum nd_memory_category {
    ND_MEMORY_CODES,   /* what replicas compute with: codes, scales, embedding, norms */
    ND_MEMORY_MASTERS, /* owned full-precision weights */
    ND_MEMORY_GRADIENTS,
    ND_MEMORY_OPTIMIZER,   /* owned state and scratch of updates */
    ND_MEMORY_ACTIVATIONS, /* of one micro-batch */
    ND_MEMORY_WIRE,        /* communication buffers */
    ND_MEMORY_COUNT
} nd_memory_category;

/* As in metrics.jsonl: "codes", "masters", ... */
const char *nd_memory_category_name(nd_memory_category category);

/* Bytes of the program and its libraries: resident pages of files and shared memory, and heap
 * memory beyond the `counted` bytes that other categories name (workspace, loader). */
size_t nd_memory_program(size_t counted);

/* Resident set size of this process in bytes (/proc/self/statm), and its peak (VmHWM). */
size_t nd_memory_resident(void);
size_t nd_memory_resident_peak(void);

/* Bytes that processes can still allocate before the kernel must kill one: MemAvailable plus free
 * swap, or the remainder of the control group, whichever is less. SIZE_MAX when unknown. */
size_t nd_memory_available(void);
