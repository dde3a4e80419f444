#include "train/gradient_reducer.h"

#include "core/base/sum_tree.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/error_feedback.h"
#include "train/fault_points.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- memory ----------------------------------------------------------------------------------- */

bool nd_gradient_reducer_immediate(const nd_run *run)
{
    return run->config.training.grad_clip == 0.0 && run->local_micro_batches == 1;
}

static bool in_layer(const nd_run *run, int64_t index)
{
    return run->model->params.list[index].layer >= 0;
}

/* The same parameter of the first layer. */
static int64_t in_first_layer(const nd_run *run, int64_t index)
{
    const nd_params *params = &run->model->params;
    return index - params->list[index].layer * params->per_layer;
}

/* With gradients that travel projected all parameters of layers are written into one layer's memory. */
static bool writes_apart(const nd_run *run, int64_t index)
{
    return run->travel_projected && in_layer(run, index);
}

static nd_status take_written(nd_run *run, nd_arena *arena)
{
    const nd_params *params = &run->model->params;
    for (int64_t i = 0; i < params->count; i++) {
        if (!writes_apart(run, i))
            continue;
        if (params->list[i].layer > 0)
            run->written[i] = run->written[in_first_layer(run, i)];
        else
            ND_TRY(nd_arena_reserve(arena, ND_F32, params->list[i].rows, params->list[i].cols,
                                    &run->written[i]));
    }
    return ND_OK;
}

static nd_status take_slot(nd_run *run, nd_view *slot, nd_arena *arena)
{
    const nd_params *params = &run->model->params;
    for (int64_t i = 0; i < params->count; i++) {
        int64_t rows, cols;
        nd_optimizer_gradient_shape(run->optimizer, i, &rows, &cols);
        const bool projected = nd_optimizer_takes_projected(run->optimizer, i);
        if (run->immediate && params->list[i].layer > 0)
            slot[i] = slot[in_first_layer(run, i)];
        else if (run->immediate && writes_apart(run, i) && !projected)
            slot[i] = run->written[i];
        else
            ND_TRY(nd_arena_reserve(arena, ND_F32, rows, cols, &slot[i]));
    }
    return ND_OK;
}

nd_status nd_gradient_reducer_reserve(nd_run *run, nd_arena *arena)
{
    const int64_t sketch = nd_projectors_sketch_count(run->projectors);
    const int64_t sketches = nd_projectors_per_step(run->projectors);
    ND_TRY(take_written(run, arena));
    for (int slot = 0; slot < run->gradient_slots; slot++)
        ND_TRY(take_slot(run, run->gradients[slot], arena));
    if (!run->travel_projected) /* an owner's, one after another */
        ND_TRY(nd_arena_reserve(arena, ND_F32, 1, sketch, &run->sketches[0]));
    for (int slot = 0; run->travel_projected && slot < run->gradient_slots; slot++)
        ND_TRY(nd_arena_reserve(arena, ND_F32, sketches, sketch, &run->sketches[slot]));
    ND_TRY(nd_arena_reserve(arena, ND_F64, run->local_micro_batches, nd_model_loss_sums(run->model),
                            &run->loss_sums));
    return nd_arena_reserve(arena, ND_F64, 1, 2 * run->model->params.count, &run->norms);
}

/* -- from the backward pass into slots -------------------------------------------------------- */

/* The sketch of parameter `index` in a slot; data NULL in steps in which it keeps its subspace, and
 * where the owner has the whole gradient to sketch. */
static nd_view sketch_of(const nd_run *run, int slot, int64_t index)
{
    int64_t place;
    if (!run->travel_projected || !nd_projectors_due(run->projectors, index, run->step, &place))
        return (nd_view){0};
    const nd_galore *g = nd_projectors_shape(run->projectors, index);
    const nd_view row = nd_view_rows(run->sketches[slot], place, 1);
    return nd_view_of(row.data, ND_F32, g->sketch, nd_galore_small(g));
}

static nd_status send_off(nd_run *run, int64_t first, int64_t count);
static nd_status settle(nd_run *run, int64_t first, int64_t count);
static nd_status update(nd_run *run, int64_t first, int64_t count, float scale);

/* A micro-batch's gradient goes to the slot on top of the stack; the blocks it completes are merged,
 * parameter by parameter as the backward pass finishes them. */
