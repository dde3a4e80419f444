#include "train/plan/plan_cost.h"

#include "core/model/mtp.h"
#include "dist/reduction/grad_compression.h"
#include "dist/transport/wire_sizes.h"
#include "train/plan/operations.h"
#include "train/plan/plan_wire.h"
#include "train/plan/simulated_step.h"
#include "train/run/run_memory.h"
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Parameters whose gradients become ready together, in the order of the backward pass, and the
 * fraction of a micro-batch's passes that is complete then. */
typedef struct group {
    int64_t first, count;
    double done;
} group;

typedef struct table {
    nd_run *run;
    nd_plan_machine machine;
    group *groups;
    nd_cost_piece *pieces;
    nd_cost_part *parts;
    double *codes; /* [exchanges, ranks of a group] */
    double *streams;
    int64_t *exchange; /* [params.count] that sends a weight */
    int64_t groups_count, pieces_count, exchanges;
    double passes, optimizer; /* seconds: of one rank's micro-batches; of updating everything */
} table;

/* What follows is of a run's first step: later ones train no more heads. */
static nd_pass_operations token_operations(const nd_config *c, const nd_model_config *m)
{
    const double kept = c->training.use_collider ? 1.0 - c->training.collider_sparsity : 1.0;
    return nd_pass_operations_of(m, nd_mtp_active_heads(m), kept);
}

static double pass_flops(const nd_config *c, const nd_model_config *m)
{
    return (double)(c->training.batch_size * c->training.seq_length) * token_operations(c, m).all;
}

static double update_flops(const nd_run *run)
{
    double sum = 0.0;
    for (int64_t i = 0; i < nd_mtp_trained_params(run->model); i++)
        sum += nd_optimizer_cost(&run->config, &run->model->params.list[i]);
    return sum;
}

double nd_plan_step_flops(const nd_run *run)
{
    return pass_flops(&run->config, &run->model->config) + update_flops(run);
}

static void share_time(table *t)
{
    const nd_plan_machine *m = &t->machine;
    const double passes = pass_flops(&t->run->config, &t->run->model->config);
    const double updates = update_flops(t->run);
    const int ranks = t->run->comm->size;
    if (m->flops > 0.0) {
        t->optimizer = updates / m->flops;
        t->passes = passes / m->flops / ranks;
        return;
    }
    t->optimizer = m->optimizer > 0.0 ? m->optimizer : m->step * updates / (passes + updates);
    t->passes = (m->step - t->optimizer) / ranks;
}

/* The groups that nd_model_train announces. */
static nd_status list_groups(table *t)
{
    const nd_params *params = &t->run->model->params;
    const nd_model_config *c = &t->run->model->config;
    const int64_t layers = c->num_layers, norm = nd_params_output_norm(params);
    const nd_pass_operations o = token_operations(&t->run->config, c);
    t->groups = calloc((size_t)layers + 3, sizeof *t->groups);
    ND_FAIL_IF(!t->groups, ND_ENOMEM, "no memory for the layers of a plan");
    double done = o.start;
    t->groups[t->groups_count++] =
        (group){norm, nd_mtp_trained_params(t->run->model) - norm, done / o.all};
    for (int64_t l = layers - 1; l > 0; l--) {
        done += o.layer;
        t->groups[t->groups_count++] = (group){nd_params_layer_index(params, l, ND_ATTN_NORM),
                                               params->per_layer, done / o.all};
    }
    const int64_t attention = nd_params_layer_index(params, 0, ND_ATTN_NORM);
    const int64_t ffn = nd_params_layer_index(params, 0, ND_FFN_NORM);
    t->groups[t->groups_count++] =
        (group){ffn, attention + params->per_layer - ffn, (done + o.ffn) / o.all};
    t->groups[t->groups_count++] = (group){attention, ffn - attention, 1.0};
    t->groups[t->groups_count++] = (group){nd_params_embedding(params), 1, 1.0};
    return ND_OK;
}

/* Whether this parameter's subspace is replaced in a typical step. */
static bool usually_due(const nd_run *run, int64_t index)
{
    const int64_t every = run->config.training.galore_update_freq;
    const nd_projectors *p = nd_optimizer_projectors(run->optimizer);
    const int64_t each = nd_projectors_per_step(p);
    return each > 0 && 2 * nd_projectors_count(p) > every * each &&
           nd_projectors_due(p, index, 0, NULL);
}

