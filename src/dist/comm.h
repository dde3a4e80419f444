/* The comm contract: what ranks can exchange. `rank` and `size` mean MPI rank and size. Only one thread
 * may call it.
 *
 * Every function is collective over all ranks, which must call the same functions in the same order
 * with matching arguments. Implementations: solo (one process, no MPI calls), mpi, mpi with nccl for GPU
 * memory (cuda/nccl_comm.h), and simulated (all ranks in one process, dist/simulation.h). Waiting for a
 * rank longer than timeout_seconds, and a rank in another collective, are ND_EPEER; after that every
 * function fails, and only abort may be called.
 *
 * All memory is host memory, except for gradients and weights (reduce_to_owners, broadcast_device,
 * broadcast_each_device), which are in memory of the run's backend, comm->device. With `streamed` these
 * exchanges are ordered like ops of that backend: calls return at once, and an error may surface in a later
 * call or in the backend's next download. */
#pragma once

#include "core/backend/backend.h"
#include "core/config/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nd_comm nd_comm;

enum { ND_COMM_TIMEOUT_DEFAULT = 600 };

/* Ranks first, first + stride, ... of a comm, `count` of them. */
typedef struct nd_comm_subset {
    int first, stride, count;
} nd_comm_subset;

/* How the leaves of a sum are shared: rank r holds leaves [r*n, (r+1)*n), n = leaves / size. */
typedef struct nd_comm_split {
    int64_t leaves; /* a multiple of the number of ranks */
    bool any_order; /* one leaf a rank, and an implementation may add them in its own order */
} nd_comm_split;

/* One buffer of a reduction: summed over the leaves of all ranks, to member `owner` of every group. */
typedef struct nd_comm_piece {
    float *const
        *slots;       /* this rank's partial sums, one a maximal block of its leaves; overwritten */
    int64_t count;    /* floats of each */
    int owner;        /* member of its group: 0 to nd_comm_group(comm) - 1 */
    int taker;        /* rank where rounded sums are added up; of one group: the owner */
    float *result;    /* out: on owners the slot that holds the sum, elsewhere NULL */
    const char *name; /* of the tensor, for errors; may be NULL */
    /* The format sent; the same on all ranks. The residual (dist/gradient_wire.h) of what this rank sends,
     * in the same memory as the slots; NULL: rounding is not made up for. */
    nd_gradient_wire format;
    void *residual;
} nd_comm_piece;

/* A rank's part of an exchange: the ranks whose `to` it is know its in_bytes. */
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

    /* `bytes` from `root` to everyone, in place. */
    nd_status (*broadcast)(nd_comm *comm, void *data, size_t bytes, int root);

    /* Within each group from its member `root`; of memory of the host, and of comm->device. */
    nd_status (*broadcast_group)(nd_comm *comm, void *data, size_t bytes, int root);
    nd_status (*broadcast_device)(nd_comm *comm, void *data, size_t bytes, int root);

    /* buffers[m][0..bytes[m]) from every member m of a group to all of the group, in place; all know all bytes.
     * Of memory of the host, and of comm->device. NULL: the implementation has nothing better than one broadcast
     * after another (nd_comm_broadcast_each). */
    nd_status (*broadcast_each)(nd_comm *comm, void *const *buffers, const size_t *bytes);
    nd_status (*broadcast_each_device)(nd_comm *comm, void *const *buffers, const size_t *bytes);

    /* all[r*bytes ...] = what rank r passed in `mine`, on every rank. */
    nd_status (*allgather)(nd_comm *comm, void *all, const void *mine, size_t bytes);

    /* On `root`, all = what every rank passed in `mine`, in the order of ranks; elsewhere `all` is not read.
     * Rank r passes bytes[r] bytes: root knows all of them, another rank its own. */
    nd_status (*gather)(nd_comm *comm, void *all, const void *mine, const size_t *bytes, int root);

    /* Sums every piece to its owners in f32, along the tree over leaves of core/base/sum_tree.h, so that the
     * bits depend neither on the number of ranks nor on groups nor on who owns what, unless a piece's format
     * rounds messages: then they depend on the number of ranks and on who takes what. */
    nd_status (*reduce_to_owners)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                  int64_t count);

    /* The same, begun: where nd_comm_overlaps they return at once, and what they name belongs to the
     * comm until `finish`; elsewhere they are done when they return. Several may be begun. They are done
     * in their order, and before a reduction or broadcast of the same memory that is called later.
     * Errors: also those of what was begun before. */
    nd_status (*begin_reduction)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                 int64_t count);
    nd_status (*begin_broadcast)(nd_comm *comm, void *data, size_t bytes, int root);

    /* A message of host memory to one rank and another from one, likewise begun; either may have no bytes.
     * Every rank calls it, those too that have no part in it. It overlaps where `threaded`, whatever
     * comm->device is. */
    nd_status (*begin_exchange)(nd_comm *comm, const nd_comm_exchange *exchange);
    nd_status (*finish)(nd_comm *comm);

    /* nd_comm_part. NULL: there are no ranks behind this comm. */
    nd_status (*part)(nd_comm *comm, nd_comm_subset of, nd_comm *part);

    /* Ends the whole job at once with this exit code; does not return under mpi. Not collective. */
    void (*abort)(nd_comm *comm, int exit_code);
} nd_comm_ops;