typedef struct leaf {
    nd_run *run;
    int slot;
    int merges;
    bool accumulate;
    bool last;      /* of this rank: slots are then complete */
    int64_t sample; /* its first */
    nd_loss *loss;
    nd_losses_known known;
} leaf;

static bool given_up(const nd_run *run)
{
    return run->health.verdict != ND_VERDICT_GOOD;
}

/* A test's NaN. */
static nd_status inject_nan(const leaf *l, int64_t index)
{
    nd_backend *b = l->run->backend;
    const nd_param *param = &l->run->model->params.list[index];
    const float value =
        (float)nd_fault_value("gradient", l->sample, l->run->model->config.micro_batch, 0.0, 0.0);
    if (value == 0.0f || param->layer != 0 || param->role != ND_ROLE_TERNARY)
        return ND_OK;
    return b->ops.upload(b, l->run->gradients[l->slot][index].data, &value, sizeof value);
}

static nd_status fill_slot(const leaf *l, int64_t index)
{
    nd_run *run = l->run;
    nd_backend *b = run->backend;
    const nd_view into = run->gradients[l->slot][index], written = run->written[index];
    const float beta = l->accumulate ? 1.0f : 0.0f;
    if (!writes_apart(run, index) || written.data == into.data)
        return ND_OK;
    if (!nd_optimizer_takes_projected(run->optimizer, index))
        return b->ops.axpby(b, into, 1.0f, nd_as_const(written), beta);
    ND_TRY(nd_projectors_project(run->projectors, index, into, nd_as_const(written), beta));
    const nd_view sketch = sketch_of(run, l->slot, index);
    if (!sketch.data)
        return ND_OK;
    return nd_projectors_sketch(run->projectors, index, run->step, sketch, nd_as_const(written),
                                beta);
}

static nd_status merge(nd_backend *b, nd_view lower, nd_view upper)
{
    return lower.data ? b->ops.axpby(b, lower, 1.0f, nd_as_const(upper), 1.0f) : ND_OK;
}

static nd_status gradients_ready(void *context, int64_t first, int64_t count)
{
    leaf *l = context;
    nd_run *run = l->run;
    if (run->immediate && l->known.call) {
        const nd_losses_known known = l->known;
        l->known.call = NULL;
        ND_TRY(nd_model_read_losses(run->model, nd_as_const(run->model->sums), l->loss));
        ND_TRY(known.call(known.context));
    }
    if (run->immediate && given_up(run))
        return ND_OK;
    for (int64_t i = first; i < first + count; i++) {
        ND_TRY(fill_slot(l, i));
        ND_TRY(inject_nan(l, i));
        for (int upper = l->slot; upper > l->slot - l->merges; upper--) {
            ND_TRY(merge(run->backend, run->gradients[upper - 1][i], run->gradients[upper][i]));
            ND_TRY(merge(run->backend, sketch_of(run, upper - 1, i), sketch_of(run, upper, i)));
        }
    }
    if (run->overlapped && l->last)
        return send_off(run, first, count);
    if (!run->immediate)
        return ND_OK;
    ND_TRY(settle(run, first, count));
    if (given_up(run))
        return ND_OK;
    run->health.touched = true;
    return update(run, first, count, 1.0f);
}

/* -- one micro-batch -------------------------------------------------------------------------- */

typedef struct pass {
    leaf *leaf;
    float gradient_scale;
    nd_model_gradients into;
} pass;

/* What the arguments of its ops follow from, beside the run's configuration. */
typedef struct pass_key {
    int32_t slot, merges, accumulate;
    float gradient_scale, offset_weight[ND_OFFSETS_MAX];
} pass_key;

static nd_status run_pass(void *context)
{
    pass *p = context;
    leaf *l = p->leaf;
    const nd_gradients_ready ready = {gradients_ready, l};
    return nd_model_pass(l->run->model, p->gradient_scale, p->into, ready, &l->loss->kept);
}

/* Whether it consists of ops alone, with the same arguments every time. */
static bool repeats(const leaf *l)
{
    const nd_run *run = l->run;
    const nd_params *params = &run->model->params;
    if (!run->replay || run->immediate || run->model->filtering || params->extra_heads > 0 ||
        (run->overlapped && l->last))
        return false;
    if (run->config.training.use_mtp && run->config.training.mtp_schedule == ND_MTP_LINEAR)
        return false; /* other weights in every step */
    for (int64_t i = 0; run->travel_projected && i < params->count; i++)
        if (nd_projectors_due(run->projectors, i, run->step, NULL))
            return false;
    return true;
}

