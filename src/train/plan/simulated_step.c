#include "train/plan/simulated_step.h"

#include "core/base/sum_tree.h"
#include "dist/reduction/gradient_wire.h"
#include "dist/simulation/simulation.h"
#include "train/plan/cost_messages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    const nd_cost_machine *machine;
    const nd_cost_work *work;
    double scale;      /* real bytes per simulated byte */
    size_t part_bytes; /* simulated */
    float *zeros;      /* as many as the longest piece or buffer; shared by all ranks */
    float **slots;     /* pointing to them */
    void **buffers;    /* [group] likewise */
    size_t *bytes;     /* [exchanges, group] of codes, simulated */
    /* [parts + 1] when the last rank had computed; and reduced; seconds of the longest update */
    double *computed, *reduced, *update;
    double updated; /* when the last rank had updated */
    uint64_t sent;  /* by all ranks, simulated */
    nd_simulated_costs costs;
} job;

/* Never less than one float. */
static size_t scaled(const job *j, double bytes)
{
    const double floats = rint(bytes / j->scale / sizeof(float));
    return bytes > 0.0 ? sizeof(float) * (size_t)fmax(floats, 1.0) : 0;
}

static void mark(double *latest, double now)
{
    *latest = fmax(*latest, now);
}

static nd_status allgather_bytes(const job *j, nd_comm *comm, double bytes)
{
    if (bytes == 0.0)
        return ND_OK;
    const size_t each = (size_t)fmax(1.0, rint(bytes / j->scale));
    ND_AUTOFREE char *mine = calloc(1, each), *all = calloc((size_t)comm->size, each);
    ND_FAIL_IF(!mine || !all, ND_ENOMEM, "no memory for what simulated ranks tell each other");
    return comm->ops.allgather(comm, all, mine, each);
}

static nd_status reduce(const job *j, nd_comm *comm, const nd_cost_piece *of, int64_t count)
{
    ND_AUTOFREE nd_comm_piece *pieces = calloc((size_t)count + 1, sizeof *pieces);
    ND_FAIL_IF(!pieces, ND_ENOMEM, "no memory for simulated tensors");
    for (int64_t i = 0; i < count; i++)
        pieces[i] = (nd_comm_piece){
            .slots = j->slots,
            .count = nd_gradient_wire_values(j->work->format, scaled(j, of[i].bytes)),
            .owner = of[i].owner,
            .taker = of[i].taker,
            .format = j->work->format};
    return comm->ops.reduce_to_owners(comm, (nd_comm_split){j->work->leaves, j->work->any_order},
                                      pieces, count);
}

static void compute_until(nd_simulation *s, double time)
{
    nd_simulation_compute(s, fmax(0.0, time - nd_simulation_now(s)));
}

static nd_status reduce_part(nd_simulation *s, const job *j, nd_comm *comm,
                             const nd_cost_part *part, double began)
{
    for (int64_t first = 0, end; first < part->count; first = end) {
        const double ready = j->work->ahead ? 0.0 : part->pieces[first].ready;
        const int64_t reduction = part->pieces[first].reduction;
        for (end = first + 1;
             end < part->count && (j->work->ahead || part->pieces[end].reduction == reduction);
             end++)
            ;
        compute_until(s, began + ready);
        ND_TRY(reduce(j, comm, part->pieces + first, end - first));
    }
    return ND_OK;
}

static nd_status send_weights(const job *j, nd_comm *comm, int64_t exchange)
{
    return nd_comm_broadcast_each(comm, j->buffers, j->bytes + exchange * nd_comm_group(comm));
}

/* A rank computes for `seconds`, the first `update` of them to update `updated`, while it reduces
 * `part` and sends what is updated (NULL: nothing). All begin together and the stage ends when all
 * are done, so one fiber can do them one after the other. */
