/* Identifies a run: its id, and fingerprints of what it computes from. They are in manifests, in
 * config.ini and in every line of the metrics. Ranks compare them before training, and a run that
 * resumes compares them with the checkpoint's. */
#pragma once

#include "core/base/sha256.h"
#include "core/config/config.h"
#include "data/dataset.h"
#include "dist/comm.h"

enum { ND_RUN_ID_SIZE = 17 }; /* 16 hex digits and the terminator */

typedef struct nd_identity {
    char run_id[ND_RUN_ID_SIZE]; /* made at a fresh start, kept on resume; "" when unknown */
    char config_sha256[ND_SHA256_HEX_SIZE]; /* of all keys except those that name paths */
    char data_sha256[ND_SHA256_HEX_SIZE];   /* of `data` */
    char *data; /* the text of nd_data_identity_write; owned; NULL when unknown */

    /* Of the program that wrote it; "" when unknown. */
    char version[32], commit[64], host[128], launcher[64];
    char build[256], libraries[384];
} nd_identity;

/* Identifies program, host, launcher and configuration, but no run. The caller destroys it. */
nd_status nd_identity_create(const nd_config *config, nd_identity *identity);

/* Adds the identity of the data. Errors: ND_EDATA, ND_ENOMEM. */
nd_status nd_identity_add_data(nd_identity *identity, const nd_dataset *train,
                               const nd_dataset *val, uint64_t order_seed);

/* A deep copy. */
nd_status nd_identity_copy(const nd_identity *from, nd_identity *to);
void nd_identity_destroy(nd_identity *identity);

/* A new random id. */
nd_status nd_run_id_create(char id[ND_RUN_ID_SIZE]);

/* Writes the identity as comments for the head of an INI file. */
void nd_identity_write_comments(const nd_identity *identity, FILE *out);

/* The comment, after that head, of a run that begins with a checkpoint of another directory; and
 * the checkpoint it names, "" when there is none. Errors: ND_EIO when config.ini cannot be read. */
void nd_run_base_write(const char *checkpoint, FILE *out);
nd_status nd_run_base_read(const char *run_dir, char *checkpoint, size_t size);

/* Reads the id from the comments of RUN/config.ini; "" when there is none. *foreign (may be NULL):
 * the file exists without an id, so it is the user's. Errors: ND_EIO when it cannot be read. */
nd_status nd_run_id_read(const char *run_dir, char id[ND_RUN_ID_SIZE], bool *foreign);

/* Compare the program and the configuration, and the data, with those of rank 0. Collective. Errors
 * on all ranks: ND_ECONFIG for another program or a differing key that must not differ, ND_EDATA
 * for other data, naming the first difference, the rank and both values. */
nd_status nd_identity_compare_programs(const nd_config *config, const char *resume, nd_comm *comm);
nd_status nd_identity_compare_data(const nd_identity *identity, nd_comm *comm);
