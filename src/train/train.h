/* A whole training run: from a checked configuration to the last checkpoint. */
#pragma once

#include "core/config/config.h"
#include "dist/comm.h"

typedef struct nd_train_options {
    nd_config config;   /* checked */
    const char *resume; /* "auto", "none", or an argument of nd_checkpoint_resolve */
    bool new_data;      /* resume although the data has changed */
} nd_train_options;

/* Trains. Collective. Returns ND_OK after the last step, ND_ESTOPPED after saving because of a
 * signal, or an error. */
nd_status nd_train(const nd_train_options *options, nd_comm *comm);
