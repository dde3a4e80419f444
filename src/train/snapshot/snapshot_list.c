/* RUN/snapshot_hosts lists the hosts that may hold snapshots of the run, one "HOST DIRECTORY" per
 * line, after a first one, "of RUN", with the run's directory: a copy of that directory, while the
 * original is there, does not go by the list. Lost hosts stay in it until the run uses them again;
 * launch/run.sh cleans up by this list. A second line, "HOST STEP", says that the run continued
 * from STEP without the host: what it holds of later steps belongs to an abandoned branch. */
#include "core/base/durable_file.h"
#include "train/snapshot/snapshot_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_here(const nd_run *run, const char *host)
{
    for (int r = 0; r < run->comm->size; r++)
        if (strcmp(run->saving.snapshots->hosts.names[r], host) == 0)
            return true;
    return false;
}

static void list_present(const nd_run *run, FILE *out)
{
    const nd_snapshots *s = run->saving.snapshots;
    int listed = 0;
    for (int r = 0; r < run->comm->size; r++)
        if (s->hosts.of[r] == listed) {
            fprintf(out, "%s %s/%s/%s\n", s->hosts.names[r], s->root, run->identity.run_id,
                    s->hosts.names[r]);
            listed++;
        }
}

static bool is_step(const char *text, int64_t *step)
{
    char *end;
    *step = strtoll(text, &end, 10);
    return end > text && (*end == '\0' || *end == '\n');
}

/* The step of a host's second line in `text`; INT64_MAX: it has none. */
static int64_t limit_of(const char *text, const char *host)
{
    const size_t length = strlen(host);
    int64_t step;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, host, length) == 0 && line[length] == ' ' &&
            is_step(line + length + 1, &step))
            return step;
    }
    return INT64_MAX;
}

/* NULL where there is no list, or it is that of another directory. */
static nd_status read_list(const nd_run *run, const char *path, char **text)
{
    void *all = NULL;
    size_t size;
    char of[ND_CHECKPOINT_PATH_MAX];
    if (access(path, F_OK) == 0)
        ND_TRY(nd_read_whole_file(path, ND_EIO, &all, &size));
    if (all && sscanf(all, "of %4095[^\n]", of) == 1 && nd_snapshot_is_copy(run, of)) {
        free(all);
        all = NULL;
    }
    *text = all;
    return ND_OK;
}

static nd_status path_of(const nd_run *run, char path[ND_CHECKPOINT_PATH_MAX])
{
    return nd_checkpoint_join(path, run->config.logging.run_dir, "snapshot_hosts");
}

/* Those of the file whose hosts have no rank now. */
static nd_status list_absent(nd_run *run, const char *path, int64_t after, bool ended, FILE *out)
{
    ND_AUTOFREE char *text = NULL;
    int64_t step;
    ND_TRY(read_list(run, path, &text));
    char *rest = text;
    for (char *host; (host = strsep(&rest, "\n")) != NULL;) {
        char *directory = strchr(host, ' ');
        if (!directory)
            continue;
        *directory++ = '\0';
        if (strcmp(host, "of") == 0 || is_step(directory, &step) || is_here(run, host))
            continue;
        const int64_t limit = rest ? limit_of(rest, host) : INT64_MAX;
        fprintf(out, "%s %s\n%s %lld\n", host, directory, host,
                (long long)(limit < after ? limit : after));
        if (ended)
            nd_log_line(&run->log,
                        "snapshot host %s, which the run has lost, may still hold its snapshots: "
                        "launch/run.sh removes them, or remove %s there",
                        host, directory);
    }
    return ND_OK;
}

static nd_status write_list(nd_run *run, int64_t after, bool ended)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_AUTOFREE char *text = NULL, *real = realpath(run->config.logging.run_dir, NULL);
    size_t size = 0;
    ND_TRY(path_of(run, path));
    FILE *out = open_memstream(&text, &size);
    ND_FAIL_IF(!out, ND_ENOMEM, "no memory for the list of hosts with snapshots");
    const int head = fprintf(out, "of %s\n", real ? real : run->config.logging.run_dir);
    nd_status status = list_absent(run, path, after, ended, out);
    if (!ended && run->config.logging.snapshot_interval > 0 && !run->saving.snapshots->off)
        list_present(run, out);
    if (fclose(out) != 0 && status == ND_OK)
        status = ND_FAIL(ND_ENOMEM, "no memory for the list of hosts with snapshots");
    if (status == ND_OK && size > (size_t)head)
        status = nd_durable_write(path, text, size);
    else if (status == ND_OK && unlink(path) != 0 && errno != ENOENT)
        status = ND_FAIL(ND_EIO, "cannot remove %s: %s", path, strerror(errno));
    return status;
}

void nd_snapshots_list(nd_run *run, int64_t after, bool ended)
{
    const nd_error error = *nd_error_get();
    if (run->comm->rank != 0 || !run->saving.snapshots)
        return;
    nd_error_clear();
    if (write_list(run, after, ended) != ND_OK)
        nd_log_line(&run->log, "warning: %s", nd_error_get()->message);
    nd_error_set(&error);
}

/* Rank 0: the limits of all ranks' hosts. */
static nd_status read_limits(nd_run *run, int64_t *limits)
{
    const nd_hosts *hosts = &run->saving.snapshots->hosts;
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_AUTOFREE char *text = NULL;
    int hosts_seen = 0;
    ND_TRY(path_of(run, path));
    ND_TRY(read_list(run, path, &text));
    for (int r = 0; text && r < run->comm->size; r++) {
        const bool first = hosts->of[r] == hosts_seen;
        hosts_seen += first;
        limits[r] = limit_of(text, hosts->names[r]);
        if (first && limits[r] < 0)
            nd_log_line(&run->log, "snapshot host %s was away: what it holds is not used",
                        hosts->names[r]);
        else if (first && limits[r] < INT64_MAX)
            nd_log_line(&run->log,
                        "snapshot host %s was away: what it holds of steps after %lld is not used",
                        hosts->names[r], (long long)limits[r]);
    }
    return ND_OK;
}

nd_status nd_snapshot_find_limit(nd_run *run)
{
    const size_t ranks = (size_t)run->comm->size;
    ND_AUTOFREE int64_t *limits = malloc(ranks * sizeof *limits);
    ND_TRY(nd_comm_agree(run->comm, ND_CHECK(limits, ND_ENOMEM, "no memory for %zu steps", ranks)));
    for (size_t r = 0; r < ranks; r++)
        limits[r] = INT64_MAX;
    if (run->comm->rank == 0 && run->identity.run_id[0] && read_limits(run, limits) != ND_OK) {
        nd_log_line(&run->log, "warning: %s", nd_error_get()->message);
        nd_error_clear();
    }
    const nd_status status = run->comm->ops.broadcast(run->comm, limits, ranks * sizeof *limits, 0);
    run->saving.snapshots->limit = limits[run->comm->rank];
    return status;
}