static nd_status run_stage(nd_simulation *s, nd_comm *comm, job *j, int64_t stage,
                           const nd_cost_part *part, const nd_cost_part *updated, double update,
                           double seconds, int64_t *sent)
{
    const double began = nd_simulation_now(s);
    mark(&j->computed[stage], began + seconds);
    if (part)
        ND_TRY(reduce_part(s, j, comm, part, began));
    while (updated && *sent < updated->exchanges) {
        compute_until(s, began + update);
        ND_TRY(send_weights(j, comm, (*sent)++));
    }
    compute_until(s, began + seconds);
    ND_TRY(allgather_bytes(j, comm, stage == 0 ? j->work->losses : 0.0));
    ND_TRY(allgather_bytes(j, comm, part ? part->norms : 0.0));
    mark(&j->reduced[stage], nd_simulation_now(s));
    return ND_OK;
}

/* Seconds of this rank's share of the update of a part's weights that exchange `of` sends, or of
 * all (-1). */
static double update_of(const nd_comm *comm, const nd_cost_part *part, int64_t of)
{
    double update = 0.0;
    for (int64_t i = 0; i < part->count; i++) {
        const nd_cost_piece *piece = &part->pieces[i];
        if (piece->owner == comm->rank % nd_comm_group(comm) && (of < 0 || piece->exchange == of))
            update += piece->update;
    }
    return update;
}

/* Updates a part and sends the weights of the exchanges that it completes. */
static nd_status update(nd_simulation *s, nd_comm *comm, job *j, const nd_cost_part *part,
                        int64_t *sent)
{
    const double began = nd_simulation_now(s), end = began + update_of(comm, part, -1);
    double until = began;
    mark(&j->updated, end);
    while (*sent < part->exchanges) {
        until += update_of(comm, part, *sent);
        compute_until(s, until);
        ND_TRY(send_weights(j, comm, (*sent)++));
    }
    compute_until(s, end);
    return ND_OK;
}

static nd_status run_parts(nd_simulation *s, nd_comm *comm, job *j)
{
    const nd_cost_work *work = j->work;
    const nd_cost_part *parts = work->parts, *updated = NULL;
    double seconds = 0.0; /* of the update during the next reduction */
    int64_t sent = 0;
    for (int64_t i = 0; i < work->count + work->ahead; i++) {
        const nd_cost_part *reduced = i >= work->ahead ? &parts[i - work->ahead] : NULL;
        const double passes = i < work->count ? parts[i].passes : 0.0;
        ND_TRY(run_stage(s, comm, j, i, reduced, updated, seconds, seconds + passes, &sent));
        if (reduced)
            mark(&j->update[reduced - parts], update_of(comm, reduced, -1));
        if (!work->ahead || i == work->count)
            ND_TRY(update(s, comm, j, reduced, &sent));
        updated = work->ahead ? reduced : NULL;
        seconds = updated ? update_of(comm, updated, -1) : 0.0;
    }
    for (int m = 0; work->streams && m < nd_comm_group(comm); m++)
        ND_TRY(comm->ops.broadcast_group(comm, j->zeros, scaled(j, work->streams[m]), m));
    return send_weights(j, comm, sent);
}

static nd_status run_rank(nd_simulation *s, nd_comm *comm, void *context)
{
    job *j = context;
    comm->part_bytes = j->part_bytes;
    comm->group_ranks = j->work->group;
    ND_TRY(run_parts(s, comm, j));
    ND_TRY(allgather_bytes(j, comm, j->work->report));
    j->sent += comm->bytes_sent;
    return ND_OK;
}

/* Chooses the scale that makes parts as short as possible, where real sizes would not fit. */
static void choose_scale(job *j)
{
    const nd_cost_work *work = j->work;
    double all = 0.0;
    for (int64_t p = 0; p < work->count; p++)
        for (int64_t i = 0; i < work->parts[p].count; i++)
            all += work->parts[p].pieces[i].bytes;
    const double part = nd_cost_part_bytes(j->machine, all);
    j->scale = all < 64e6 && j->machine->ranks <= 64 ? 1.0 : part / ND_WIRE_BLOCK_BYTES;
    j->part_bytes = (size_t)(part / j->scale);
}

