/* The memory of a run by category: one arena each, and what the process holds beside them. */
#pragma once

#include "core/base/arena.h"

typedef enum nd_memory_category {
    ND_MEMORY_CODES,   /* what replicas compute with: codes, scales, embedding, norms */
    ND_MEMORY_MASTERS, /* owned full-precision weights */
    ND_MEMORY_GRADIENTS,
    ND_MEMORY_OPTIMIZER,   /* owned state and the scratch of an update */
    ND_MEMORY_ACTIVATIONS, /* of one micro-batch */
    ND_MEMORY_WIRE,        /* buffers of exchanges */
    ND_MEMORY_COUNT
} nd_memory_category;

/* As in metrics.jsonl: "codes", "masters", ... */
const char *nd_memory_category_name(nd_memory_category category);

/* Bytes of the program and its libraries: resident pages of files and shared memory, and what the heap
 * holds beyond the `counted` bytes that other categories already name (workspace, loader). */
size_t nd_memory_program(size_t counted);

/* Resident set size of this process in bytes (/proc/self/statm), and its peak (VmHWM). */
size_t nd_memory_resident(void);
size_t nd_memory_resident_peak(void);

/* Bytes that processes of this machine can still take before it has to kill one: MemAvailable and free
 * swap, or what the control group leaves, whichever is less. SIZE_MAX when the system does not say. */
size_t nd_memory_available(void);
