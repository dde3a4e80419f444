/* The comm contract: how ranks communicate. `rank` and `size` mean MPI rank and size. Not
 * thread-safe: one thread calls it.
 *
 * Unless stated otherwise every function is collective over all ranks, which must call the same
 * functions in the same order with matching arguments. Implementations: solo (one process, no MPI
 * calls), mpi, mpi with nccl for GPU memory (cuda/nccl_comm.h), and simulated (all ranks in one
 * process, dist/simulation/simulation.h). Waiting for a rank longer than timeout_seconds, and a
 * rank that is in another collective, are ND_EPEER errors; after one every collective fails, and
 * the comm can only be aborted or destroyed.
 *
 * All memory is host memory, except in reduce_to_owners, begin_reduction, begin_broadcast,
 * begin_broadcast_each and the functions whose names end in _device: their gradients and weights
 * are in memory of the run's backend, comm->device. With `streamed` these exchanges are ordered
 * like ops of that backend: calls return at once, and an error may surface in a later call or in
 * the backend's next download. */
#pragma once

#include "core/backend/backend.h"
#include "core/config/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_comm nd_comm;

enum { ND_COMM_TIMEOUT_DEFAULT = 600 };

/* The ranks first, first + stride, ... of a comm, `count` of them. */
typedef struct nd_comm_subset {
    int first, stride, count;
} nd_comm_subset;

/* The distribution of a sum's leaves: rank r holds leaves [r*n, (r+1)*n), n = leaves / size. */
typedef struct nd_comm_split {
    int64_t leaves; /* a multiple of the number of ranks */
    /* with one leaf per rank: the implementation may add them in any order, and adds those of a
     * host first */
    bool any_order;
} nd_comm_split;

/* One buffer of a reduction: its sum over the leaves of all ranks goes to every group's `owner`. */
typedef struct nd_comm_piece {
    /* [slots] this rank's partial sums, one for each maximal block of its leaves; overwritten */
    float *const *slots;
    int64_t count;    /* floats in each slot */
    int owner;        /* member of its group, 0 to nd_comm_group(comm) - 1 */
    int taker;        /* the rank that adds up rounded sums; with one group: the owner */
    float *result;    /* out: on owners the slot that holds the sum; NULL elsewhere */
    const char *name; /* of the tensor, for errors; may be NULL */
    /* The format on the wire, the same on all ranks, and the residual
     * (dist/reduction/gradient_wire.h) of what this rank sends, in the same memory as the slots;
     * NULL: no error feedback. */
    nd_gradient_wire format;
    void *residual;
    int merged; /* which of several merged reductions it belongs to; 0 from callers */
} nd_comm_piece;

/* A rank's part in an exchange: what it sends to `to` and receives from `from`. Both ranks of a
 * message know its size. */
typedef struct nd_comm_exchange {
    const void *out;
    size_t out_bytes;
    int to;
    void *in;
    size_t in_bytes;
    int from;
} nd_comm_exchange;

typedef struct nd_comm_ops {
    const char *name;
    void (*destroy)(nd_comm *comm);
    nd_status (*barrier)(nd_comm *comm);

    /* Copies `bytes` bytes from `root` to every rank, in place. */
    nd_status (*broadcast)(nd_comm *comm, void *data, size_t bytes, int root);

    /* Broadcast within each group, from its member `root`: in host memory, and in memory of
     * comm->device. */
    nd_status (*broadcast_group)(nd_comm *comm, void *data, size_t bytes, int root);
    nd_status (*broadcast_device)(nd_comm *comm, void *data, size_t bytes, int root);

    /* Copies buffers[m][0..bytes[m]) from every member m of a group to the whole group, in place;
     * every rank knows all sizes. In host memory, and in memory of comm->device. NULL: one
     * broadcast after another (nd_comm_broadcast_each). */
    nd_status (*broadcast_each)(nd_comm *comm, void *const *buffers, const size_t *bytes);
    nd_status (*broadcast_each_device)(nd_comm *comm, void *const *buffers, const size_t *bytes);

    /* all[r*bytes ...] = `mine` of rank r, on every rank. */
    nd_status (*allgather)(nd_comm *comm, void *all, const void *mine, size_t bytes);

    /* On `root`, all = `mine` of every rank, in the order of ranks; `all` is not read elsewhere.
     * Rank r passes bytes[r] bytes: the root knows all sizes, another rank its own. */
    nd_status (*gather)(nd_comm *comm, void *all, const void *mine, const size_t *bytes, int root);

    /* Sums every piece to its owners in f32, along the tree over leaves of core/base/sum_tree.h, so
     * that the bits depend neither on the number of ranks nor on groups or ownership. Where a
     * piece's format rounds messages, the bits depend on the number of ranks and on the takers. */
    nd_status (*reduce_to_owners)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                  int64_t count);

    /* Non-blocking forms of reduce_to_owners, broadcast_device and nd_comm_broadcast_each. Where
     * nd_comm_overlaps they return at once, and the memory of their arguments belongs to the comm
     * until `finish`; elsewhere they are complete on return. Several may be in flight, each of
     * memory of its own: they run in the order of the calls. Errors: also those of operations in
     * flight. */
    nd_status (*begin_reduction)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                 int64_t count);
    nd_status (*begin_broadcast)(nd_comm *comm, void *data, size_t bytes, int root);
    nd_status (*begin_broadcast_each)(nd_comm *comm, void *const *buffers, const size_t *bytes);

    /* Non-blocking: sends a message in host memory to one rank and receives one from another;
     * either may be empty. Ranks with nothing to exchange call it, too. It overlaps where
     * `threaded`, whatever comm->device is. */
    nd_status (*begin_exchange)(nd_comm *comm, const nd_comm_exchange *exchange);

    /* The same in memory of comm->device, ordered as with `streamed`. NULL: the comm sends from
     * host memory only. */
    nd_status (*begin_exchange_device)(nd_comm *comm, const nd_comm_exchange *exchange);
    nd_status (*finish)(nd_comm *comm);

    /* Implements nd_comm_part. NULL: the comm has no other processes. */
    nd_status (*part)(nd_comm *comm, nd_comm_subset of, nd_comm *part);

    /* Terminates the whole job with this exit code; does not return under mpi. Not collective. */
    void (*abort)(nd_comm *comm, int exit_code);
} nd_comm_ops;

