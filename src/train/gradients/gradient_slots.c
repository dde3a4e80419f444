#include "core/base/sum_tree.h"
#include "train/fault_points.h"
#include "train/gradients/gradient_reducer_parts.h"

#include <stdlib.h>

nd_status nd_gradient_slots_create(nd_gradient_reducer *r)
{
    nd_gradient_slots *s = &r->slots;
    const size_t count = (size_t)r->params->count;
    const int64_t first = r->local * r->comm->rank;
    bool whole = true;
    s->count = r->tree ? nd_sum_tree_slots(first, first + r->local) : 1;
    s->written = calloc(count, sizeof *s->written);
    s->views = calloc(count, sizeof *s->views);
    for (int slot = 0; slot < s->count; slot++) {
        s->of[slot] = calloc(count, sizeof *s->of[slot]);
        whole &= s->of[slot] != NULL;
    }
    return ND_CHECK(whole && s->written && s->views, ND_ENOMEM,
                    "no memory for the table of gradients");
}

void nd_gradient_slots_destroy(nd_gradient_reducer *r)
{
    for (int slot = 0; slot < r->slots.count; slot++)
        free(r->slots.of[slot]);
    free(r->slots.written);
    free(r->slots.views);
}

/* The same parameter in the first layer. */
static int64_t in_first_layer(const nd_gradient_reducer *r, int64_t index)
{
    return index - r->params->list[index].layer * r->params->per_layer;
}

/* The same in the layer whose slots it uses with immediate updates: the first, or one of two. */
static int64_t in_shared_layer(const nd_gradient_reducer *r, int64_t index)
{
    const int64_t layer = r->params->list[index].layer;
    return index - (layer - layer % (r->apart ? 2 : 1)) * r->params->per_layer;
}

/* Gradients that are summed projected are all written to the memory of a single layer. */
static bool shares_layer(const nd_gradient_reducer *r, int64_t index)
{
    return r->projects && r->params->list[index].layer >= 0;
}

static nd_status reserve_written(nd_gradient_reducer *r, nd_arena *arena)
{
    nd_view *written = r->slots.written;
    for (int64_t i = 0; i < r->params->count; i++) {
        const nd_param *p = &r->params->list[i];
        if (!shares_layer(r, i))
            continue;
        if (p->layer > 0)
            written[i] = written[in_first_layer(r, i)];
        else
            ND_TRY(nd_arena_reserve(arena, ND_F32, p->rows, p->cols, &written[i]));
    }
    return ND_OK;
}

static nd_status reserve_slot(nd_gradient_reducer *r, nd_view *slot, nd_arena *arena)
{
    for (int64_t i = 0; i < r->params->count; i++) {
        int64_t rows, cols;
        nd_optimizer_gradient_shape(r->optimizer, i, &rows, &cols);
        const bool projected = nd_optimizer_takes_projected(r->optimizer, i);
        if (r->immediate && r->params->list[i].layer >= 0 && in_shared_layer(r, i) < i)
            slot[i] = slot[in_shared_layer(r, i)];
        else if (r->immediate && !r->apart && shares_layer(r, i) && !projected)
            slot[i] = r->slots.written[i];
        else
            ND_TRY(nd_arena_reserve(arena, ND_F32, rows, cols, &slot[i]));
    }
    return ND_OK;
}

nd_status nd_gradient_slots_reserve(nd_gradient_reducer *r, nd_arena *arena)
{
    nd_gradient_slots *s = &r->slots;
    const int64_t sketch = nd_projectors_sketch_count(r->projectors);
    const int64_t sketches = nd_projectors_per_step(r->projectors);
    ND_TRY(reserve_written(r, arena));
    for (int slot = 0; slot < s->count; slot++)
        ND_TRY(reserve_slot(r, s->of[slot], arena));
    if (!r->projects) /* one per owner */
        return nd_arena_reserve(arena, ND_F32, 1, sketch, &s->sketches[0]);
    for (int slot = 0; slot < s->count; slot++)
        ND_TRY(nd_arena_reserve(arena, ND_F32, sketches, sketch, &s->sketches[slot]));
    return ND_OK;
}