/* The fraction of a parameter's rows that an owner has. */
static double share_of(const nd_run *run, int64_t index, int owner)
{
    const int64_t rows = run->model->params.list[index].rows;
    return (double)nd_ownership_span(&run->own, index, owner, rows).count / (double)rows;
}

/* The decision of nd_run_create. */
static bool overlaps(const nd_run *run)
{
    return run->config.dist.overlap_grad_reduce && run->comm->size > 1;
}

/* Weights go around the ring; projectors are broadcast separately. */
static double add_code_bytes(table *t, int64_t index, int64_t exchange)
{
    const nd_run *run = t->run;
    const double bytes = (double)nd_wire_weight_bytes(run, index);
    double *codes = t->codes + exchange * run->own.ranks;
    t->exchange[index] = exchange;
    for (int owner = -1; (owner = nd_ownership_next(&run->own, index, owner)) >= 0;) {
        codes[owner] += bytes * share_of(run, index, owner);
        if (usually_due(run, index))
            t->streams[owner] += (double)nd_wire_projector_bytes(run, index);
    }
    return bytes;
}

/* The decision of nd_step_run, with the update of the fullest rank. */
static bool sends_weights_ahead(const table *t)
{
    const nd_run *run = t->run;
    double *updates = t->streams, longest = 0.0; /* not filled yet */
    const double seconds_per_flop = t->optimizer / update_flops(run);
    for (int64_t i = 0; i < nd_mtp_trained_params(run->model); i++) {
        const double update =
            nd_optimizer_cost(&run->config, &run->model->params.list[i]) * seconds_per_flop;
        for (int owner = -1; (owner = nd_ownership_next(&run->own, i, owner)) >= 0;)
            longest = fmax(longest, updates[owner] += update * share_of(run, i, owner));
    }
    memset(updates, 0, (size_t)run->own.ranks * sizeof *updates);
    return overlaps(run) && run->own.ranks > 1 &&
           nd_step_sends_weights_ahead(nd_gradient_reducer_immediate(run->reducer), longest,
                                       run->comm->size);
}

static size_t part_bytes(const nd_run *run)
{
    const size_t configured = nd_config_part_bytes(&run->config);
    return configured > 0 ? configured : ND_WIRE_PART_BYTES;
}

/* Divides the weights into exchanges as nd_weight_gather_add does, in the order of their updates;
 * those that are streams of changes follow in the last one. */
static void list_exchanges(table *t)
{
    const nd_run *run = t->run;
    const double least = (double)nd_weight_gather_least(run->own.ranks, part_bytes(run));
    const bool ahead = sends_weights_ahead(t);
    const group all = {0, nd_mtp_trained_params(run->model), 1.0}, *groups = &all;
    int64_t count = 1;
    double waiting = 0.0;
    if (nd_gradient_reducer_immediate(run->reducer)) {
        groups = t->groups;
        count = t->groups_count;
    }
    for (int64_t g = 0; g < count; g++)
        for (int64_t i = groups[g].first; i < groups[g].first + groups[g].count; i++) {
            if (nd_weight_gather_streams(&run->gather, &run->model->weights[i]))
                continue;
            waiting += add_code_bytes(t, i, t->exchanges);
            if (ahead && waiting >= least) {
                t->exchanges++;
                waiting = 0.0;
            }
        }
    for (int64_t i = 0; i < nd_mtp_trained_params(run->model); i++)
        if (nd_weight_gather_streams(&run->gather, &run->model->weights[i]))
            add_code_bytes(t, i, t->exchanges);
    t->exchanges++;
}

/* Lists the gradients of a group, then its sketches. */
static void list_pieces(table *t, const group *g, double ready, int64_t reduction,
                        double seconds_per_flop)
{
    const nd_run *run = t->run;
    const bool sketches = nd_gradient_reducer_projects(run->reducer);
    for (int64_t i = g->first; i < g->first + g->count; i++) {
        const double update =
            nd_optimizer_cost(&run->config, &run->model->params.list[i]) * seconds_per_flop;
        for (int owner = -1; (owner = nd_ownership_next(&run->own, i, owner)) >= 0;)
            t->pieces[t->pieces_count++] =
                (nd_cost_piece){.bytes = (double)nd_wire_gradient_bytes(run, i, owner),
                                .update = update * share_of(run, i, owner),
                                .ready = ready,
                                .owner = owner,
                                .taker = nd_ownership_taker(&run->own, i, owner),
                                .reduction = reduction,
                                .exchange = t->exchange[i]};
    }
    for (int64_t i = g->first; sketches && i < g->first + g->count; i++)
        if (usually_due(run, i))
            t->pieces[t->pieces_count++] =
                (nd_cost_piece){.bytes = (double)nd_wire_sketch_bytes(run, i),
                                .ready = ready,
                                .owner = run->own.owner[i],
                                .taker = nd_ownership_taker(&run->own, i, run->own.owner[i]),
                                .reduction = reduction};
}

