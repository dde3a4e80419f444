#include "train/plan/plan_wire.h"

#include "core/model/mtp.h"
#include "dist/reduction/gradient_wire.h"
#include "dist/reduction/tree_reduction.h"
#include "train/outer_step.h"

static nd_gradient_wire format_of(const nd_run *run, int64_t values)
{
    return nd_gradient_wire_for((nd_gradient_wire)run->config.dist.grad_comm_dtype, values);
}

size_t nd_wire_gradient_bytes(const nd_run *run, int64_t index, int owner)
{
    int64_t rows, cols;
    nd_optimizer_gradient_shape(run->optimizer, index, &rows, &cols);
    const int64_t owned = nd_ownership_span(&run->own, index, owner, rows).count;
    return nd_gradient_wire_bytes(format_of(run, rows * cols), owned * cols);
}

static int64_t sketch_values(const nd_run *run, int64_t index)
{
    const nd_galore *g = nd_projectors_shape(nd_optimizer_projectors(run->optimizer), index);
    return g && nd_gradient_reducer_projects(run->reducer) ? g->sketch * nd_galore_small(g) : 0;
}

size_t nd_wire_sketch_bytes(const nd_run *run, int64_t index)
{
    const int64_t count = sketch_values(run, index);
    return nd_gradient_wire_bytes(format_of(run, count), count);
}

size_t nd_wire_weight_bytes(const nd_run *run, int64_t index)
{
    return nd_weight_gather_bytes(&run->gather, run->model, index, false);
}

size_t nd_wire_projector_bytes(const nd_run *run, int64_t index)
{
    size_t bytes = 0;
    if (!nd_projectors_shape(nd_optimizer_projectors(run->optimizer), index))
        return 0;
    const nd_state *state = nd_projectors_state(nd_optimizer_projectors(run->optimizer), index);
    for (int part = 0; part < state->codec->parts; part++)
        bytes += nd_view_bytes(nd_as_const(state->parts[part]));
    return bytes;
}

/* Bytes that all ranks send to sum `count` of a tensor's `values` to `owner` of every group. */
static double reduction_bytes(const nd_run *run, int64_t index, int owner, int64_t values,
                              int64_t count)
{
    const nd_comm *comm = run->comm;
    const bool in_tree = run->config.dist.deterministic == ND_DETERMINISTIC_WORLD;
    const nd_comm_split split = {in_tree ? run->micro_batches : comm->size, !in_tree};
    const nd_comm_piece piece = {.owner = owner,
                                 .taker = nd_ownership_taker(&run->own, index, owner),
                                 .format = format_of(run, values)};
    const nd_tree tree = nd_tree_of(comm, split, &piece, 0);
    const double exact = (double)sizeof(float) * (double)count;
    /* a ring sends every part twice, except in one round */
    if (run->config.dist.grad_reduction == ND_REDUCTION_ALLREDUCE)
        return 2.0 * (comm->size - 1) * exact;
    return nd_tree_sums(&tree) * (double)nd_gradient_wire_bytes(piece.format, count) +
           nd_tree_copies(&tree) * exact;
}

/* Bytes that owners send when they publish all weights; `whole`: not only what changed. */
static void weight_bytes(const nd_run *run, bool whole, double *codes, double *dense)
{
    const nd_params *params = &run->model->params;
    const double takers = run->comm->size - run->comm->size / run->own.ranks;
    const int64_t count = whole ? params->count : nd_mtp_trained_params(run->model);
    *codes = *dense = 0.0;
    for (int64_t i = 0; i < count; i++)
        *(params->list[i].role == ND_ROLE_TERNARY ? codes : dense) +=
            takers * (double)nd_weight_gather_bytes(&run->gather, run->model, i, whole);
}

/* For a run without rounds, or within one worker. */
static nd_wire_bytes bytes_of_worker(const nd_run *run)
{
    const int64_t trained = nd_mtp_trained_params(run->model);
    const int ranks = run->comm->size;
    const int64_t steps = run->config.training.total_steps;
    const double takers = ranks - ranks / run->own.ranks; /* weights go to all but their owners */
    /* A rank sends norms, and 24 bytes per micro-batch, to all others. */
    nd_wire_bytes b = {.reports =
                           ranks * (ranks - 1.0) *
                           ((double)nd_gradient_reducer_norm_bytes(run->reducer, 0, trained) +
                            24.0 * (double)run->local_micro_batches)};
    for (int64_t i = 0; i < trained; i++) {
        const int64_t sketch = sketch_values(run, i);
        const double renewed =
            (double)nd_projectors_replacements(nd_optimizer_projectors(run->optimizer), i, steps) /
            (double)steps;
        int64_t rows, cols;
        nd_optimizer_gradient_shape(run->optimizer, i, &rows, &cols);
        for (int owner = -1; (owner = nd_ownership_next(&run->own, i, owner)) >= 0;) {
            const int64_t owned = nd_ownership_span(&run->own, i, owner, rows).count;
            b.gradients += reduction_bytes(run, i, owner, rows * cols, owned * cols);
            b.sketches += renewed * reduction_bytes(run, i, owner, sketch, sketch);
        }
        b.projectors += renewed * takers * (double)nd_wire_projector_bytes(run, i);
    }
    weight_bytes(run, false, &b.codes, &b.dense);
    return b;
}

nd_wire_bytes nd_wire_bytes_of(const nd_run *run)
{
    const nd_rounds *r = run->rounds;
    if (!r)
        return bytes_of_worker(run);
    nd_wire_bytes b = bytes_of_worker(&r->worker[0]);
    const nd_config *c = &run->config;
    const double workers = (double)r->workers, ranks = run->comm->size;
    /* The last step of a run ends one too. */
    const double rounds = (double)((c->training.total_steps - 1) / c->dist.sync_every + 1);
    b.gradients *= workers;
    b.sketches *= workers;
    b.projectors *= workers;
    /* A round ends with whole weights: those of the start, and workers' own where rounding masters
     * to bf16 makes them differ. */
    double codes, dense;
    const double share = rounds / (double)c->training.total_steps;
    const double times = c->optimizer.master_precision == ND_PRECISION_BF16 ? 2.0 : 1.0;
    weight_bytes(&r->worker[0], true, &codes, &dense);
    b.codes = workers * ((1.0 - share) * b.codes + share * times * codes);
    b.dense = workers * ((1.0 - share) * b.dense + share * times * dense);
    /* Norms inside a worker; losses between all ranks, and each worker's norm and verdict. */
    b.reports =
        b.reports * workers +
        ranks * (ranks - 1.0) * (24.0 * (double)run->local_micro_batches + 16.0 * r->carried);
    b.outer = share * nd_outer_bytes(run);
    return b;
}

double nd_wire_bytes_sum(const nd_wire_bytes *b)
{
    return b->gradients + b->sketches + b->codes + b->dense + b->projectors + b->reports + b->outer;
}