struct nd_comm {
    nd_comm_ops ops;
    int rank;
    int size;
    int local_rank;      /* rank among those on the same machine */
    int local_size;      /* how many those are */
    int group_ranks;     /* in: ranks of a group, which are consecutive; 0: all ranks are one */
    uint64_t bytes_sent; /* payload bytes this rank has sent since creation */
    double wait_seconds; /* time the caller's thread has spent inside collectives */
    /* Time that messages took, in any thread; up to date when all that was begun is finished. */
    double busy_seconds;
    uint64_t batches;       /* begun reductions that are done, those done together as one */
    bool overlap;           /* in: what is begun may run beside the caller's computation */
    bool threaded;          /* the implementation can do that in host memory, by a thread */
    bool streamed;          /* it can in memory of `device`, in the device's own order */
    nd_reduction reduction; /* in: who adds, if the implementation has a choice and order is free */
    /* In: bytes of the parts of long messages, a multiple of 256 up to ND_WIRE_PART_BYTES, the
     * default; the same on all ranks. */
    size_t part_bytes;
    nd_shorten shorten; /* in: whether exact gradients to other hosts are shortened */
    nd_backend *device; /* not owned; NULL: host memory */

    /* For errors: where in the run this rank is. `phase` has static storage. */
    int64_t step;
    const char *phase;
    double timeout_seconds; /* a rank that another waits for longer fails the job (ND_EPEER) */
    bool (*stop_requested)(void); /* whether a signal asked to stop; may be NULL */

    void *context; /* of the implementation */
};

/* Solo when the process was started alone, mpi when it was started under mpirun or srun. Errors of the
 * first: ND_ECONFIG, on every rank, when the launcher started more processes than there are ranks
 * (dist/launcher.h). */
nd_status nd_comm_create(nd_comm **comm);
nd_status nd_comm_create_solo(nd_comm **comm);
nd_status nd_comm_create_mpi(nd_comm **comm);

/* The MPI library in use: "Open MPI v4.1.4". */
void nd_comm_library(char *text, size_t size);

/* A comm of the ranks in `of`, this one among them, in their order; it is destroyed before `comm`. Its deadlines and
 * overlap are those of `comm` at this moment. Ranks that call for different subsets get different comms. What was
 * begun in one of the two is finished before the other is called: one thread communicates at a time. Of a comm without
 * ranks behind it, as `plan` has, the part has a rank and a size too and nothing else. Collective over `comm`. Errors:
 * ND_ENOMEM, ND_EPEER. */
nd_status nd_comm_part(nd_comm *comm, nd_comm_subset of, nd_comm **part);

/* Collective unless a function of `comm` has failed: ends with a barrier. */
void nd_comm_destroy(nd_comm *comm);

/* From now on the pieces of reduce_to_owners and the data of broadcast_device are in memory of this
 * backend; NULL: in host memory. */
void nd_comm_set_device(nd_comm *comm, nd_backend *backend);

/* Whether begin_reduction and begin_broadcast return before they are done: wanted, several ranks, and an
 * implementation that can where the memory lies. The same on all ranks. */
bool nd_comm_overlaps(const nd_comm *comm);

/* Collective. As nd_comm_ops.broadcast_each, in memory of comm->device. */
nd_status nd_comm_broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes);

/* Ranks of a group; the first of this rank's group; which member of it this rank is. */
int nd_comm_group(const nd_comm *comm);
int nd_comm_group_first(const nd_comm *comm);
int nd_comm_member(const nd_comm *comm);

/* Whether every group of `group` consecutive ranks lies within one host or consists of whole hosts.
 * Host h has sizes[h] consecutive ranks. */
bool nd_groups_fit_hosts(const int *sizes, int hosts, int group);

/* Errors: ND_ECONFIG, listing the sizes that are possible, unless `group` divides `ranks` and fits
 * the hosts (hosts = 0: any). Not collective. */
nd_status nd_groups_check(int ranks, const int *sizes, int hosts, int group);

/* comm->part_bytes, or what stands for it. */
size_t nd_wire_part_bytes(const nd_comm *comm);

/* Where in the run this rank is, for messages. `phase` has static storage. Not collective. */
void nd_comm_set_phase(nd_comm *comm, int64_t step, const char *phase);