/* Exchanges that are complete once group g is updated. */
static int64_t exchanges_after(const table *t, int64_t g)
{
    int64_t next = t->exchanges - 1; /* that of the next weight */
    for (int64_t h = g + 1; h < t->groups_count; h++)
        for (int64_t i = t->groups[h].first; i < t->groups[h].first + t->groups[h].count; i++)
            next = t->exchange[i] < next ? t->exchange[i] : next;
    return next;
}

static nd_status list_parts(table *t, nd_cost_work *work)
{
    const nd_run *run = t->run;
    const bool overlap = overlaps(run), immediate = nd_gradient_reducer_immediate(run->reducer);
    const nd_params *params = &run->model->params;
    const int64_t trained = nd_mtp_trained_params(run->model);
    const double local = (double)run->local_micro_batches;
    const double seconds_per_flop = t->optimizer / update_flops(run);
    int64_t owners = 0; /* summed over parameters */
    for (int64_t i = 0; i < params->count; i++)
        for (int owner = -1; (owner = nd_ownership_next(&run->own, i, owner)) >= 0;)
            owners++;
    t->pieces = calloc((size_t)(params->count + owners), sizeof *t->pieces);
    t->parts = calloc((size_t)t->groups_count, sizeof *t->parts);
    t->codes = calloc((size_t)(run->own.ranks * (params->count + 1)), sizeof *t->codes);
    t->streams = calloc((size_t)run->own.ranks, sizeof *t->streams);
    t->exchange = calloc((size_t)params->count, sizeof *t->exchange);
    if (!t->pieces || !t->parts || !t->codes || !t->streams || !t->exchange)
        return ND_FAIL(ND_ENOMEM, "no memory for the messages of a plan");
    list_exchanges(t);
    for (int64_t g = 0; g < t->groups_count; g++) {
        const group *at = &t->groups[g];
        const double done = t->passes * (local - 1.0 + at->done) / local;
        const double before =
            g > 0 ? t->passes * (local - 1.0 + t->groups[g - 1].done) / local : 0.0;
        const int64_t first = t->pieces_count;
        const double ready = immediate ? done - before : overlap ? done : t->passes;
        list_pieces(t, at, ready, overlap ? g : 0, seconds_per_flop);
        if (immediate)
            t->parts[g] = (nd_cost_part){
                done - before, t->pieces + first, t->pieces_count - first,
                (double)nd_gradient_reducer_norm_bytes(run->reducer, at->first, at->count),
                exchanges_after(t, g)};
    }
    if (!immediate)
        t->parts[0] = (nd_cost_part){
            t->passes, t->pieces, t->pieces_count,
            (double)nd_gradient_reducer_norm_bytes(run->reducer, 0, trained), t->exchanges - 1};
    const bool tree = run->config.dist.deterministic == ND_DETERMINISTIC_WORLD;
    *work = (nd_cost_work){.leaves = tree ? run->micro_batches : run->comm->size,
                           .parts = t->parts,
                           .count = immediate ? t->groups_count : 1,
                           .codes = t->codes,
                           .streams = t->streams,
                           .losses = 24.0 * local, /* three doubles per micro-batch */
                           .report = ND_STEP_REPORT_BYTES,
                           .format = (nd_gradient_wire)run->config.dist.grad_comm_dtype,
                           .group = run->own.ranks,
                           .ahead = overlap && immediate,
                           .exchanges_ahead = t->exchanges - 1,
                           .any_order = !tree};
    return ND_OK;
}

/* The sender's decision (dist/reduction/grad_compression.h), assuming that the link is the
 * bottleneck. */