static nd_status take_memory(job *j)
{
    const nd_cost_work *work = j->work;
    const int64_t leaves = work->leaves / j->machine->ranks;
    const size_t ranks = (size_t)j->machine->ranks,
                 group = (size_t)nd_cost_group_of(work, j->machine->ranks);
    size_t longest = 0;
    int slots = 0;
    for (int64_t p = 0; p < work->count; p++) /* a format has at least one byte per value */
        for (int64_t i = 0; i < work->parts[p].count; i++)
            longest =
                (size_t)fmax((double)longest, 4.0 * work->parts[p].pieces[i].bytes / j->scale);
    for (size_t m = 0; m < group; m++)
        longest = (size_t)fmax((double)longest, work->streams ? work->streams[m] / j->scale : 0.0);
    for (size_t m = 0; m < group * (size_t)(work->exchanges_ahead + 1); m++)
        longest = (size_t)fmax((double)longest, work->codes[m] / j->scale);
    for (size_t r = 0; r < ranks; r++) {
        const int own = nd_sum_tree_slots(leaves * (int64_t)r, leaves * (int64_t)(r + 1));
        slots = own > slots ? own : slots;
    }
    j->zeros = calloc(longest + 8, 1);
    j->slots = calloc((size_t)slots + 1, sizeof *j->slots);
    j->buffers = calloc(group, sizeof *j->buffers);
    j->bytes = calloc(group * (size_t)(work->exchanges_ahead + 1), sizeof *j->bytes);
    j->computed = calloc(3 * (size_t)work->count + 3, sizeof *j->computed);
    j->costs.sent = calloc(2 * (size_t)j->machine->hosts, sizeof *j->costs.sent);
    j->costs.received = j->costs.sent ? j->costs.sent + j->machine->hosts : NULL;
    if (!j->zeros || !j->slots || !j->buffers || !j->bytes || !j->computed || !j->costs.sent)
        return ND_FAIL(ND_ENOMEM, "no memory for a simulated step");
    j->reduced = j->computed + work->count + 1;
    j->update = j->reduced + work->count + 1;
    for (int i = 0; i <= slots; i++)
        j->slots[i] = j->zeros;
    for (size_t m = 0; m < group; m++)
        j->buffers[m] = j->zeros;
    for (size_t m = 0; m < group * (size_t)(work->exchanges_ahead + 1); m++)
        j->bytes[m] = scaled(j, work->codes[m]);
    return ND_OK;
}

static void release_memory(job *j)
{
    free(j->costs.sent);
    free(j->zeros);
    free(j->slots);
    free(j->buffers);
    free(j->bytes);
    free(j->computed);
}

static void tell(const job *j, nd_cost *cost)
{
    const nd_cost_work *work = j->work;
    for (int64_t i = 0; i < work->count + work->ahead; i++) {
        cost->passes += i < work->count ? work->parts[i].passes : 0.0;
        cost->updated += i < work->count ? j->update[i] : 0.0;
        cost->reduced += j->reduced[i] - j->computed[i];
    }
    cost->step = j->costs.seconds;
    cost->codes = j->costs.seconds - j->updated;
    cost->bytes = (double)j->sent * j->scale;
    for (int h = 0; h < j->machine->hosts && h < ND_COST_HOSTS; h++) {
        cost->sent[h] = j->costs.sent[h] * j->scale;
        cost->received[h] = j->costs.received[h] * j->scale;
    }
}

nd_status nd_simulated_step(const nd_cost_machine *m, const nd_cost_work *work, nd_cost *cost)
{
    ND_CLEANUP(release_memory) job j = {.machine = m, .work = work};
    memset(cost, 0, sizeof *cost);
    choose_scale(&j);
    const nd_simulated_machine machine = {
        .ranks = m->ranks,
        .hosts = m->hosts,
        .between = {m->between.latency, m->between.per_byte * j.scale},
        .within = {m->within.latency, m->within.per_byte * j.scale},
        .compressed = m->compressed,
        .add_per_byte = m->add_per_byte * j.scale};
    ND_TRY(take_memory(&j));
    ND_TRY(nd_simulation_run(&machine, run_rank, &j, &j.costs));
    tell(&j, cost);
    return ND_OK;
}
