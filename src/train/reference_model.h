/* The reference model of `collider_rule = excess`, to compare losses with: a checkpoint that is not
 * trained. Every rank holds its codes and the activations of one evaluated micro-batch. */
#pragma once

#include "core/config/config.h"
#include "data/dataset.h"
#include "dist/comm.h"

typedef struct nd_reference_model nd_reference_model;

/* Loads [training] collider_reference for micro-batches of the size of `like`. The caller closes
 * it. Collective. Errors: ND_ECHECKPOINT naming the checkpoint; ND_ECONFIG if its tokens are not
 * those of `data`. */
nd_status nd_reference_model_open(const nd_config *config, nd_comm *comm, const nd_dataset *data,
                                  nd_reference_model **reference);
void nd_reference_model_close(nd_reference_model *reference);

/* *losses [tokens]: next-token losses of a micro-batch (sequences of seq_length + 1 tokens), in
 * nats, valid until the next call. */
nd_status nd_reference_model_losses(nd_reference_model *reference, const int32_t *tokens,
                                    const double **losses);

/* The checkpoint's directory, for the log. */
const char *nd_reference_model_directory(const nd_reference_model *reference);
