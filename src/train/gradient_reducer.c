#include "train/fault_points.h"
#include "train/gradient_reducer_parts.h"

#include <math.h>
#include <stdlib.h>

nd_status nd_gradient_reducer_create(const nd_config *config, nd_comm *comm, const nd_model *model,
                                     const nd_ownership *own, nd_optimizer *optimizer,
                                     nd_gradient_reducer **reducer)
{
    nd_gradient_reducer *r = calloc(1, sizeof *r);
    if (!r)
        return ND_FAIL(ND_ENOMEM, "no memory for the gradient reducer");
    r->config = config;
    r->comm = comm;
    r->backend = model->backend;
    r->params = &model->params;
    r->own = own;
    r->optimizer = optimizer;
    r->projectors = nd_optimizer_projectors(optimizer);
    r->micro_batch = model->config.micro_batch;
    r->leaves = config->training.batch_size / r->micro_batch;
    r->local = r->leaves / comm->size;
    r->tree = config->dist.deterministic == ND_DETERMINISTIC_WORLD;
    r->projects =
        nd_projectors_count(r->projectors) > 0 && config->optimizer.galore_residual == 0.0;
    r->immediate = config->training.grad_clip == 0.0 && r->local == 1;
    nd_status status = ND_OK;
    ND_TRY_GOTO(nd_gradient_slots_create(r), fail);
    ND_TRY_GOTO(nd_error_feedback_create(&r->feedback, r->backend, r->params->count), fail);
    nd_gradient_sums *s = &r->sums;
    const size_t count = (size_t)r->params->count;
    const size_t pieces = count + (size_t)nd_projectors_per_step(r->projectors);
    s->pieces = calloc(pieces, sizeof *s->pieces);
    s->piece_slots = calloc(pieces * (size_t)r->slots.count, sizeof *s->piece_slots);
    s->sums = calloc(count, sizeof *s->sums);
    s->sketches = calloc(count, sizeof *s->sketches);
    s->squares = calloc(count, sizeof *s->squares);
    if (!s->pieces || !s->piece_slots || !s->sums || !s->sketches || !s->squares) {
        status = ND_FAIL(ND_ENOMEM, "no memory for the tables of the gradient reducer");
        goto fail;
    }
    *reducer = r;
    return ND_OK;
fail:
    nd_gradient_reducer_destroy(r);
    return status;
}

void nd_gradient_reducer_destroy(nd_gradient_reducer *r)
{
    if (!r)
        return;
    nd_gradient_slots_destroy(r);
    nd_error_feedback_destroy(&r->feedback);
    free(r->sums.pieces);
    free(r->sums.piece_slots);
    free(r->sums.sums);
    free(r->sums.sketches);
    free(r->sums.squares);
    free(r);
}

static nd_gradient_wire format_of(const nd_gradient_reducer *r, int64_t values)
{
    return nd_gradient_wire_for((nd_gradient_wire)r->config->dist.grad_comm_dtype, values);
}

nd_status nd_gradient_reducer_reserve(nd_gradient_reducer *r, nd_arena *arena)
{
    ND_TRY(nd_gradient_slots_reserve(r, arena));
    return nd_arena_reserve(arena, ND_F64, 1, 2 * r->params->count, &r->sums.norms);
}

nd_status nd_gradient_reducer_reserve_feedback(nd_gradient_reducer *r, nd_arena *arena)
{
    for (int64_t i = 0; i < r->params->count; i++) {
        int64_t rows, cols;
        nd_optimizer_gradient_shape(r->optimizer, i, &rows, &cols);
        if (r->own->taker[i] != r->comm->rank)
            ND_TRY(nd_error_feedback_reserve(&r->feedback, i, format_of(r, rows * cols),
                                             rows * cols, arena));
    }
    return ND_OK;
}

bool nd_gradient_reducer_immediate(const nd_gradient_reducer *r)
{
    return r->immediate;
}

bool nd_gradient_reducer_projects(const nd_gradient_reducer *r)
{
    return r->projects;
}

void nd_gradient_reducer_begin_step(nd_gradient_reducer *r, int64_t step, int64_t sample)
{
    r->step = step;
    r->sample = sample;
}

/* -- from slots to owners --------------------------------------------------------------------- */

/* Where the sketch of a parameter that has one stands among the pieces. */
static int64_t sketch_piece(const nd_gradient_reducer *r, int64_t index)
{
    int64_t place = 0;
    nd_projectors_due(r->projectors, index, r->step, &place);
    return r->params->count + place;
}