nd_view nd_gradient_slots_sketch(const nd_gradient_reducer *r, int slot, int64_t index)
{
    int64_t place;
    if (!r->projects || !nd_projectors_due(r->projectors, index, r->updates, &place))
        return (nd_view){0};
    const nd_galore *g = nd_projectors_shape(r->projectors, index);
    const nd_view row = nd_view_rows(r->slots.sketches[slot], place, 1);
    return nd_view_of(row.data, ND_F32, g->sketch, nd_galore_small(g));
}

/* Whether adding a leaf consists of ops with the same arguments every time. */
static bool repeats(const nd_gradient_reducer *r, bool last)
{
    if (r->immediate || (nd_gradient_reducer_overlaps(r) && last))
        return false;
    for (int64_t i = 0; r->projects && i < r->params->count; i++)
        if (nd_projectors_due(r->projectors, i, r->updates, NULL))
            return false;
    return true;
}

nd_gradient_leaf nd_gradient_reducer_begin(nd_gradient_reducer *r, int64_t j)
{
    nd_gradient_slots *s = &r->slots;
    const int64_t first = r->local * r->comm->rank, layers = r->params->layers;
    const bool accumulate = !r->tree && j > 0;
    s->depth = j == 0 || !r->tree ? 0 : s->depth + 1 - s->leaf.merges;
    s->last = j == r->local - 1;
    s->sample = r->sample + (first + j) * r->micro_batch;
    for (int64_t i = 0; i < r->params->count; i++)
        s->views[i] = shares_layer(r, i) ? s->written[i] : s->of[s->depth][i];
    s->leaf = (nd_gradient_leaf){.into = {.views = s->views,
                                          .accumulate_layers = accumulate && !r->projects,
                                          .accumulate_others = accumulate},
                                 .slot = s->depth,
                                 .merges = r->tree ? nd_sum_tree_merges(first, first + j) : 0,
                                 .repeats = repeats(r, s->last)};
    if (!s->leaf.into.accumulate_layers)
        s->leaf.into.spare =
            nd_params_layer_span(r->params, s->views, r->projects || r->immediate ? 1 : layers);
    return s->leaf;
}

/* For tests. */
static nd_status inject_nan(const nd_gradient_reducer *r, int64_t index)
{
    const nd_gradient_slots *s = &r->slots;
    const nd_param *param = &r->params->list[index];
    const float value = (float)nd_fault_value("gradient", s->sample, r->micro_batch, 0.0, 0.0);
    if (value == 0.0f || param->layer != 0 || param->role != ND_ROLE_TERNARY)
        return ND_OK;
    return r->backend->ops.upload(r->backend, s->of[s->leaf.slot][index].data, &value,
                                  sizeof value);
}

static nd_status fill_slot(nd_gradient_reducer *r, int64_t index)
{
    nd_backend *b = r->backend;
    const int slot = r->slots.leaf.slot;
    const nd_view into = r->slots.of[slot][index], written = r->slots.written[index];
    const float beta = r->slots.leaf.into.accumulate_others ? 1.0f : 0.0f;
    if (!shares_layer(r, index) || written.data == into.data)
        return ND_OK;
    if (!nd_optimizer_takes_projected(r->optimizer, index))
        return b->ops.axpby(b, into, 1.0f, nd_as_const(written), beta);
    ND_TRY(nd_projectors_project(r->projectors, index, into, nd_as_const(written), beta));
    const nd_view sketch = nd_gradient_slots_sketch(r, slot, index);
    if (!sketch.data)
        return ND_OK;
    return nd_projectors_sketch(r->projectors, index, r->updates, sketch, nd_as_const(written),
                                beta);
}

static nd_status merge(nd_backend *b, nd_view lower, nd_view upper)
{
    return lower.data ? b->ops.axpby(b, lower, 1.0f, nd_as_const(upper), 1.0f) : ND_OK;
}

nd_status nd_gradient_slots_add(nd_gradient_reducer *r, int64_t first, int64_t count)
{
    const nd_gradient_slots *s = &r->slots;
    const int top = s->leaf.slot;
    for (int64_t i = first; i < first + count; i++) {
        ND_TRY(fill_slot(r, i));
        ND_TRY(inject_nan(r, i));
        for (int upper = top; upper > top - s->leaf.merges; upper--) {
            ND_TRY(merge(r->backend, s->of[upper - 1][i], s->of[upper][i]));
            ND_TRY(merge(r->backend, nd_gradient_slots_sketch(r, upper - 1, i),
                         nd_gradient_slots_sketch(r, upper, i)));
        }
    }
    return ND_OK;
}
