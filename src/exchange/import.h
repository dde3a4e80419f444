/* A model of another program as a checkpoint of step 0. */
#pragma once

#include "core/base/error.h"

#include <stdio.h>

typedef struct nd_import_options {
    const char *from; /* a directory with config.json and safetensors, in one file or in shards */
    const char *run;  /* the run's directory: the checkpoint is RUN/checkpoints/step_00000000 */
    const char *data_path; /* goes into the checkpoint's configuration */
} nd_import_options;

/* From files of nd_export_safetensors, writes masters that ternarize to the exported codes and
 * scales; from others, the weights become the masters, which the first step makes ternary. Prints
 * notes for the user to `out`. Errors: ND_EDATA naming file and tensor; ND_ECONFIG when the run has
 * checkpoints already; ND_ECHECKPOINT and ND_EIO when it cannot be written. */
nd_status nd_import_safetensors(const nd_import_options *options, FILE *out);