/* pieces[place]: views[slot], which belong to parameter `index`. */
static void set_piece(nd_gradient_reducer *r, int64_t place, int64_t index, const nd_view *views,
                      void *residual)
{
    const int64_t count = nd_view_count(nd_as_const(views[0]));
    float **slots = r->sums.piece_slots + place * r->slots.count;
    for (int slot = 0; slot < r->slots.count; slot++)
        slots[slot] = views[slot].data;
    r->sums.pieces[place] = (nd_comm_piece){.slots = slots,
                                            .count = count,
                                            .owner = r->own->owner[index],
                                            .taker = r->own->taker[index],
                                            .name = r->params->list[index].name,
                                            .format = format_of(r, count),
                                            .residual = residual};
}

typedef nd_status (*reduce_function)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                     int64_t count);

/* Sums the slots of parameters [first, first + count) to their owners, then the sketches among them. */
static nd_status reduce_with(reduce_function reduce, nd_gradient_reducer *r, int64_t first,
                             int64_t count)
{
    const nd_comm_split split = {r->tree ? r->leaves : r->comm->size, !r->tree};
    nd_view views[ND_GRADIENT_SLOTS_MAX];
    for (int64_t i = first; i < first + count; i++) {
        for (int slot = 0; slot < r->slots.count; slot++)
            views[slot] = r->slots.of[slot][i];
        set_piece(r, i, i, views, r->feedback.residuals[i].data);
    }
    ND_TRY(reduce(r->comm, split, r->sums.pieces + first, count));
    for (int64_t i = first; i < first + count; i++) {
        for (int slot = 0; slot < r->slots.count; slot++)
            views[slot] = nd_gradient_slots_sketch(r, slot, i);
        if (!views[0].data)
            continue;
        const int64_t place = sketch_piece(r, i);
        set_piece(r, place, i, views, NULL);
        ND_TRY(reduce(r->comm, split, r->sums.pieces + place, 1));
    }
    return ND_OK;
}

/* Begins to reduce these parameters' gradients, which are complete on this rank. */
static nd_status begin_reduction(nd_gradient_reducer *r, int64_t first, int64_t count)
{
    nd_comm_set_phase(r->comm, r->step + 1, "reduce"); /* what is begun belongs to it */
    ND_TRY(reduce_with(r->comm->ops.begin_reduction, r, first, count));
    nd_comm_set_phase(r->comm, r->step + 1, "backward");
    nd_fault_point(r->comm, "reduction_begun");
    return ND_OK;
}

nd_status nd_gradient_reducer_add(nd_gradient_reducer *r, int64_t first, int64_t count)
{
    ND_TRY(nd_gradient_slots_add(r, first, count));
    if (r->slots.last && nd_gradient_reducer_overlaps(r))
        return begin_reduction(r, first, count);
    return ND_OK;
}

/* A test's NaN in what a rank's first reduction of `point` gave. */
static nd_status inject_nan(nd_gradient_reducer *r, const char *point, const nd_view *sums,
                            int64_t first, int64_t count)
{
    const float value = (float)NAN;
    if (!nd_fault_here(r->comm, "nan", point))
        return ND_OK;
    for (int64_t i = first; i < first + count; i++)
        if (sums[i].data && nd_ownership_has(r->own, r->comm->rank, i))
            return r->backend->ops.upload(r->backend, sums[i].data, &value, sizeof value);
    return ND_OK;
}

/* Notes where the owned ones of what has been reduced lie. */
static nd_status note_sums(nd_gradient_reducer *r, int64_t first, int64_t count)
{
    nd_gradient_sums *s = &r->sums;
    for (int64_t i = first; i < first + count; i++) {
        s->sums[i] = r->slots.of[0][i];
        s->sums[i].data = s->pieces[i].result;
        s->sketches[i] = nd_gradient_slots_sketch(r, 0, i);
        if (s->sketches[i].data)
            s->sketches[i].data = s->pieces[sketch_piece(r, i)].result;
    }
    ND_TRY(inject_nan(r, "sum", s->sums, first, count));
    return inject_nan(r, "sketch", s->sketches, first, count);
}

/* mine[i] = sum of squares of parameter first + i where this rank owns it; NaN where its sketch, which was
 * reduced by itself, is not finite. One download for all. */