struct nd_comm {
    nd_comm_ops ops;
    int rank;
    int size;
    int local_rank;      /* among the ranks on the same machine */
    int local_size;      /* ranks on the same machine */
    int host_ranks;      /* consecutive ranks on every host; 0: hosts differ, or it is not known */
    int group_ranks;     /* in: consecutive ranks that form a group; 0: one group of all ranks */
    double wait_seconds; /* time that the caller's thread has spent inside collectives */
    /* Payload bytes that this rank has sent since creation, and time spent in messages, in any
     * thread; up to date after `finish`. */
    uint64_t bytes_sent;
    double busy_seconds;
    uint64_t batches; /* completed non-blocking reductions, those merged into one counted once */
    bool overlap;     /* in: non-blocking operations may overlap the caller's computation */
    bool threaded;    /* the implementation can overlap in host memory, with a thread */
    bool streamed;    /* it can overlap in memory of `device`, in the device's own order */
    /* in: which ranks add, where the implementation can choose and any order is allowed */
    nd_reduction reduction;
    /* in: bytes of a part of a long message, a multiple of 256 and at most ND_WIRE_PART_BYTES, the
     * default; the same on all ranks. */
    size_t part_bytes;
    nd_grad_compression grad_compression; /* in: whether exact gradients are compressed on their way
                                             to other hosts */
    nd_backend *device;                   /* not owned; NULL: host memory */

    /* For errors: where this rank is in the run. `phase` has static storage. */
    int64_t step;
    const char *phase;
    double timeout_seconds;       /* a longer wait for a rank fails the job (ND_EPEER) */
    bool (*stop_requested)(void); /* whether a signal requested a stop; may be NULL */

    void *context; /* of the implementation */
};

/* Creates the comm: solo when the process was started alone, mpi under mpirun or srun. The caller
 * destroys it. Errors of nd_comm_create: ND_ECONFIG on every rank when the launcher started more
 * processes than there are ranks (dist/launcher.h); ND_ENOMEM. A rank of several that cannot create
 * its part says why and aborts the job. */
nd_status nd_comm_create(nd_comm **comm);
nd_status nd_comm_create_solo(nd_comm **comm);
nd_status nd_comm_create_mpi(nd_comm **comm);

/* The version of the MPI library, e.g. "Open MPI v4.1.4". */
void nd_comm_library(char *text, size_t size);

/* Creates a comm of the ranks in `of`, which include this one, in their order; the caller destroys
 * it before `comm`. It inherits the timeouts and the overlap that `comm` has at this moment. Ranks
 * that pass different subsets get different comms. Only one of the two comms may have operations in
 * flight. A part of a comm without other processes, as `plan` uses, has a rank and a size and
 * nothing else. Collective over `comm`. Errors: ND_ENOMEM, ND_EPEER. */
nd_status nd_comm_part(nd_comm *comm, nd_comm_subset of, nd_comm **part);

/* Collective unless a function of `comm` has failed: ends with a barrier. */
void nd_comm_destroy(nd_comm *comm);

/* Sets comm->device: the memory of gradients and weights from now on. NULL: host memory. Not
 * collective. */
void nd_comm_set_device(nd_comm *comm, nd_backend *backend);

/* Whether begin_reduction and begin_broadcast return before they complete: overlap is requested,
 * there are several ranks, and it is possible in the memory used. The same on all ranks. */
bool nd_comm_overlaps(const nd_comm *comm);

/* nd_comm_ops.broadcast_each in memory of comm->device, or of the host if that is NULL.
 * Collective. */
nd_status nd_comm_broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes);

/* The number of ranks of a group; the first rank of this rank's group; this rank's index in it. */
int nd_comm_group(const nd_comm *comm);
int nd_comm_group_first(const nd_comm *comm);
int nd_comm_member(const nd_comm *comm);

/* Whether every group of `group` (1 or more) consecutive ranks lies within one host or consists of
 * whole hosts. Host h has sizes[h] consecutive ranks. Not collective. */
bool nd_groups_fit_hosts(const int *sizes, int hosts, int group);

/* Checks that `group`, 1 or more, divides `ranks` and fits the hosts (hosts = 0: any). Not
 * collective. Errors: ND_ECONFIG listing the possible sizes. */
nd_status nd_groups_check(int ranks, const int *sizes, int hosts, int group);

/* comm->part_bytes, or its default if that is 0. */
size_t nd_wire_part_bytes(const nd_comm *comm);

/* Where in the run this rank is, for messages. `phase` has static storage. Not collective. */
void nd_comm_set_phase(nd_comm *comm, int64_t step, const char *phase);

/* Whether `status` is an error of this rank alone, which the others do not know: it has to abort
 * the job. Not collective. */
bool nd_comm_fails_alone(const nd_comm *comm, nd_status status);

/* Agrees on a status: ND_OK when all ranks pass ND_OK; otherwise every rank gets the error of the
 * lowest failing rank, marked as shared; with several ranks the message names that rank unless the
 * error was shared already. Collective. */
nd_status nd_comm_agree(nd_comm *comm, nd_status mine);