/* Its losses go to a row of their own: nobody waits for them before the last. */
static nd_status run_leaf(pass *p, const int32_t *tokens, int64_t j)
{
    nd_run *run = p->leaf->run;
    nd_model *model = run->model;
    const nd_view row = nd_view_rows(run->loss_sums, j, 1);
    pass_key key;
    memset(&key, 0, sizeof key);
    key.slot = p->leaf->slot;
    key.merges = p->leaf->merges;
    key.accumulate = p->leaf->accumulate;
    key.gradient_scale = p->gradient_scale;
    memcpy(key.offset_weight, model->config.loss.offset_weight, sizeof key.offset_weight);
    *p->leaf->loss = (nd_loss){.tokens = model->tokens, .kept = model->tokens};
    ND_TRY(nd_model_upload(model, tokens));
    ND_TRY(repeats(p->leaf) ? nd_replay_run(run->replay, &key, sizeof key, run_pass, p)
                            : run_pass(p));
    return run->backend->ops.copy(run->backend, row.data, model->sums.data,
                                  nd_view_bytes(nd_as_const(row)));
}

nd_status nd_gradient_reducer_run(nd_run *run, const int32_t *tokens, nd_loss *losses,
                                  nd_losses_known known)
{
    const nd_model_config *c = &run->model->config;
    const bool tree = run->config.dist.deterministic == ND_DETERMINISTIC_WORLD;
    const int64_t stride = c->micro_batch * (c->seq_length + 1);
    const double batch_tokens = (double)(run->config.training.batch_size * c->seq_length);
    const int64_t first = run->local_micro_batches * run->comm->rank;
    nd_view views[run->model->params.count];
    int depth = 0;
    for (int64_t j = 0; j < run->local_micro_batches; j++) {
        leaf at = {.run = run,
                   .slot = depth,
                   .merges = tree ? nd_sum_tree_merges(first, first + j) : 0,
                   .accumulate = !tree && j > 0,
                   .last = j == run->local_micro_batches - 1,
                   .sample = run->next_sample + (first + j) * c->micro_batch,
                   .loss = &losses[j],
                   .known = known};
        for (int64_t i = 0; i < run->model->params.count; i++)
            views[i] = writes_apart(run, i) ? run->written[i] : run->gradients[at.slot][i];
        const nd_model_gradients into = {views, at.accumulate && !run->travel_projected,
                                         at.accumulate};
        pass p = {&at, (float)(1.0 / batch_tokens), into};
        ND_TRY(run_leaf(&p, tokens + j * stride, j));
        if (tree)
            depth += 1 - at.merges;
    }
    if (run->immediate)
        return ND_OK;
    ND_TRY(nd_model_read_losses(run->model, nd_as_const(run->loss_sums), losses));
    return known.call(known.context);
}

/* -- from slots to owners --------------------------------------------------------------------- */

/* Where the sketch of a parameter that has one travels in run->pieces. */
static int64_t sketch_piece(const nd_run *run, int64_t index)
{
    int64_t place = 0;
    nd_projectors_due(run->projectors, index, run->step, &place);
    return run->model->params.count + place;
}

/* run->pieces[place]: views[slot], which belong to parameter `index`. */
static void set_piece(nd_run *run, int64_t place, int64_t index, const nd_view *views,
                      void *residual)
{
    const int64_t count = nd_view_count(nd_as_const(views[0]));
    float **slots = run->piece_slots + place * run->gradient_slots;
    for (int slot = 0; slot < run->gradient_slots; slot++)
        slots[slot] = views[slot].data;
    run->pieces[place] = (nd_comm_piece){.slots = slots,
                                         .count = count,
                                         .owner = run->own.owner[index],
                                         .name = run->model->params.list[index].name,
                                         .format = nd_error_feedback_format(run, count),
                                         .residual = residual};
}

typedef nd_status (*reduce_function)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                     int64_t count);