static nd_status own_squares(const nd_gradient_reducer *r, int64_t first, int64_t count,
                             double *mine)
{
    nd_backend *b = r->backend;
    const nd_gradient_sums *s = &r->sums;
    double host[2 * count], *device = s->norms.data;
    int64_t computed = 0, at = 0;
    for (int64_t i = first; i < first + count; i++) {
        if (!nd_ownership_has(r->own, r->comm->rank, i))
            continue;
        const nd_view parts[2] = {s->sums[i], s->sketches[i]};
        for (int p = 0; p < 2; p++)
            if (parts[p].data)
                ND_TRY(b->ops.sum_squares(b, nd_view_of(device + computed++, ND_F64, 1, 1),
                                          nd_as_const(parts[p])));
    }
    if (computed > 0)
        ND_TRY(b->ops.download(b, host, device, (size_t)computed * sizeof *host));
    for (int64_t i = first; i < first + count; i++) {
        if (!nd_ownership_has(r->own, r->comm->rank, i))
            continue;
        mine[i - first] = host[at++];
        if (s->sketches[i].data && !isfinite(host[at++]))
            mine[i - first] = (double)NAN;
    }
    return ND_OK;
}

/* squares[i] = sum of squares of parameter i, in double by its owners, on every rank; where they differ, one that is
 * not finite, since all must judge alike. */
static nd_status share_squares(nd_gradient_reducer *r, int64_t first, int64_t count,
                               int64_t *nonfinite)
{
    nd_status status = ND_OK;
    double *mine = calloc((size_t)count * (size_t)(r->comm->size + 1), sizeof *mine);
    if (!mine)
        return ND_FAIL(ND_ENOMEM, "no memory for the table of norms");
    double *all = mine + count;
    *nonfinite = -1;
    ND_TRY_GOTO(own_squares(r, first, count, mine), done);
    ND_TRY_GOTO(r->comm->ops.allgather(r->comm, all, mine, (size_t)count * sizeof *mine), done);
    for (int64_t i = 0; i < count; i++) {
        double value = 0.0;
        for (int rank = r->own->owner[first + i]; rank < r->comm->size; rank += r->own->group)
            value = isfinite(value) ? all[rank * count + i] : value;
        r->sums.squares[first + i] = value;
        if (!isfinite(value) && *nonfinite < 0)
            *nonfinite = first + i;
    }
done:
    free(mine);
    return status;
}

nd_status nd_gradient_reducer_reduce(nd_gradient_reducer *r, int64_t first, int64_t count,
                                     int64_t *nonfinite)
{
    nd_comm_set_phase(r->comm, r->step + 1, "reduce");
    nd_fault_point(r->comm, "reduce");
    if (nd_gradient_reducer_overlaps(r))
        ND_TRY(r->comm->ops.finish(r->comm));
    else
        ND_TRY(reduce_with(r->comm->ops.reduce_to_owners, r, first, count));
    ND_TRY(note_sums(r, first, count));
    nd_comm_set_phase(r->comm, r->step + 1, "norms");
    nd_fault_point(r->comm, "norms");
    return share_squares(r, first, count, nonfinite);
}

nd_status nd_gradient_reducer_discard(nd_gradient_reducer *r)
{
    if (nd_gradient_reducer_overlaps(r)) /* slots are written again in the next step */
        ND_TRY(r->comm->ops.finish(r->comm));
    return nd_gradient_reducer_reset_all_feedback(r);
}

/* -- what was reduced ------------------------------------------------------------------------- */

nd_cview nd_gradient_reducer_sum(const nd_gradient_reducer *r, int64_t index)
{
    return nd_as_const(r->sums.sums[index]);
}

nd_status nd_gradient_reducer_sketch(nd_gradient_reducer *r, int64_t index, nd_cview *sketch)
{
    *sketch = nd_as_const(r->sums.sketches[index]);
    if (r->projects)
        return ND_OK;
    const nd_galore *g = nd_projectors_shape(r->projectors, index);
    const nd_view made =
        nd_view_of(r->slots.sketches[0].data, ND_F32, g->sketch, nd_galore_small(g));
    *sketch = nd_as_const(made);
    return nd_projectors_sketch(r->projectors, index, r->step, made,
                                nd_gradient_reducer_sum(r, index), 0.0f);
}

double nd_gradient_reducer_norm(const nd_gradient_reducer *r)
{
    double squares = 0.0;
    for (int64_t i = 0; i < r->params->count; i++)
        squares += r->sums.squares[i];
    return sqrt(squares);
}

nd_status nd_gradient_reducer_reset_feedback(nd_gradient_reducer *r, int64_t index)
{
    return nd_error_feedback_reset(&r->feedback, index);
}

nd_status nd_gradient_reducer_reset_all_feedback(nd_gradient_reducer *r)
{
    for (int64_t i = 0; i < r->params->count; i++)
        ND_TRY(nd_error_feedback_reset(&r->feedback, i));
    return ND_OK;
}
