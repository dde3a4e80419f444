#include "dist/comm_messages.h"

#include "core/base/grow.h"
#include "dist/comm_queue.h"
#include "dist/reduction/part_reduction.h"
#include "dist/transport/point_to_point.h"
#include "dist/weights/ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct message_context {
    nd_comm_shutdown end;
    nd_wire *wire;
    nd_part_reduction *reduction;
    void *staged;         /* [ND_WIRE_PART_BYTES] staging buffer for broadcasts of device memory */
    nd_comm_queue *queue; /* NULL until the first non-blocking operation that overlaps */
    char *gathered;       /* what an allgather has received so far */
    size_t gathered_bytes;
} message_context;

static nd_wire *wire_of(const nd_comm *comm)
{
    return ((message_context *)comm->context)->wire;
}

static nd_part_reduction *reduction_of(const nd_comm *comm)
{
    return ((message_context *)comm->context)->reduction;
}

/* A collective of the caller's thread. The caller waits from `asked` on; the wire works on it from
 * `began` on. */
typedef struct span {
    nd_comm *comm;
    double asked, began;
} span;

static nd_status finish_begun(const nd_comm *comm)
{
    nd_comm_queue *queue = ((message_context *)comm->context)->queue;
    return queue ? nd_comm_queue_finish(queue) : ND_OK;
}

/* Every collective of the caller's thread is enclosed by enter and leave. */
static nd_status enter(span *s, nd_collective kind)
{
    nd_comm *comm = s->comm;
    s->asked = s->began = nd_wire_now(wire_of(comm));
    ND_TRY(finish_begun(comm));
    ND_TRY(nd_comm_queue_none_busy());
    s->began = nd_wire_now(wire_of(comm));
    return nd_wire_begin(wire_of(comm), kind, comm->step, comm->phase);
}

static void count_sent(nd_comm *comm)
{
    comm->bytes_sent += nd_wire_sent(wire_of(comm));
    nd_wire_set_sent(wire_of(comm), 0);
}

static void leave(span *s)
{
    const double end = nd_wire_now(wire_of(s->comm));
    count_sent(s->comm);
    s->comm->wait_seconds += end - s->asked;
    s->comm->busy_seconds += end - s->began;
}

/* The minimum over ranks: after round k a rank has heard from the 2^k ranks before it. */
static nd_status agree_on_least(nd_comm *comm, int64_t *value)
{
    const uint64_t sent = nd_wire_sent(wire_of(comm));
    nd_status status = ND_OK;
    for (int reach = 1; reach < comm->size && status == ND_OK; reach *= 2) {
        int64_t theirs = *value;
        status = nd_wire_exchange(wire_of(comm), value, sizeof *value,
                                  (comm->rank + reach) % comm->size, &theirs, sizeof theirs,
                                  (comm->rank + comm->size - reach) % comm->size);
        *value = theirs < *value ? theirs : *value;
    }
    nd_wire_set_sent(wire_of(comm), sent); /* no payload */
    return status;
}

static nd_status messages_barrier(nd_comm *comm)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    int64_t nothing = 0;
    ND_TRY(enter(&s, ND_COLLECTIVE_BARRIER));
    return agree_on_least(comm, &nothing);
}

/* Consecutive ranks, including this one. */
typedef struct span_of_ranks {
    int first, size;
} span_of_ranks;

static span_of_ranks everyone(const nd_comm *comm)
{
    return (span_of_ranks){0, comm->size};
}

static span_of_ranks group(const nd_comm *comm)
{
    return (span_of_ranks){nd_comm_group_first(comm), nd_comm_group(comm)};
}

/* Down a binomial tree, part by part. `place` is the rank's distance from the root: its parent's
 * has the lowest bit cleared, its children's have one lower bit set. */
static nd_status broadcast(nd_comm *comm, span_of_ranks among, void *data, size_t bytes, int root)
{
    const int size = among.size, place = (comm->rank - among.first - root + size) % size;
    const int from = place > 0 ? among.first + ((place & (place - 1)) + root) % size : -1;
    int to[ND_WIRE_FAN], children = 0, bit = 1;
    while (bit < size && !(place & bit))
        bit *= 2;
    for (bit /= 2; bit > 0; bit /= 2)
        if (place + bit < size)
            to[children++] = among.first + (place + bit + root) % size;
    return nd_wire_relay(wire_of(comm), data, bytes, from, to, children);
}

static nd_status broadcast_among(nd_comm *comm, span_of_ranks among, void *data, size_t bytes,
                                 int root)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    ND_TRY(enter(&s, ND_COLLECTIVE_BROADCAST));
    return broadcast(comm, among, data, bytes, root);
}

static nd_status messages_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    return broadcast_among(comm, everyone(comm), data, bytes, root);
}