static bool compresses(const nd_run *run, const nd_plan_machine *m)
{
    const nd_grad_compression choice = (nd_grad_compression)run->config.dist.grad_compression;
    return m->hosts > 1 && run->backend->ops.host_memory &&
           run->config.hardware.target != ND_TARGET_CUDA &&
           run->config.dist.grad_comm_dtype == ND_GRADIENT_WIRE_FP32 &&
           (choice == ND_GRAD_COMPRESSION_ON ||
            (choice == ND_GRAD_COMPRESSION_AUTO &&
             m->between.per_byte * ND_GRAD_COMPRESSION_BELOW > 1.0));
}

static bool sends_nothing(const table *t, int member)
{
    double bytes = t->streams[member];
    for (int64_t e = 0; e < t->exchanges; e++)
        bytes += t->codes[e * t->run->own.ranks + member];
    return bytes == 0.0;
}

/* nd_cost_predict or nd_simulated_step. */
typedef nd_status (*estimate)(const nd_cost_machine *machine, const nd_cost_work *work,
                              nd_cost *cost);

static double longest_reduction(const table *t)
{
    double bytes = 0.0, longest = 0.0;
    for (int64_t i = 0; i < t->pieces_count; i++) {
        const bool next = i > 0 && t->pieces[i].reduction != t->pieces[i - 1].reduction;
        bytes = t->pieces[i].bytes + (next ? 0.0 : bytes);
        longest = fmax(longest, bytes);
    }
    return longest;
}

/* What parts cost beside their bytes, per byte: the cost model may take several parts as one. */
static nd_link per_byte_of_parts(nd_link link, double bytes)
{
    return (nd_link){.latency = link.latency, .per_byte = link.per_byte + link.per_message / bytes};
}

static nd_status predict(table *t, estimate how, nd_plan_cost *plan)
{
    const nd_run *run = t->run;
    const nd_plan_machine *m = &t->machine;
    const double part = (double)part_bytes(run);
    plan->compresses = compresses(run, m);
    const nd_cost_machine machine = {.ranks = run->comm->size,
                                     .hosts = m->hosts,
                                     .between = per_byte_of_parts(m->between, part),
                                     .within = per_byte_of_parts(m->within, part),
                                     .compressed =
                                         plan->compresses ? ND_GRAD_COMPRESSION_RATIO : 0.0,
                                     .add_per_byte = m->add_per_byte,
                                     .core_per_byte = m->core_per_byte,
                                     .part_bytes = part,
                                     .ring_bytes = ND_WIRE_RING_BYTES};
    nd_cost_work work;
    share_time(t);
    ND_TRY(list_groups(t));
    ND_TRY(list_parts(t, &work));
    ND_TRY(how(&machine, &work, &plan->cost));
    plan->ranks = machine.ranks;
    plan->hosts = machine.hosts;
    plan->tokens = (double)(run->config.training.batch_size * run->config.training.seq_length);
    plan->alone = t->passes * machine.ranks + t->optimizer;
    plan->rank_alone = t->passes + t->optimizer;
    plan->update_even = t->optimizer / machine.ranks;
    plan->least_part = longest_reduction(t) / ND_COST_PARTS_MAX;
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        plan->memory += run->arenas[i].used;
    for (int r = 0; r < machine.ranks; r++)
        plan->idle += sends_nothing(t, r % work.group);
    return ND_OK;
}

/* Rejects groups that a run on these hosts would reject. */
static nd_status check_groups(const nd_config *config, int ranks, int hosts)
{
    if (config->dist.group_ranks == 0)
        return ND_OK;
    ND_AUTOFREE int *sizes = calloc((size_t)hosts, sizeof *sizes);
    ND_FAIL_IF(!sizes, ND_ENOMEM, "no memory for %d hosts", hosts);
    for (int r = 0; r < ranks; r++)
        sizes[nd_links_host(&(nd_links){.ranks = ranks, .hosts = hosts}, r)]++;
    return nd_groups_check(ranks, sizes, hosts, (int)config->dist.group_ranks);
}

