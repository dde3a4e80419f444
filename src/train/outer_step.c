#include "train/outer_step.h"

#include "core/base/float_formats.h"
#include "dist/gradient_wire.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values of a part: whole blocks of every format, and of few bytes beside a model. */
enum { PART = 252 * 2 * 128 * 2 };

static nd_gradient_wire wire_of(const nd_run *run, int64_t index)
{
    static const nd_gradient_wire formats[] = {ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_INT8,
                                               ND_GRADIENT_WIRE_INT4};
    const nd_param *p = &run->model->params.list[index];
    return nd_gradient_wire_for(formats[run->config.dist.outer_comm_dtype], p->rows * p->cols);
}

static int64_t count_of(const nd_run *run, int64_t index)
{
    return run->model->params.list[index].rows * run->model->params.list[index].cols;
}

bool nd_outer_is_home(const nd_run *run, int64_t index)
{
    return run->own.owner[index] == run->comm->rank;
}

static nd_view *residual_of(const nd_run *run, int i, int64_t index)
{
    return &run->rounds->outer.residuals[i * run->model->params.count + index];
}

/* -- memory ----------------------------------------------------------------------------------- */

nd_status nd_outer_create(nd_run *run, nd_rounds *rounds)
{
    nd_outer *o = &rounds->outer;
    const nd_params *params = &run->model->params;
    const size_t count = (size_t)params->count;
    double *sizes = calloc(count, sizeof *sizes);
    o->momentum = calloc(count, sizeof *o->momentum);
    o->residual = calloc(count, sizeof *o->residual);
    o->residuals = calloc(count * (size_t)rounds->carried, sizeof *o->residuals);
    nd_status status = ND_OK;
    if (!sizes || !o->momentum || !o->residual || !o->residuals)
        status = ND_FAIL(ND_ENOMEM, "no memory for the tables of the outer step");
    for (int64_t i = 0; status == ND_OK && i < params->count; i++)
        sizes[i] = (double)(params->list[i].rows * params->list[i].cols);
    if (status == ND_OK)
        status = nd_ownership_create(sizes, params->count, (int)rounds->workers, &o->home);
    free(sizes);
    return status;
}

void nd_outer_destroy(nd_outer *o)
{
    nd_ownership_destroy(&o->home);
    free(o->momentum);
    free(o->residual);
    free(o->residuals);
    if (o->owns_host) {
        free(o->messages.data);
        free(o->values.data);
    }
}

nd_status nd_outer_reserve_state(nd_run *run, nd_arena *arena)
{
    nd_outer *o = &run->rounds->outer;
    const int bits = run->config.dist.outer_state_bits == ND_OUTER_BITS_8 ? 8 : 32;
    int64_t largest = 0;
    bool loads = false;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        const nd_param *p = &run->model->params.list[i];
        if (!nd_outer_is_home(run, i))
            continue;
        const nd_state_codec *codec = nd_state_codec_momentum(bits, p->rows, p->cols);
        largest = count_of(run, i) > largest ? count_of(run, i) : largest;
        loads |= codec != &nd_state_fp32;
        ND_TRY(nd_state_reserve(&o->momentum[i], codec, p->rows, p->cols, arena));
    }
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, largest, &o->sum));
    return nd_arena_reserve(arena, ND_F32, 1, loads ? largest : 0, &o->loaded);
}

static nd_status reserve_residual(const nd_run *run, int64_t index, nd_view *residual,
                                  nd_arena *arena)
{
    const size_t bytes = nd_gradient_residual_bytes(wire_of(run, index), count_of(run, index));
    return bytes > 0 ? nd_arena_reserve(arena, ND_U8, 1, (int64_t)bytes, residual) : ND_OK;
}

/* What the host works on lies in the arena where the host can reach it. */
static nd_status reserve_host(nd_run *run, nd_arena *arena)
{
    nd_outer *o = &run->rounds->outer;
    const int64_t all =
        (run->rounds->carried + run->rounds->workers) * PART * (int64_t)sizeof(float);
    if (run->backend->ops.host_memory) {
        ND_TRY(nd_arena_reserve(arena, ND_F32, 2, PART, &o->values));
        return nd_arena_reserve(arena, ND_U8, 1, all, &o->messages);
    }
    if (!arena->memory || o->owns_host)
        return ND_OK;
    o->owns_host = true;
    o->values = nd_view_of(malloc(2 * PART * sizeof(float)), ND_F32, 2, PART);
    o->messages = nd_view_of(malloc((size_t)all), ND_U8, 1, all);
    return o->values.data && o->messages.data
               ? ND_OK
               : ND_FAIL(ND_ENOMEM, "no memory for messages between workers");
}