static nd_status messages_broadcast_group(nd_comm *comm, void *data, size_t bytes, int root)
{
    return broadcast_among(comm, group(comm), data, bytes, root);
}

static nd_status broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    return nd_ring_broadcast_each(wire_of(comm), nd_comm_member(comm), nd_comm_group(comm),
                                  nd_comm_group_first(comm), buffers, bytes);
}

static nd_status messages_broadcast_each(nd_comm *comm, void *const *buffers, const size_t *bytes)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    ND_TRY(enter(&s, ND_COLLECTIVE_BROADCAST));
    return broadcast_each(comm, buffers, bytes);
}

/* Bruck's: rank r holds the parts of ranks r, r+1, ... and doubles them in each round. */
static nd_status gather_short(nd_comm *comm, char *all, const void *mine, size_t bytes)
{
    message_context *context = comm->context;
    const int size = comm->size;
    const size_t behind = bytes * (size_t)(size - comm->rank);
    char *gathered = nd_grown(context->gathered, &context->gathered_bytes, bytes * (size_t)size, 1);
    ND_FAIL_IF(!gathered, ND_ENOMEM, "no memory for an allgather of %zu bytes",
               bytes * (size_t)size);
    context->gathered = gathered;
    memcpy(gathered, mine, bytes);
    for (int have = 1; have < size; have *= 2) {
        const size_t more = bytes * (size_t)(have < size - have ? have : size - have);
        ND_TRY(nd_wire_exchange(context->wire, gathered, more, (comm->rank + size - have) % size,
                                gathered + bytes * (size_t)have, more, (comm->rank + have) % size));
    }
    memcpy(all + bytes * (size_t)comm->rank, gathered, behind);
    memcpy(all, gathered + behind, bytes * (size_t)comm->rank);
    return ND_OK;
}

/* A ring: in each round a rank receives one more part from the left and forwards the last one. */
static nd_status gather_long(nd_comm *comm, char *all, const void *mine, size_t bytes)
{
    const int size = comm->size, rank = comm->rank;
    if (mine != all + bytes * (size_t)rank)
        memcpy(all + bytes * (size_t)rank, mine, bytes);
    for (int round = 1; round < size; round++) {
        const size_t out = (size_t)((rank + size - round + 1) % size);
        const size_t in = (size_t)((rank + size - round) % size);
        ND_TRY(nd_wire_exchange(wire_of(comm), all + bytes * out, bytes, (rank + 1) % size,
                                all + bytes * in, bytes, (rank + size - 1) % size));
    }
    return ND_OK;
}

static nd_status messages_allgather(nd_comm *comm, void *all, const void *mine, size_t bytes)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    ND_TRY(enter(&s, ND_COLLECTIVE_ALLGATHER));
    return (bytes < ND_WIRE_RING_BYTES ? gather_short : gather_long)(comm, all, mine, bytes);
}

/* The root receives from one rank after another; every other rank sends once. */
static nd_status messages_gather(nd_comm *comm, void *all, const void *mine, const size_t *bytes,
                                 int root)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    char *at = all;
    ND_TRY(enter(&s, ND_COLLECTIVE_GATHER));
    if (comm->rank != root)
        return nd_wire_send(wire_of(comm), mine, bytes[comm->rank], root);
    for (int r = 0; r < comm->size; at += bytes[r++]) {
        if (r != root)
            ND_TRY(nd_wire_receive(wire_of(comm), at, bytes[r], r));
        else if (bytes[r] > 0)
            memcpy(at, mine, bytes[r]);
    }
    return ND_OK;
}

/* Part by part through host memory. */
static nd_status messages_broadcast_device(nd_comm *comm, void *data, size_t bytes, int root)
{
    char *staged = ((message_context *)comm->context)->staged, *at = data;
    const bool sends = comm->rank == nd_comm_group_first(comm) + root;
    if (!comm->device)
        return messages_broadcast_group(comm, data, bytes, root);
    for (size_t left = bytes; left > 0;) {
        const size_t part = left < ND_WIRE_PART_BYTES ? left : ND_WIRE_PART_BYTES;
        if (sends)
            ND_TRY(nd_transfer_fetch(comm, staged, at, part));
        ND_TRY(messages_broadcast_group(comm, staged, part, root));
        if (!sends)
            ND_TRY(nd_transfer_deliver(comm, at, staged, part));
        at += part;
        left -= part;
    }
    return ND_OK;
}

static nd_status messages_reduce_to_owners(nd_comm *comm, nd_comm_split split,
                                           nd_comm_piece *pieces, int64_t count)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    ND_TRY(enter(&s, ND_COLLECTIVE_REDUCTION));
    return nd_part_reduction_run(reduction_of(comm), NULL, split, pieces, count);
}