/* Sums the slots of parameters [first, first + count) to their owners, then the sketches among them. */
static nd_status reduce_with(reduce_function reduce, nd_run *run, int64_t first, int64_t count)
{
    const bool tree = run->config.dist.deterministic == ND_DETERMINISTIC_WORLD;
    const nd_comm_split split = {tree ? run->micro_batches : run->comm->size, !tree};
    nd_view views[ND_GRADIENT_SLOTS_MAX];
    for (int64_t i = first; i < first + count; i++) {
        for (int slot = 0; slot < run->gradient_slots; slot++)
            views[slot] = run->gradients[slot][i];
        set_piece(run, i, i, views, run->residuals[i].data);
    }
    ND_TRY(reduce(run->comm, split, run->pieces + first, count));
    for (int64_t i = first; i < first + count; i++) {
        for (int slot = 0; slot < run->gradient_slots; slot++)
            views[slot] = sketch_of(run, slot, i);
        if (!views[0].data)
            continue;
        const int64_t place = sketch_piece(run, i);
        set_piece(run, place, i, views, NULL);
        ND_TRY(reduce(run->comm, split, run->pieces + place, 1));
    }
    return ND_OK;
}

/* Begins the way of these parameters' gradients, which are complete on this rank. */
static nd_status send_off(nd_run *run, int64_t first, int64_t count)
{
    nd_comm_set_phase(run->comm, run->step + 1, "reduce"); /* what is begun belongs to it */
    ND_TRY(reduce_with(run->comm->ops.begin_reduction, run, first, count));
    nd_comm_set_phase(run->comm, run->step + 1, "backward");
    nd_fault_point(run->comm, "sent_off");
    return ND_OK;
}

/* A test's NaN in what a rank's first reduction of `point` gave. */
static nd_status inject_nan_into_sum(nd_run *run, const char *point, const nd_view *sums,
                                     int64_t first, int64_t count)
{
    const float value = (float)NAN;
    if (!nd_fault_here(run->comm, "nan", point))
        return ND_OK;
    for (int64_t i = first; i < first + count; i++)
        if (sums[i].data && run->own.owner[i] == run->comm->rank)
            return run->backend->ops.upload(run->backend, sums[i].data, &value, sizeof value);
    return ND_OK;
}

/* run->sums and run->sketch_sums receive the owned ones of what has been reduced. */
static nd_status take_sums(nd_run *run, int64_t first, int64_t count)
{
    for (int64_t i = first; i < first + count; i++) {
        run->sums[i] = run->gradients[0][i];
        run->sums[i].data = run->pieces[i].result;
        run->sketch_sums[i] = sketch_of(run, 0, i);
        if (run->sketch_sums[i].data)
            run->sketch_sums[i].data = run->pieces[sketch_piece(run, i)].result;
    }
    ND_TRY(inject_nan_into_sum(run, "sum", run->sums, first, count));
    return inject_nan_into_sum(run, "sketch", run->sketch_sums, first, count);
}

/* mine[i] = sum of squares of parameter first + i where this rank owns it; NaN where its sketch, which has
 * travelled by itself, is not finite. One download for all. */
static nd_status own_squares(nd_run *run, int64_t first, int64_t count, double *mine)
{
    nd_backend *b = run->backend;
    double host[2 * count], *device = run->norms.data;
    int64_t taken = 0, at = 0;
    for (int64_t i = first; i < first + count; i++) {
        if (run->own.owner[i] != run->comm->rank)
            continue;
        const nd_view parts[2] = {run->sums[i], run->sketch_sums[i]};
        for (int p = 0; p < 2; p++)
            if (parts[p].data)
                ND_TRY(b->ops.sum_squares(b, nd_view_of(device + taken++, ND_F64, 1, 1),
                                          nd_as_const(parts[p])));
    }
    if (taken > 0)
        ND_TRY(b->ops.download(b, host, device, (size_t)taken * sizeof *host));
    for (int64_t i = first; i < first + count; i++) {
        if (run->own.owner[i] != run->comm->rank)
            continue;
        mine[i - first] = host[at++];
        if (run->sketch_sums[i].data && !isfinite(host[at++]))
            mine[i - first] = (double)NAN;
    }
    return ND_OK;
}