nd_status nd_outer_reserve_wire(nd_run *run, nd_arena *arena)
{
    nd_rounds *r = run->rounds;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        if (nd_outer_is_home(run, i))
            ND_TRY(reserve_residual(run, i, &r->outer.residual[i], arena));
        for (int k = 0; k < r->carried; k++)
            if (r->worker[k].own.owner[i] == r->inside->rank)
                ND_TRY(reserve_residual(run, i, residual_of(run, k, i), arena));
    }
    return reserve_host(run, arena);
}

/* -- what a checkpoint holds ------------------------------------------------------------------ */

static int add_residual(nd_view residual, nd_optimizer_state *states)
{
    if (residual.rows == 0)
        return 0;
    *states = (nd_optimizer_state){"outer_residual", residual};
    return 1;
}

int nd_outer_states(const nd_run *run, int64_t index, nd_optimizer_state *states)
{
    const nd_outer *o = &run->rounds->outer;
    const nd_state *m = &o->momentum[index];
    int count = 0;
    if (!nd_outer_is_home(run, index))
        return 0;
    for (int part = 0; part < m->codec->parts; part++, count++) {
        snprintf(states[count].name, sizeof states[count].name, "outer_momentum%s",
                 m->codec->suffixes[part]);
        states[count].view = m->parts[part];
    }
    return count + add_residual(o->residual[index], states + count);
}

int nd_outer_worker_states(const nd_run *run, int i, int64_t index, nd_optimizer_state *states)
{
    return add_residual(*residual_of(run, i, index), states);
}

/* -- a part of a parameter -------------------------------------------------------------------- */

/* Values [first, first + count) of a view as f32 in host memory: where they lie, or in `room`. */
static nd_status fetch(nd_backend *b, nd_view view, int64_t first, int64_t count, float *room,
                       const float **values)
{
    const char *at = (const char *)view.data + (size_t)first * nd_dtype_size(view.dtype);
    const size_t bytes = (size_t)count * nd_dtype_size(view.dtype);
    const bool direct = b->ops.host_memory && view.dtype == ND_F32;
    *values = direct ? (const float *)(const void *)at : room;
    if (direct)
        return ND_OK;
    ND_TRY(b->ops.download(b, room, at, bytes));
    if (view.dtype == ND_BF16) /* from the end: a value grows over the next ones' place */
        for (int64_t i = count - 1; i >= 0; i--) {
            uint16_t bits;
            memcpy(&bits, (const char *)room + 2 * i, sizeof bits);
            room[i] = nd_bf16_to_float(bits);
        }
    return ND_OK;
}

/* The residual of values from `first` on in host memory: where it lies, or in `room`. */
static nd_status fetch_residual(nd_backend *b, nd_gradient_wire format, nd_view residual,
                                int64_t first, int64_t count, void *room, void **values)
{
    char *at = (char *)residual.data + nd_gradient_residual_bytes(format, first);
    *values = NULL;
    if (!residual.data)
        return ND_OK;
    *values = b->ops.host_memory ? at : room;
    return b->ops.host_memory
               ? ND_OK
               : b->ops.download(b, room, at, nd_gradient_residual_bytes(format, count));
}

/* values, of a parameter from `first` on, into a message; the residual changes. */
static nd_status encode(const nd_run *run, nd_gradient_wire format, nd_view residual, int64_t first,
                        int64_t count, const float *values, void *message)
{
    nd_backend *b = run->backend;
    char room[PART + PART / 64 + ND_WIRE_BLOCK_BYTES];
    void *kept;
    ND_TRY(fetch_residual(b, format, residual, first, count, room, &kept));
    nd_gradient_wire_encode(format, message, values, kept, count);
    return kept == room
               ? b->ops.upload(b, (char *)residual.data + nd_gradient_residual_bytes(format, first),
                               room, nd_gradient_residual_bytes(format, count))
               : ND_OK;
}

/* d_k of this rank's workers into `out`. */
static nd_status make_changes(const nd_run *run, int64_t index, int64_t first, int64_t count,
                              char *out)
{
    const nd_rounds *r = run->rounds;
    float *room = r->outer.values.data, *change = room + PART;
    const nd_gradient_wire format = wire_of(run, index);
    for (int k = 0; k < r->carried; k++) {
        const float *start, *master;
        ND_TRY(fetch(run->backend, run->masters[index], first, count, change, &start));
        if (start != change)
            memcpy(change, start, (size_t)count * sizeof *change);
        ND_TRY(fetch(run->backend, r->worker[k].masters[index], first, count, room, &master));
        for (int64_t i = 0; i < count; i++)
            change[i] -= master[i];
        ND_TRY(encode(run, format, *residual_of(run, k, index), first, count, change, out));
        out += nd_gradient_wire_bytes(format, count);
    }
    return ND_OK;
}

