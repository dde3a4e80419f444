/* Held-out loss. */
#pragma once

#include "core/model/model.h"
#include "data/dataset.h"
#include "dist/comm.h"

typedef struct nd_evaluation {
    double loss; /* mean next-token cross-entropy, nats per token */
    /* per byte of the text of these tokens; 0 when unknown (synthetic data) */
    double bits_per_byte;
    int64_t tokens;
    int64_t sequences;
} nd_evaluation;

/* Mean loss over the first `samples` windows of a dataset (0: all), distributed over the ranks,
 * with the same bits on any number of ranks. Collective. Errors: ND_EDATA for a dataset without
 * windows. */
nd_status nd_evaluate(nd_model *model, const nd_dataset *dataset, nd_comm *comm, int64_t samples,
                      nd_evaluation *evaluation);