static nd_status estimate_with(estimate how, const nd_config *config, int ranks,
                               const nd_plan_machine *machine, nd_plan_cost *plan)
{
    nd_comm comm = {.size = ranks, .local_size = 1};
    memset(plan, 0, sizeof *plan);
    ND_FAIL_IF(nd_config_has_rounds(config), ND_ECONFIG,
               "times are not predicted for [dist] workers = %lld with sync_every = %lld; "
               "leave out --bandwidth to see bytes and memory",
               (long long)config->dist.workers, (long long)config->dist.sync_every);
    nd_run run = {.config = *config, .comm = &comm, .backend = machine->backend};
    table t = {.run = &run, .machine = *machine};
    nd_status status = check_groups(config, ranks, machine->hosts);
    const nd_cpu_backend_options options = {.threads = 1};
    if (!run.backend)
        ND_IF_OK(nd_cpu_backend_create(&options, &run.backend));
    ND_IF_OK(nd_run_prepare(&run));
    ND_IF_OK(nd_run_memory_measure(&run));
    ND_IF_OK(predict(&t, how, plan));
    if (machine->backend) {
        machine->backend->log = NULL;
        run.backend = NULL; /* owned by the caller */
    }
    nd_run_destroy(&run);
    free(t.groups);
    free(t.pieces);
    free(t.parts);
    free(t.codes);
    free(t.exchange);
    free(t.streams);
    return status;
}

nd_status nd_plan_cost_predict(const nd_config *config, int ranks, const nd_plan_machine *machine,
                               nd_plan_cost *plan)
{
    return estimate_with(nd_cost_predict, config, ranks, machine, plan);
}

nd_status nd_plan_cost_simulate(const nd_config *config, int ranks, const nd_plan_machine *machine,
                                nd_plan_cost *plan)
{
    ND_TRY(estimate_with(nd_simulated_step, config, ranks, machine, plan));
    plan->simulated = true;
    return ND_OK;
}

double nd_plan_cost_strong(const nd_plan_cost *plan)
{
    return plan->alone / (plan->ranks * plan->cost.step);
}

double nd_plan_cost_weak(const nd_plan_cost *plan)
{
    return plan->rank_alone / plan->cost.step;
}

void nd_plan_cost_print(const nd_plan_cost *plan, FILE *out)
{
    const nd_cost *c = &plan->cost;
    const double ms = 1e3, exposed = c->step - c->passes - c->updated;
    fprintf(out, "time a step      %.4g ms, %.4g tokens/s on %d rank%s of %d host%s (%s)\n",
            c->step * ms, plan->tokens / c->step, plan->ranks, plan->ranks == 1 ? "" : "s",
            plan->hosts, plan->hosts == 1 ? "" : "s", plan->simulated ? "simulated" : "predicted");
    fprintf(out, "  forward and backward      %10.4g ms\n", c->passes * ms);
    fprintf(out, "  gradients, beyond them    %10.4g ms\n", c->reduced * ms);
    fprintf(out, "  updates, the longest      %10.4g ms", c->updated * ms);
    if (!plan->simulated) /* it does not distinguish ranks */
        fprintf(out, " (%.4g shared evenly; the least a rank has is %.4g)", plan->update_even * ms,
                c->least_updates * ms);
    fprintf(out, "\n  codes and reports         %10.4g ms\n", c->codes * ms);
    fprintf(out, "  exposed communication     %10.4g ms",
            exposed > 1e-9 * c->step ? exposed * ms : 0.0); /* less is rounding */
    if (!plan->simulated)
        fprintf(out, "; a rank is in messages for %.4g ms", c->busy * ms);
    fprintf(out, "\n");
    fprintf(out, "  bytes                     %10.4g MiB, sent by all ranks\n",
            c->bytes / (1024.0 * 1024.0));
    for (int h = 0; plan->hosts > 1 && h < plan->hosts && h < ND_COST_HOSTS; h++)
        fprintf(out, "  over the link of host %-3d  %10.4f MiB out, %.4f MiB in\n", h,
                c->sent[h] / (1024.0 * 1024.0), c->received[h] / (1024.0 * 1024.0));
    fprintf(out,
            "  alone                     %10.4g ms the same step on one rank; %.4g ms a rank's "
            "share of the batch\n",
            plan->alone * ms, plan->rank_alone * ms);
    fprintf(out, "  efficiency                %9.1f%% strong, %.1f%% weak\n",
            100.0 * nd_plan_cost_strong(plan), 100.0 * nd_plan_cost_weak(plan));
    if (plan->idle > 0)
        fprintf(out, "  %d of the ranks own no parameter: they send gradients and wait\n",
                plan->idle);
    if (plan->compresses)
        fprintf(out,
                "  these times take gradients between hosts as compressed to %.2f of the bytes "
                "above ([dist] grad_compression)\n",
                ND_GRAD_COMPRESSION_RATIO);
}
