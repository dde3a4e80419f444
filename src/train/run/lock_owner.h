/* The owner of a lock: a process, identified uniquely, so that its end can be detected. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ND_LOCK_OWNER_TEXT_MAX = 2048 };

typedef struct nd_lock_owner {
    char host[128];
    char machine[40]; /* /etc/machine-id; "" where there is none */
    char boot[40];    /* the kernel's boot id, which changes with every boot */
    int64_t pid, pid_namespace;
    int64_t process_start; /* clock ticks since the machine's start */
    bool locked;           /* it holds flock() on the file */
    char run_id[40];       /* "" until it is known */
    char started[40], launcher[64];
    int64_t slurm_job, slurm_restarts; /* 0 outside Slurm */
    int64_t inode;                     /* of the file with this record; 0: unknown */
} nd_lock_owner;

typedef enum nd_owner_state { ND_OWNER_ALIVE, ND_OWNER_GONE, ND_OWNER_UNKNOWN } nd_owner_state;

/* What this process can tell about the file lock on the record. */
typedef enum nd_file_lock { ND_FILE_LOCK_FREE, ND_FILE_LOCK_HELD, ND_FILE_LOCK_NONE } nd_file_lock;

/* Fills in this process. */
void nd_lock_owner_self(nd_lock_owner *self);

/* To JSON and back; nd_lock_owner_parse returns false for an incomplete record. */
int nd_lock_owner_format(const nd_lock_owner *owner, char *text, size_t size);
bool nd_lock_owner_parse(const char *text, size_t size, nd_lock_owner *owner);

/* Whether the owner has ended, as far as `self` can tell. ND_FILE_LOCK_FREE: this process holds the
 * file lock, so the owner does not. `reaches_all`: file locks on this file system work across
 * machines. */
nd_owner_state nd_lock_owner_state(const nd_lock_owner *owner, const nd_lock_owner *self,
                                   nd_file_lock lock, bool reaches_all);

/* "process 12 on host a (run 5f.., started 2026-01-31 23:59:59 by srun)" */
void nd_lock_owner_describe(const nd_lock_owner *owner, char *text, size_t size);
