/* What a step sends, by kind, from the layout of a run alone. */
#pragma once

#include "train/run/run.h"

/* Bytes of one message about parameter `index`: the part of its gradient that goes to `owner`, on
 * one edge of the tree; its sketch likewise, in steps that have one (0: none); its weight, to one
 * replica; its projector, in steps with a new one. */
size_t nd_wire_gradient_bytes(const nd_run *run, int64_t index, int owner);
size_t nd_wire_sketch_bytes(const nd_run *run, int64_t index);
size_t nd_wire_weight_bytes(const nd_run *run, int64_t index);
size_t nd_wire_projector_bytes(const nd_run *run, int64_t index);

/* Bytes that all ranks together send in a step; sketches, projectors and outer steps are averaged
 * over the run's total_steps. Saves and replica checks are not included. */
typedef struct nd_wire_bytes {
    double gradients, sketches;
    double codes; /* ternary weights */
    double dense; /* all other weights */
    double projectors;
    double reports; /* losses and norms */
    double outer;   /* changes between workers */
} nd_wire_bytes;

/* Of a run after nd_run_prepare and nd_run_memory_measure. */
nd_wire_bytes nd_wire_bytes_of(const nd_run *run);

/* The sum over all kinds. */
double nd_wire_bytes_sum(const nd_wire_bytes *bytes);