static nd_status exchange(nd_comm *comm, const nd_comm_exchange *x)
{
    return nd_wire_exchange(wire_of(comm), x->out, x->out_bytes, x->to, x->in, x->in_bytes,
                            x->from);
}

static nd_status messages_exchange(nd_comm *comm, const nd_comm_exchange *x)
{
    ND_CLEANUP(leave) span s = {.comm = comm};
    ND_TRY(enter(&s, ND_COLLECTIVE_EXCHANGE));
    return exchange(comm, x);
}

/* Whether merging the reduction with others leaves its bits unchanged. */
static bool is_exact(const nd_comm_job *job)
{
    bool exact = job->kind == ND_COMM_JOB_REDUCTION;
    for (int64_t i = 0; exact && i < job->count; i++)
        exact = job->pieces[i].format == ND_GRADIENT_WIRE_FP32;
    return exact;
}

/* How many of the first jobs can be merged. */
static int64_t count_mergeable(const nd_comm_job *jobs, int64_t count)
{
    int64_t n = 1;
    while (n < count && is_exact(&jobs[n]) && jobs[n].split.leaves == jobs[0].split.leaves)
        n++;
    return n;
}

/* Merges the pieces of several reductions into one. */
static nd_status reduce_merged(nd_comm *comm, const nd_comm_job *jobs, int64_t count)
{
    const message_context *context = comm->context;
    int64_t total = 0, at = 0;
    for (int64_t i = 0; i < count; i++)
        total += jobs[i].count;
    ND_AUTOFREE nd_comm_piece *pieces = malloc((size_t)total * sizeof *pieces);
    ND_FAIL_IF(!pieces, ND_ENOMEM, "no memory for a reduction of %lld pieces", (long long)total);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < jobs[i].count; j++) {
            pieces[at] = jobs[i].pieces[j];
            pieces[at++].merged = (int)i;
        }
    const nd_status status =
        nd_part_reduction_run(reduction_of(comm), context->queue, jobs[0].split, pieces, total);
    at = 0;
    for (int64_t i = 0; i < count; at += jobs[i++].count)
        memcpy(jobs[i].pieces, pieces + at, (size_t)jobs[i].count * sizeof *pieces);
    return status;
}

/* Queued reductions, which the link could not keep up with, are merged: one larger reduction has
 * more parts to overlap. Ranks merge as many as the slowest has queued. */
static nd_status run_jobs(nd_comm *comm, const nd_comm_job *jobs, int64_t count, int64_t *taken)
{
    static const nd_collective kinds[] = {[ND_COMM_JOB_REDUCTION] = ND_COLLECTIVE_REDUCTION,
                                          [ND_COMM_JOB_BROADCAST] = ND_COLLECTIVE_BROADCAST,
                                          [ND_COMM_JOB_BROADCAST_EACH] = ND_COLLECTIVE_BROADCAST,
                                          [ND_COMM_JOB_EXCHANGE] = ND_COLLECTIVE_EXCHANGE};
    const nd_comm_job *job = &jobs[0];
    int64_t least = 1;
    *taken = 1;
    ND_TRY(nd_wire_begin(wire_of(comm), kinds[job->kind], job->step, job->phase));
    if (job->kind == ND_COMM_JOB_EXCHANGE)
        return exchange(comm, &job->exchange);
    if (job->kind == ND_COMM_JOB_BROADCAST)
        return broadcast(comm, group(comm), job->data, job->bytes, job->root);
    if (job->kind == ND_COMM_JOB_BROADCAST_EACH)
        return broadcast_each(comm, job->buffers, job->sizes);
    if (is_exact(job)) {
        least = count_mergeable(jobs, count);
        nd_wire_subject(wire_of(comm), job->pieces[0].name);
        ND_TRY(agree_on_least(comm, &least));
        ND_TRY(nd_wire_begin(wire_of(comm), ND_COLLECTIVE_REDUCTION, job->step, job->phase));
    }
    *taken = least;
    comm->batches++;
    return reduce_merged(comm, jobs, least);
}

/* Runs on the queue's thread. */
static nd_status run_queued(nd_comm *comm, const nd_comm_job *jobs, int64_t count, int64_t *taken)
{
    nd_wire_set_yielding(wire_of(comm), true);
    const nd_status status = run_jobs(comm, jobs, count, taken);
    nd_wire_set_yielding(wire_of(comm), false);
    return status;
}

static void interrupt(nd_comm *comm)
{
    nd_wire_interrupt(wire_of(comm));
}

static void abort_all(nd_comm *comm, int exit_code)
{
    ((message_context *)comm->context)->end.abort(comm, exit_code);
}

static nd_status begin(nd_comm *comm, nd_comm_job job)
{
    static const nd_comm_worker worker = {run_queued, interrupt, abort_all};
    message_context *context = comm->context;
    if (!context->queue)
        ND_TRY(nd_comm_queue_create(comm, &worker, &context->queue));
    job.step = comm->step;
    job.phase = comm->phase;
    return nd_comm_queue_begin(context->queue, &job);
}