/* To the rank at home, whose part of the sum becomes their mean. */
static nd_status collect(const nd_run *run, int64_t index, int64_t first, int64_t count, int root)
{
    const nd_rounds *r = run->rounds;
    const nd_gradient_wire format = wire_of(run, index);
    const size_t message = nd_gradient_wire_bytes(format, count);
    char *mine = r->outer.messages.data, *all = mine + (size_t)r->carried * message;
    float *mean = r->outer.values.data;
    size_t bytes[r->across->size];
    for (int rank = 0; rank < r->across->size; rank++)
        bytes[rank] = (size_t)r->carried * message;
    ND_TRY(make_changes(run, index, first, count, mine));
    ND_TRY(r->across->ops.gather(r->across, all, mine, bytes, root));
    if (!nd_outer_is_home(run, index))
        return ND_OK;
    memset(mean, 0, (size_t)count * sizeof *mean);
    for (int64_t k = 0; k < r->workers; k++)
        nd_gradient_wire_add(format, mean, all + (size_t)k * message, count);
    for (int64_t i = 0; i < count; i++)
        mean[i] *= 1.0f / (float)r->workers;
    return run->backend->ops.upload(run->backend, (float *)r->outer.sum.data + first, mean,
                                    (size_t)count * sizeof *mean);
}

/* u of the home to all: the start moves. */
static nd_status distribute(const nd_run *run, int64_t index, int64_t first, int64_t count,
                            int root)
{
    const nd_rounds *r = run->rounds;
    nd_backend *b = run->backend;
    const nd_gradient_wire format = wire_of(run, index);
    float *room = r->outer.values.data, *change = room + PART;
    const nd_view start = run->masters[index];
    const float *values;
    if (nd_outer_is_home(run, index)) {
        ND_TRY(fetch(b, r->outer.sum, first, count, room, &values));
        ND_TRY(encode(run, format, r->outer.residual[index], first, count, values,
                      r->outer.messages.data));
    }
    ND_TRY(r->across->ops.broadcast(r->across, r->outer.messages.data,
                                    nd_gradient_wire_bytes(format, count), root));
    memset(change, 0, (size_t)count * sizeof *change);
    nd_gradient_wire_add(format, change, r->outer.messages.data, count);
    ND_TRY(fetch(b, start, first, count, room, &values));
    for (int64_t i = 0; i < count; i++)
        room[i] = values[i] - change[i];
    return b->ops.upload(b, (float *)start.data + first, room, (size_t)count * sizeof *room);
}

/* -- the step --------------------------------------------------------------------------------- */

/* The mean change in `sum` becomes u. */
static nd_status apply_momentum(const nd_run *run, int64_t index)
{
    const nd_outer *o = &run->rounds->outer;
    const nd_state_scratch none = {.host = NULL};
    const nd_state *state = &o->momentum[index];
    const float mu = (float)run->config.dist.outer_momentum;
    const float lr = (float)run->config.dist.outer_lr;
    nd_backend *b = run->backend;
    const nd_view g = nd_view_of(o->sum.data, ND_F32, state->rows, state->cols);
    nd_view m;
    ND_TRY(state->codec->load(b, state, &none,
                              nd_view_of(o->loaded.data, ND_F32, state->rows, state->cols), &m));
    ND_TRY(b->ops.axpby(b, m, 1.0f, nd_as_const(g), mu));
    ND_TRY(b->ops.axpby(b, g, lr * mu, nd_as_const(m), lr));
    return state->codec == &nd_state_fp32 ? ND_OK : state->codec->store(b, state, &none, m);
}

typedef nd_status (*part_function)(const nd_run *run, int64_t index, int64_t first, int64_t count,
                                   int root);

static nd_status each_part(const nd_run *run, int64_t index, part_function exchange)
{
    const nd_rounds *r = run->rounds;
    const int64_t total = count_of(run, index);
    const int root = r->outer.home.owner[index] / r->carried;
    for (int64_t first = 0; first < total; first += PART)
        ND_TRY(exchange(run, index, first, total - first < PART ? total - first : PART, root));
    return ND_OK;
}

nd_status nd_outer_step(nd_run *run)
{
    const nd_rounds *r = run->rounds;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        if (r->worker[0].own.owner[i] != r->inside->rank)
            continue;
        nd_save_wait_written(run, i);
        ND_TRY(each_part(run, i, collect));
        if (nd_outer_is_home(run, i))
            ND_TRY(apply_momentum(run, i));
        ND_TRY(each_part(run, i, distribute));
    }
    return ND_OK;
}

double nd_outer_bytes(const nd_run *run)
{
    const nd_rounds *r = run->rounds;
    const double ranks = r->across->size;
    double bytes = 0.0;
    for (int64_t i = 0; i < run->model->params.count; i++)
        bytes += (ranks - 1.0) * (r->carried + 1.0) *
                 (double)nd_gradient_wire_bytes(wire_of(run, i), count_of(run, i));
    return bytes;
}
