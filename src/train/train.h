/* A whole training run: from a checked configuration to the last checkpoint. */
#pragma once

#include "core/config/config.h"
#include "dist/comm.h"

typedef struct nd_train_options {
    nd_config config;   /* checked */
    const char *resume; /* "auto", "none", or what nd_checkpoint_resolve takes */
    bool new_data;      /* resume although the data has changed */
} nd_train_options;

/* Collective. ND_OK when the last step is done; ND_ESTOPPED after saving on a signal. */
nd_status nd_train(const nd_train_options *options, nd_comm *comm);
