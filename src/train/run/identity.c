#include "train/run/identity.h"

#include "core/base/build_info.h"
#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "data/data_identity.h"
#include "dist/launcher.h"
#include "train/run/libraries.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RUN_ID_COMMENT "; run_id = "
#define BASE_COMMENT "; resumed = "

/* Bytes of a path on a line of a configuration, which its other directories follow on. */
enum { BASE_PART = 900 };

/* Finishes a growing text; the caller frees `*text`, even after an error. */
static nd_status close_text(FILE *memory, char **text)
{
    const bool whole = memory && fflush(memory) == 0 && !ferror(memory);
    if (memory)
        fclose(memory);
    return ND_CHECK(whole && *text, ND_ENOMEM, "no memory for the description of a run");
}

nd_status nd_identity_create(const nd_config *config, nd_identity *identity)
{
    static const char *const places[] = {"data.data_path", "logging.run_dir",
                                         "logging.checkpoint_dir", "logging.snapshot_dir", NULL};
    ND_AUTOFREE char *text = NULL;
    size_t size = 0;
    memset(identity, 0, sizeof *identity);
    snprintf(identity->version, sizeof identity->version, "%s", nd_build_version());
    snprintf(identity->commit, sizeof identity->commit, "%s", nd_build_commit());
    snprintf(identity->launcher, sizeof identity->launcher, "%s", nd_launcher_name());
    if (gethostname(identity->host, sizeof identity->host - 1) != 0)
        strcpy(identity->host, "unknown");
    nd_build_options(identity->build, sizeof identity->build);
    nd_program_libraries(identity->libraries, sizeof identity->libraries);
    FILE *memory = open_memstream(&text, &size);
    if (memory)
        nd_config_write_facts(config, places, memory);
    ND_TRY(close_text(memory, &text));
    return nd_sha256_hex(text, size, identity->config_sha256);
}

nd_status nd_identity_add_data(nd_identity *identity, const nd_dataset *train,
                               const nd_dataset *val, uint64_t order_seed)
{
    size_t size = 0;
    FILE *memory = open_memstream(&identity->data, &size);
    if (memory)
        nd_data_identity_write(train, val, order_seed, memory);
    ND_TRY(close_text(memory, &identity->data));
    return nd_sha256_hex(identity->data, size, identity->data_sha256);
}

nd_status nd_identity_copy(const nd_identity *from, nd_identity *to)
{
    *to = *from;
    to->data = from->data ? strdup(from->data) : NULL;
    return ND_CHECK(!from->data || to->data, ND_ENOMEM, "no memory for the description of a run");
}

void nd_identity_destroy(nd_identity *identity)
{
    free(identity->data);
    memset(identity, 0, sizeof *identity);
}

nd_status nd_run_id_create(char id[ND_RUN_ID_SIZE])
{
    uint64_t bits;
    ND_FAIL_IF(getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits, ND_EIO,
               "no random number for the run's id: %s", strerror(errno));
    snprintf(id, ND_RUN_ID_SIZE, "%016llx", (unsigned long long)bits);
    return ND_OK;
}

void nd_identity_write_comments(const nd_identity *i, FILE *out)
{
    fprintf(out,
            RUN_ID_COMMENT "%s\n; config_sha256 = %s\n; data_sha256 = %s\n"
                           "; written by nanochat_dist %s, commit %s\n\n",
            i->run_id, i->config_sha256, i->data_sha256, i->version, i->commit);
}

/* What follows `name` in the comments of RUN/config.ini, on all lines that have it. */
static nd_status read_comment(const char *run_dir, const char *name, char *value, size_t length,
                              bool *exists)
{
    char path[ND_CONFIG_TEXT_MAX + 32];
    const size_t start = strlen(name);
    ND_AUTOFREE void *text = NULL;
    size_t size, used = 0;
    value[0] = '\0';
    snprintf(path, sizeof path, "%s/config.ini", run_dir);
    ND_TRY(nd_path_exists(path, exists));
    if (!*exists)
        return ND_OK;
    ND_TRY(nd_read_whole_file(path, ND_EIO, &text, &size));
    for (const char *line = text; used < length && *line; line += *line == '\n') {
        if (strncmp(line, name, start) == 0)
            used += (size_t)snprintf(value + used, length - used, "%.*s",
                                     (int)strcspn(line + start, "\r\n"), line + start);
        line += strcspn(line, "\n");
    }
    *exists = size > 0;
    return ND_OK;
}

nd_status nd_run_id_read(const char *run_dir, char id[ND_RUN_ID_SIZE], bool *foreign)
{
    bool exists;
    ND_TRY(read_comment(run_dir, RUN_ID_COMMENT, id, ND_RUN_ID_SIZE, &exists));
    if (foreign)
        *foreign = exists && !id[0];
    return ND_OK;
}

void nd_run_base_write(const char *checkpoint, FILE *out)
{
    if (strpbrk(checkpoint, "\r\n"))
        return;
    while (*checkpoint) {
        size_t part = strlen(checkpoint);
        if (part > BASE_PART)
            for (part = BASE_PART; part > 1 && checkpoint[part] != '/';)
                part--;
        fprintf(out, BASE_COMMENT "%.*s\n", (int)part, checkpoint);
        checkpoint += part;
    }
    fputc('\n', out);
}

nd_status nd_run_base_read(const char *run_dir, char *checkpoint, size_t size)
{
    bool exists;
    return read_comment(run_dir, BASE_COMMENT, checkpoint, size, &exists);
}
