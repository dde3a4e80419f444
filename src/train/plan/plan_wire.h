/* What a step sends, by kind, from the layout of a run alone. */
#pragma once

#include "train/run.h"

/* Bytes of one message: what `owner` gets of parameter `index`'s gradient, on one edge of the tree; its sketch
 * likewise, in steps that have one (0: it has none); its weight to one replica, and its projector likewise, in steps
 * that have a new one. */
size_t nd_wire_gradient_bytes(const nd_run *run, int64_t index, int owner);
size_t nd_wire_sketch_bytes(const nd_run *run, int64_t index);
size_t nd_wire_weight_bytes(const nd_run *run, int64_t index);
size_t nd_wire_projector_bytes(const nd_run *run, int64_t index);

/* Sent in a step by all ranks together; sketches and projectors on average over galore_update_freq
 * steps. Saving and comparing replicas are no part of a step. */
typedef struct nd_wire_bytes {
    double gradients, sketches;
    double codes; /* ternary weights */
    double dense; /* all other weights */
    double projectors;
    double reports; /* losses and norms */
    double outer;   /* changes between workers, on average over sync_every steps */
} nd_wire_bytes;

/* From a run that is prepared and measured. */
nd_wire_bytes nd_wire_bytes_of(const nd_run *run);

/* Of all kinds. */
double nd_wire_bytes_sum(const nd_wire_bytes *bytes);
