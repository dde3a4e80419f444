#include "train/run/lock_owner.h"

#include "core/base/machine.h"
#include "data/text/json.h"
#include "dist/launcher.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The start time of a process in clock ticks since boot; -1 if there is none or it is a zombie. */
static int64_t process_start(int64_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    nd_first_line(path, line, sizeof line);
    const char *at = strrchr(line, ')'); /* the name before it may contain anything */
    char state;
    long long start;
    if (!at ||
        sscanf(at + 1,
               " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld",
               &state, &start) != 2 ||
        state == 'Z' || state == 'X')
        return -1;
    return start;
}

static int64_t number_of(const char *variable)
{
    const char *text = getenv(variable);
    return text ? atoll(text) : 0;
}

void nd_lock_owner_self(nd_lock_owner *self)
{
    struct stat namespace;
    struct tm local;
    const time_t now = time(NULL);
    *self = (nd_lock_owner){.pid = getpid(), .process_start = process_start(getpid())};
    if (gethostname(self->host, sizeof self->host - 1) != 0)
        strcpy(self->host, "unknown");
    nd_first_line("/etc/machine-id", self->machine, sizeof self->machine);
    nd_first_line("/proc/sys/kernel/random/boot_id", self->boot, sizeof self->boot);
    if (stat("/proc/self/ns/pid", &namespace) == 0)
        self->pid_namespace = (int64_t) namespace.st_ino;
    if (localtime_r(&now, &local))
        strftime(self->started, sizeof self->started, "%Y-%m-%d %H:%M:%S", &local);
    snprintf(self->launcher, sizeof self->launcher, "%s", nd_launcher_name());
    self->slurm_job = number_of("SLURM_JOB_ID");
    self->slurm_restarts = number_of("SLURM_RESTART_COUNT");
}

int nd_lock_owner_format(const nd_lock_owner *o, char *text, size_t size)
{
    json_auto_t *root =
        json_pack("{s:s,s:I,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:b,s:I,s:I,s:I}", "host", o->host, "pid",
                  (json_int_t)o->pid, "run_id", o->run_id, "started", o->started, "launcher",
                  o->launcher, "boot_id", o->boot, "machine_id", o->machine, "process_start",
                  (json_int_t)o->process_start, "pid_namespace", (json_int_t)o->pid_namespace,
                  "file_lock", (int)o->locked, "slurm_job", (json_int_t)o->slurm_job,
                  "slurm_restarts", (json_int_t)o->slurm_restarts, "inode", (json_int_t)o->inode);
    const size_t length = root ? json_dumpb(root, text, size, JSON_INDENT(1)) : 0;
    return length > 0 && length < size ? (text[length] = '\n', (int)length + 1) : -1;
}

static void copy(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

bool nd_lock_owner_parse(const char *text, size_t size, nd_lock_owner *o)
{
    const char *host, *run_id, *started, *launcher, *boot, *machine;
    json_int_t pid, start, namespace, job, restarts, inode = 0;
    int locked;
    json_auto_t *root = NULL;
    if (nd_json_parse(text, size, 0, "the record of a lock", &root, NULL) != ND_OK)
        nd_error_clear();
    const bool whole =
        root && json_unpack(root, "{s:s,s:I,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:b,s:I,s:I,s?:I}", "host",
                            &host, "pid", &pid, "run_id", &run_id, "started", &started, "launcher",
                            &launcher, "boot_id", &boot, "machine_id", &machine, "process_start",
                            &start, "pid_namespace", &namespace, "file_lock", &locked, "slurm_job",
                            &job, "slurm_restarts", &restarts, "inode", &inode) == 0;
    if (whole) {
        *o = (nd_lock_owner){.pid = pid,
                             .process_start = start,
                             .pid_namespace = namespace,
                             .locked = locked != 0,
                             .slurm_job = job,
                             .slurm_restarts = restarts,
                             .inode = inode};
        copy(o->host, sizeof o->host, host);
        copy(o->run_id, sizeof o->run_id, run_id);
        copy(o->started, sizeof o->started, started);
        copy(o->launcher, sizeof o->launcher, launcher);
        copy(o->boot, sizeof o->boot, boot);
        copy(o->machine, sizeof o->machine, machine);
    }
    return whole;
}

nd_owner_state nd_lock_owner_state(const nd_lock_owner *o, const nd_lock_owner *self,
                                   nd_file_lock lock, bool reaches_all)
{
    const bool same_host =
        strcmp(o->host, self->host) == 0 &&
        (!o->machine[0] || !self->machine[0] || strcmp(o->machine, self->machine) == 0);
    const bool same_boot = strcmp(o->boot, self->boot) == 0 && (self->boot[0] || same_host);
    if (lock == ND_FILE_LOCK_HELD)
        return ND_OWNER_ALIVE;
    /* Same kernel: a living owner has another file locked, of which this is a copy. */
    if (same_boot && lock == ND_FILE_LOCK_FREE && o->locked && o->inode && o->inode != self->inode)
        return ND_OWNER_GONE;
    if (same_boot && o->pid_namespace == self->pid_namespace)
        return process_start(o->pid) == o->process_start ? ND_OWNER_ALIVE : ND_OWNER_GONE;
    /* A neighboring container: other pids, but the same kernel, which knows all locks. */
    if (same_boot)
        return lock == ND_FILE_LOCK_FREE && o->locked ? ND_OWNER_GONE : ND_OWNER_UNKNOWN;
    if (same_host)
        return ND_OWNER_GONE;
    if (lock == ND_FILE_LOCK_FREE && o->locked && reaches_all)
        return ND_OWNER_GONE;
    if (o->slurm_job > 0 && o->slurm_job == self->slurm_job &&
        o->slurm_restarts < self->slurm_restarts)
        return ND_OWNER_GONE;
    return ND_OWNER_UNKNOWN;
}

void nd_lock_owner_describe(const nd_lock_owner *o, char *text, size_t size)
{
    const bool launched = o->launcher[0] && strcmp(o->launcher, "none") != 0;
    snprintf(text, size, "process %lld on host %s (%s%s%sstarted %s%s%s)", (long long)o->pid,
             o->host, o->run_id[0] ? "run " : "", o->run_id, o->run_id[0] ? ", " : "", o->started,
             launched ? " by " : "", launched ? o->launcher : "");
}
