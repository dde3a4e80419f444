#include "dist/reduction/gradient_wire.h"
#include "train/fault_points.h"
#include "train/gradients/gradient_reducer_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Pieces are ordered by parameter, and within a parameter by owner. */
static nd_status create_tables(nd_gradient_reducer *r)
{
    nd_gradient_sums *s = &r->sums;
    const int64_t count = r->params->count;
    s->piece_at = calloc((size_t)count + 1, sizeof *s->piece_at);
    for (int64_t i = 0; s->piece_at && i < count; i++) {
        s->piece_at[i + 1] = s->piece_at[i];
        for (int owner = -1; (owner = nd_ownership_next(r->own, i, owner)) >= 0;)
            s->piece_at[i + 1]++;
    }
    const size_t pieces =
        s->piece_at ? (size_t)(s->piece_at[count] + nd_projectors_per_step(r->projectors)) : 0;
    s->pieces = calloc(pieces, sizeof *s->pieces);
    s->piece_slots = calloc(pieces * (size_t)r->slots.count, sizeof *s->piece_slots);
    s->sums = calloc((size_t)count, sizeof *s->sums);
    s->sketches = calloc((size_t)count, sizeof *s->sketches);
    s->squares = calloc((size_t)count, sizeof *s->squares);
    r->residuals = calloc((size_t)count, sizeof *r->residuals);
    return ND_CHECK(s->piece_at && s->pieces && s->piece_slots && s->sums && s->sketches &&
                        s->squares && r->residuals,
                    ND_ENOMEM, "no memory for the tables of the gradient reducer");
}

nd_status nd_gradient_reducer_create(const nd_config *config, nd_comm *comm, const nd_model *model,
                                     const nd_ownership *own, nd_optimizer *optimizer,
                                     nd_gradient_reducer **reducer)
{
    nd_gradient_reducer *r = calloc(1, sizeof *r);
    ND_FAIL_IF(!r, ND_ENOMEM, "no memory for the gradient reducer");
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
    /* Workers update together or not at all, so none updates before all losses are known. */
    r->immediate =
        config->training.grad_clip == 0.0 && r->local == 1 && !nd_config_has_rounds(config);
    r->apart = r->immediate && config->dist.overlap_grad_reduce && comm->size > 1;
    nd_status status = nd_gradient_slots_create(r);
    ND_IF_OK(create_tables(r));
    ND_RETURN_MADE(status, r, nd_gradient_reducer_destroy, reducer);
}

void nd_gradient_reducer_destroy(nd_gradient_reducer *r)
{
    if (!r)
        return;
    nd_gradient_slots_destroy(r);
    free(r->residuals);
    free(r->sums.pieces);
    free(r->sums.piece_at);
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
    return nd_gradient_norms_reserve(r, arena);
}

