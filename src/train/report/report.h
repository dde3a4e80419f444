/* The report of runs: what their directories say, in tables and pictures, and for runs of the E3 suite
 * each claim beside what was measured. Reads config.ini, metrics.jsonl, training.log, command.txt and
 * the newest checkpoint's manifest; a run that died is reported as far as it came. */
#ifndef ND_TRAIN_REPORT_REPORT_H
#define ND_TRAIN_REPORT_REPORT_H

#include "core/config/config.h"

#include <stddef.h>
#include <stdio.h>

enum { ND_REPORT_CATEGORIES_MAX = 24, ND_REPORT_NAME_MAX = 128 };

/* The five configurations of the suite, told apart by the systems that are on. */
typedef enum nd_report_role {
    ND_REPORT_OTHER,
    ND_REPORT_BASELINE,  /* none */
    ND_REPORT_MTP_ONLY,  /* multi-token prediction */
    ND_REPORT_MUON_8BIT, /* and Collider, optimizer state in 8 or 4 bits */
    ND_REPORT_GALORE2,   /* and Collider, low-rank projection */
    ND_REPORT_FULL,      /* all of these, and gradient checkpointing */
    ND_REPORT_ROLES
} nd_report_role;

/* One line of metrics.jsonl; what it lacks is NaN. `rss` is the peak so far where that is told. */
typedef struct nd_report_step {
    double step, tokens, loss, val_loss, val_bpb, grad_norm, step_ms, data_wait_ms, comm_wait_ms,
        comm_busy_ms, comm_bytes, kept_fraction, restarts, rss, matrix_state_bytes, matrix_weights;
} nd_report_step;

typedef struct nd_report_run {
    char path[4096];
    char name[ND_REPORT_NAME_MAX]; /* unique in the report */
    nd_report_role role;
    nd_config *config; /* NULL when there is none that can be read */
    nd_report_step *steps;
    size_t count;
    double memory[ND_REPORT_CATEGORIES_MAX]; /* largest over the run, rank 0; NaN: never written */
    int64_t parameters;                      /* 0: unknown */
    int64_t matrix_parameters;               /* of them ternary */
    int ranks;                               /* 0: unknown */
    bool finished;
    double matrix_state_bytes; /* of the ternary matrices in the newest checkpoint, all ranks */
    double state_bytes;        /* of all parameters; NaN without a checkpoint */
    char *notes;               /* what is unusual about it, one a line */
    char *command;             /* command.txt, or NULL */
} nd_report_run;

typedef struct nd_report {
    nd_report_run *runs;
    int count;
    char categories[ND_REPORT_CATEGORIES_MAX][32]; /* of memory, in the order first seen */
    int category_count;
} nd_report;

/* Reads the runs in `paths`. Errors: ND_EDATA naming a path that is no run's directory. */
nd_status nd_report_read(const char *const *paths, int count, nd_report *report);
void nd_report_destroy(nd_report *report);

/* Writes `directory`/REPORT.md, and data, gnuplot scripts and pictures beside it. Errors: ND_EIO. */
nd_status nd_report_write(const nd_report *report, const char *directory);

/* "baseline" ...; "" for ND_REPORT_OTHER. */
const char *nd_report_role_name(nd_report_role role);

/* The role whose systems are on in `config`, or ND_REPORT_OTHER. */
nd_report_role nd_report_role_of_config(const nd_config *config);

/* The role a directory is named after: "full", "full_seed_7". */
nd_report_role nd_report_role_of_name(const char *name);

#endif
