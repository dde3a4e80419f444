/* What the ranks of an emulated NCCL enqueue, and the memory that it uses. */
#pragma once

#include "nccl_link.h"

typedef struct nd_emulated_message {
    bool receives, done;
    int peer;
    char *data; /* of a send it is read alone */
    size_t bytes;
} nd_emulated_message;

/* Memory of an operation. */
typedef struct nd_emulated_range {
    const char *from, *to;
    bool written;
} nd_emulated_range;

/* What was enqueued. */
typedef struct nd_emulated_operation {
    enum { ND_EMULATED_GROUP, ND_EMULATED_ENCODE, ND_EMULATED_ADD, ND_EMULATED_AFTER } kind;
    union {
        nd_emulated_message *messages; /* [count] */
        nd_gradient_part *parts;       /* [count] */
        struct {
            nd_nccl_queue number; /* has done so many */
            int64_t done;
        } first;
    } of;
    int count;
    int number;                /* of a group, among the rank's */
    nd_emulated_range *ranges; /* [range_count] */
    int range_count;
} nd_emulated_operation;

/* Notes the memory of a group or a launch. Errors: ND_ENOMEM. */
nd_status nd_emulated_ranges(nd_emulated_operation *operation);

/* Whether one writes what the other uses; of one by itself, whether a part of it does. */
bool nd_emulated_clash(const nd_emulated_operation *a, const nd_emulated_operation *b);

/* A launch, whose parts have no order. */
void nd_emulated_compute(const nd_emulated_operation *operation);

void nd_emulated_operation_free(nd_emulated_operation *operation);
