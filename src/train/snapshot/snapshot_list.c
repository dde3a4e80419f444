/* RUN/snapshot_hosts lists the hosts that may hold snapshots of the run, one "HOST DIRECTORY" per
 * line. Lost hosts stay in it until the run uses them again; launch/run.sh cleans up by
 * this list. */
#include "core/base/durable_file.h"
#include "train/snapshot/snapshot_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIST_BYTES_MAX = 1 << 20 };

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

/* Hosts in the file that have no rank now. */
static nd_status list_absent(nd_run *run, const char *path, bool ended, FILE *out)
{
    void *text;
    size_t size;
    if (access(path, F_OK) != 0)
        return ND_OK;
    ND_TRY(nd_read_whole_file(path, LIST_BYTES_MAX, ND_EIO, &text, &size));
    char *rest = text;
    for (char *host; (host = strsep(&rest, "\n")) != NULL;) {
        char *directory = strchr(host, ' ');
        if (!directory)
            continue;
        *directory++ = '\0';
        if (is_here(run, host))
            continue;
        fprintf(out, "%s %s\n", host, directory);
        if (ended)
            nd_log_line(&run->log,
                        "snapshot host %s, which the run has lost, may hold snapshots of it still: "
                        "launch/run.sh removes them, or ssh %s rm -r %s",
                        host, host, directory);
    }
    free(text);
    return ND_OK;
}

static nd_status write_list(nd_run *run, bool ended)
{
    char path[ND_CHECKPOINT_PATH_MAX], *text = NULL;
    size_t size = 0;
    ND_TRY(nd_checkpoint_join(path, sizeof path, run->config.logging.run_dir, "snapshot_hosts"));
    FILE *out = open_memstream(&text, &size);
    ND_FAIL_IF(!out, ND_ENOMEM, "no memory for the list of hosts with snapshots");
    nd_status status = list_absent(run, path, ended, out);
    if (!ended && run->config.logging.snapshot_interval > 0 && !run->saving.snapshots->off)
        list_present(run, out);
    if (fclose(out) != 0 && status == ND_OK)
        status = ND_FAIL(ND_ENOMEM, "no memory for the list of hosts with snapshots");
    if (status == ND_OK && size > 0)
        status = nd_durable_write(path, text, size);
    else if (status == ND_OK && unlink(path) != 0 && errno != ENOENT)
        status = ND_FAIL(ND_EIO, "cannot remove %s: %s", path, strerror(errno));
    free(text);
    return status;
}

void nd_snapshots_list(nd_run *run, bool ended)
{
    const nd_error error = *nd_error_get();
    if (run->comm->rank != 0 || !run->saving.snapshots)
        return;
    nd_error_clear();
    if (write_list(run, ended) != ND_OK)
        nd_log_line(&run->log, "warning: %s", nd_error_get()->message);
    nd_error_set(&error);
}
