/* The model that `collider_rule = excess` compares losses with: a checkpoint, read once and never
 * trained. Every rank holds its codes and the activations of one evaluated micro-batch. */
#pragma once

#include "core/config/config.h"
#include "data/dataset.h"
#include "dist/comm.h"

typedef struct nd_reference_model nd_reference_model;

/* Loads [training] collider_reference for micro-batches of the model `like`. Not collective. Errors:
 * ND_ECHECKPOINT naming the checkpoint, ND_ECONFIG where its tokens are not those of `data`. */
nd_status nd_reference_model_open(const nd_config *config, nd_comm *comm, const nd_dataset *data,
                                  nd_reference_model **reference);
void nd_reference_model_close(nd_reference_model *reference);

/* *losses [tokens]: next-token losses of a micro-batch (sequences of seq_length + 1 tokens), in nats,
 * valid until the next call. */
nd_status nd_reference_model_losses(nd_reference_model *reference, const int32_t *tokens,
                                    const double **losses);

/* For the log: where it was found. */
const char *nd_reference_model_directory(const nd_reference_model *reference);