/* Bytes of the residual of what `owner` gets of parameter `index`; 0 if this rank is the taker. */
static size_t residual_bytes(const nd_gradient_reducer *r, int64_t index, int owner)
{
    enum { ALIGN = 64 };
    int64_t rows, cols;
    nd_optimizer_gradient_shape(r->optimizer, index, &rows, &cols);
    const nd_row_span span = nd_ownership_span(r->own, index, owner, rows);
    const size_t bytes = nd_gradient_residual_bytes(format_of(r, rows * cols), span.count * cols);
    return nd_ownership_taker(r->own, index, owner) == r->comm->rank
               ? 0
               : (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

nd_status nd_gradient_reducer_reserve_feedback(nd_gradient_reducer *r, nd_arena *arena)
{
    for (int64_t i = 0; i < r->params->count; i++) {
        size_t bytes = 0;
        for (int owner = -1; (owner = nd_ownership_next(r->own, i, owner)) >= 0;)
            bytes += residual_bytes(r, i, owner);
        if (bytes > 0)
            ND_TRY(nd_arena_reserve(arena, ND_U8, 1, (int64_t)bytes, &r->residuals[i]));
    }
    return ND_OK;
}

bool nd_gradient_reducer_immediate(const nd_gradient_reducer *r)
{
    return r->immediate;
}

bool nd_gradient_reducer_runs_ahead(const nd_gradient_reducer *r)
{
    return r->immediate && nd_gradient_reducer_overlaps(r);
}

bool nd_gradient_reducer_projects(const nd_gradient_reducer *r)
{
    return r->projects;
}

int64_t nd_gradient_reducer_updates(const nd_gradient_reducer *r)
{
    return r->updates;
}

void nd_gradient_reducer_begin_step(nd_gradient_reducer *r, int64_t step, int64_t skipped,
                                    int64_t sample)
{
    r->step = step;
    r->updates = step - skipped;
    r->sample = sample;
    memset(r->sums.squares, 0, (size_t)r->params->count * sizeof *r->sums.squares);
}

/* The index of a parameter's sketch among the pieces. */
static int64_t sketch_piece(const nd_gradient_reducer *r, int64_t index)
{
    int64_t place = 0;
    nd_projectors_due(r->projectors, index, r->updates, &place);
    return r->sums.piece_at[r->params->count] + place;
}

/* pieces[place]: views[slot] of parameter `index` of `values`. */
static void set_piece(nd_gradient_reducer *r, int64_t place, int64_t index, const nd_view *views,
                      int64_t values, int owner)
{
    float **slots = r->sums.piece_slots + place * r->slots.count;
    for (int slot = 0; slot < r->slots.count; slot++)
        slots[slot] = views[slot].data;
    r->sums.pieces[place] = (nd_comm_piece){.slots = slots,
                                            .count = nd_view_count(nd_as_const(views[0])),
                                            .owner = owner,
                                            .taker = nd_ownership_taker(r->own, index, owner),
                                            .name = r->params->list[index].name,
                                            .format = format_of(r, values)};
}

/* One piece per owner of the parameter. */
static void set_pieces(nd_gradient_reducer *r, int64_t index)
{
    nd_view views[ND_GRADIENT_SLOTS_MAX];
    const nd_view whole = r->slots.of[0][index];
    int64_t place = r->sums.piece_at[index];
    char *residual = r->residuals[index].data;
    for (int owner = -1; (owner = nd_ownership_next(r->own, index, owner)) >= 0; place++) {
        const nd_row_span span = nd_ownership_span(r->own, index, owner, whole.rows);
        const size_t bytes = residual_bytes(r, index, owner);
        for (int slot = 0; slot < r->slots.count; slot++)
            views[slot] = nd_view_rows(r->slots.of[slot][index], span.first, span.count);
        set_piece(r, place, index, views, nd_view_count(nd_as_const(whole)), owner);
        r->sums.pieces[place].residual = bytes > 0 ? residual : NULL;
        residual += bytes;
    }
}

typedef nd_status (*reduce_function)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                     int64_t count);

/* Sums the slots of parameters [first, first + count) to their owners, then their sketches. */
static nd_status reduce_with(reduce_function reduce, nd_gradient_reducer *r, int64_t first,
                             int64_t count)
{
    const nd_comm_split split = {r->tree ? r->leaves : r->comm->size, !r->tree};
    const int64_t *at = r->sums.piece_at;
    nd_view views[ND_GRADIENT_SLOTS_MAX];
    for (int64_t i = first; i < first + count; i++)
        set_pieces(r, i);
    ND_TRY(reduce(r->comm, split, r->sums.pieces + at[first], at[first + count] - at[first]));
    for (int64_t i = first; i < first + count; i++) {
        for (int slot = 0; slot < r->slots.count; slot++)
            views[slot] = nd_gradient_slots_sketch(r, slot, i);
        if (!views[0].data)
            continue;
        const int64_t place = sketch_piece(r, i);
        set_piece(r, place, i, views, nd_view_count(nd_as_const(views[0])), r->own->owner[i]);
        ND_TRY(reduce(r->comm, split, r->sums.pieces + place, 1));
    }
    return ND_OK;
}

/* Starts reducing these parameters' gradients, which are complete on this rank. */
static nd_status begin_reduction(nd_gradient_reducer *r, int64_t first, int64_t count)
{
    nd_comm_set_phase(r->comm, r->step + 1, "reduce"); /* operations in flight belong to it */
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

/* For tests: a NaN in the result of a rank's first reduction of `point`. */
static nd_status inject_nan(nd_gradient_reducer *r, const char *point, const nd_view *sums,
                            int64_t first, int64_t count)
{
    const float value = (float)NAN;
    if (!nd_fault_requested(r->comm, "nan", point))
        return ND_OK;
    for (int64_t i = first; i < first + count; i++)
        if (sums[i].data)
            return r->backend->ops.upload(r->backend, sums[i].data, &value, sizeof value);
    return ND_OK;
}

/* The piece of a parameter that this rank gets; data NULL: none. */
static nd_view own_sum(const nd_gradient_reducer *r, int64_t index)
{
    nd_view sum = r->slots.of[0][index];
    sum.data = NULL;
    int64_t place = r->sums.piece_at[index];
    for (int owner = -1; (owner = nd_ownership_next(r->own, index, owner)) >= 0; place++) {
        if (owner != nd_comm_member(r->comm))
            continue;
        sum.rows = nd_ownership_span(r->own, index, owner, sum.rows).count;
        sum.data = r->sums.pieces[place].result;
        break;
    }
    return sum;
}

/* Records where the owned sums are after a reduction. */
static nd_status note_sums(nd_gradient_reducer *r, int64_t first, int64_t count)
{
    nd_gradient_sums *s = &r->sums;
    for (int64_t i = first; i < first + count; i++) {
        s->sums[i] = own_sum(r, i);
        s->sketches[i] = nd_gradient_slots_sketch(r, 0, i);
        if (s->sketches[i].data)
            s->sketches[i].data = s->pieces[sketch_piece(r, i)].result;
    }
    ND_TRY(inject_nan(r, "sum", s->sums, first, count));
    return inject_nan(r, "sketch", s->sketches, first, count);
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
    return nd_gradient_norms_share(r, first, count, nonfinite);
}

nd_status nd_gradient_reducer_discard(nd_gradient_reducer *r)
{
    if (nd_gradient_reducer_overlaps(r)) /* slots are reused in the next step */
        ND_TRY(r->comm->ops.finish(r->comm));
    return nd_gradient_reducer_reset_all_feedback(r);
}

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
    return nd_projectors_sketch(r->projectors, index, r->updates, made,
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
    const nd_view v = r->residuals[index];
    return v.data ? r->backend->ops.zero(r->backend, v.data, nd_view_bytes(nd_as_const(v))) : ND_OK;
}

nd_status nd_gradient_reducer_reset_all_feedback(nd_gradient_reducer *r)
{
    for (int64_t i = 0; i < r->params->count; i++)
        ND_TRY(nd_gradient_reducer_reset_feedback(r, i));
    return ND_OK;
}