/* run->squares[i] = sum of squares of parameter i, in double by its owner, on every rank. */
static nd_status share_squares(nd_run *run, int64_t first, int64_t count)
{
    nd_status status = ND_OK;
    double *mine = calloc((size_t)count * (size_t)(run->comm->size + 1), sizeof *mine);
    if (!mine)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of norms");
    double *all = mine + count;
    ND_TRY_GOTO(own_squares(run, first, count, mine), done);
    ND_TRY_GOTO(run->comm->ops.allgather(run->comm, all, mine, (size_t)count * sizeof *mine), done);
    for (int64_t i = 0; i < count; i++) {
        const double value = all[run->own.owner[first + i] * count + i];
        run->squares[first + i] = value;
        if (!isfinite(value) && !given_up(run)) {
            run->health.verdict = ND_VERDICT_GRADIENT;
            run->health.culprit = first + i;
        }
    }
done:
    free(mine);
    return status;
}

static nd_status settle(nd_run *run, int64_t first, int64_t count)
{
    nd_comm_set_phase(run->comm, run->step + 1, "reduce");
    nd_fault_point(run->comm, "reduce");
    if (run->overlapped)
        ND_TRY(run->comm->ops.finish(run->comm));
    else
        ND_TRY(reduce_with(run->comm->ops.reduce_to_owners, run, first, count));
    ND_TRY(take_sums(run, first, count));
    nd_comm_set_phase(run->comm, run->step + 1, "norms");
    nd_fault_point(run->comm, "norms");
    return share_squares(run, first, count);
}

/* -- updates ---------------------------------------------------------------------------------- */

static nd_status broadcast_projector(nd_run *run, int64_t index)
{
    const nd_state *state = nd_projectors_state(run->projectors, index);
    for (int part = 0; part < state->codec->parts; part++)
        ND_TRY(run->comm->ops.broadcast_device(run->comm, state->parts[part].data,
                                               nd_view_bytes(nd_as_const(state->parts[part])),
                                               run->own.owner[index]));
    return ND_OK;
}

static nd_status replace_subspace(nd_run *run, int64_t index)
{
    nd_view sketch = run->sketch_sums[index];
    if (!run->travel_projected) {
        const nd_galore *g = nd_projectors_shape(run->projectors, index);
        sketch = nd_view_of(run->sketches[0].data, ND_F32, g->sketch, nd_galore_small(g));
        ND_TRY(nd_projectors_sketch(run->projectors, index, run->step, sketch,
                                    nd_as_const(run->sums[index]), 0.0f));
    }
    return nd_optimizer_replace_subspace(run->optimizer, index, run->step, nd_as_const(sketch));
}

static nd_status update(nd_run *run, int64_t first, int64_t count, float scale)
{
    nd_comm_set_phase(run->comm, run->step + 1, "update");
    nd_fault_point(run->comm, "update");
    for (int64_t i = first; i < first + count; i++)
        if (run->masters[i].data) {
            nd_save_wait_written(run, i);
            ND_TRY(nd_optimizer_update(run->optimizer, i, run->masters[i],
                                       nd_as_const(run->sums[i]), scale, run->step));
        }
    nd_fault_point(run->comm, "updated");
    for (int64_t i = first; i < first + count; i++) {
        if (!nd_projectors_due(run->projectors, i, run->step, NULL))
            continue;
        if (run->masters[i].data)
            ND_TRY(replace_subspace(run, i));
        ND_TRY(broadcast_projector(run, i));
        if (run->travel_projected)
            ND_TRY(nd_error_feedback_drop(run, i));
    }
    return ND_OK;
}

nd_status nd_gradient_reducer_finish(nd_run *run, double *norm)
{
    const int64_t count = run->model->params.count;
    const double clip = run->config.training.grad_clip;
    double squares = 0.0;
    *norm = (double)NAN;
    if (!run->immediate && !given_up(run))
        ND_TRY(settle(run, 0, count));
    if (given_up(run)) /* slots are written again in the next step */
        return run->overlapped ? run->comm->ops.finish(run->comm) : ND_OK;
    for (int64_t i = 0; i < count; i++)
        squares += run->squares[i];
    *norm = sqrt(squares);
    if (run->immediate)
        return ND_OK;
    return update(run, 0, count, clip > 0.0 && *norm > clip ? (float)(clip / *norm) : 1.0f);
}

nd_status nd_gradient_reducer_publish_projectors(nd_run *run)
{
    for (int64_t i = 0; i < run->model->params.count; i++)
        if (nd_projectors_shape(run->projectors, i))
            ND_TRY(broadcast_projector(run, i));
    return ND_OK;
}