static nd_status messages_begin_reduction(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                          int64_t count)
{
    if (!nd_comm_overlaps(comm))
        return messages_reduce_to_owners(comm, split, pieces, count);
    return begin(
        comm, (nd_comm_job){
                  .kind = ND_COMM_JOB_REDUCTION, .split = split, .pieces = pieces, .count = count});
}

static nd_status messages_begin_broadcast(nd_comm *comm, void *data, size_t bytes, int root)
{
    if (!nd_comm_overlaps(comm))
        return messages_broadcast_device(comm, data, bytes, root);
    return begin(
        comm,
        (nd_comm_job){.kind = ND_COMM_JOB_BROADCAST, .data = data, .bytes = bytes, .root = root});
}

static nd_status messages_begin_broadcast_each(nd_comm *comm, void *const *buffers,
                                               const size_t *bytes)
{
    if (!nd_comm_overlaps(comm))
        return nd_comm_broadcast_each(comm, buffers, bytes);
    return begin(comm, (nd_comm_job){
                           .kind = ND_COMM_JOB_BROADCAST_EACH, .buffers = buffers, .sizes = bytes});
}

static nd_status messages_begin_exchange(nd_comm *comm, const nd_comm_exchange *x)
{
    if (!comm->overlap || !comm->threaded || comm->size == 1)
        return messages_exchange(comm, x);
    return begin(comm, (nd_comm_job){.kind = ND_COMM_JOB_EXCHANGE, .exchange = *x});
}

static nd_status messages_finish(nd_comm *comm)
{
    const double start = nd_wire_now(wire_of(comm));
    const nd_status status = finish_begun(comm);
    count_sent(comm);
    comm->wait_seconds += nd_wire_now(wire_of(comm)) - start;
    return status;
}

static void messages_abort(nd_comm *comm, int exit_code)
{
    nd_comm_queue *queue = ((message_context *)comm->context)->queue;
    if (queue)
        nd_comm_queue_interrupt(queue);
    abort_all(comm, exit_code);
}

/* MPI_Finalize may wait forever, so ranks first synchronize where waiting has a timeout. */
static void messages_destroy(nd_comm *comm)
{
    message_context *context = comm->context;
    finish_begun(comm); /* its error is that of the wire */
    nd_comm_queue_destroy(context->queue);
    context->queue = NULL;
    if (context->end.synchronizes &&
        (nd_wire_failed(context->wire) || messages_barrier(comm) != ND_OK)) {
        fprintf(stderr, "nanochat_dist: rank %d: error: %s\n", comm->rank, nd_error_get()->message);
        messages_abort(comm, nd_error_exit_code(ND_EPEER));
    }
    nd_wire_destroy(context->wire);
    if (context->end.close)
        context->end.close();
    nd_part_reduction_destroy(context->reduction);
    free(context->staged);
    free(context->gathered);
    free(context);
    free(comm);
}

static const nd_comm_ops operations = {.destroy = messages_destroy,
                                       .barrier = messages_barrier,
                                       .broadcast = messages_broadcast,
                                       .broadcast_group = messages_broadcast_group,
                                       .broadcast_device = messages_broadcast_device,
                                       .broadcast_each = messages_broadcast_each,
                                       .allgather = messages_allgather,
                                       .gather = messages_gather,
                                       .reduce_to_owners = messages_reduce_to_owners,
                                       .begin_reduction = messages_begin_reduction,
                                       .begin_broadcast = messages_begin_broadcast,
                                       .begin_broadcast_each = messages_begin_broadcast_each,
                                       .begin_exchange = messages_begin_exchange,
                                       .finish = messages_finish,
                                       .abort = messages_abort};

nd_status nd_comm_over_messages(nd_comm *comm, const char *name, nd_transport *transport,
                                nd_comm_shutdown end)
{
    message_context *context = calloc(1, sizeof *context);
    void *staged = malloc(ND_WIRE_PART_BYTES);
    nd_status status = ND_CHECK(context && staged, ND_ENOMEM, "no memory for the communicator");
    ND_IF_OK(nd_wire_create(transport, &context->wire));
    ND_IF_OK(nd_part_reduction_create(comm, context->wire, &context->reduction));
    if (status != ND_OK) {
        if (context && context->wire)
            nd_wire_destroy(context->wire);
        else
            transport->ops.destroy(transport);
        free(staged);
        free(context);
        free(comm);
        return status;
    }
    context->end = end;
    context->staged = staged;
    comm->context = context;
    comm->ops = operations;
    comm->ops.part = end.part;
    comm->ops.name = name;
    return ND_OK;
}
