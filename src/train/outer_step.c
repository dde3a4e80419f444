#include "train/outer_step.h"

#include "core/base/float_formats.h"
#include "dist/reduction/gradient_wire.h"
#include "train/checkpoint/checkpoint_wait.h"
#include "train/fault_points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values of a part: whole blocks of every wire format and of the momentum's state. */
enum { PART = 504 * 256 };
_Static_assert(PART % ND_STATE_LINEAR_BLOCK == 0, "parts are cut between blocks of the momentum");

/* A part of a parameter; count 0: none. */
typedef struct part {
    int64_t index, first, count;
} part;

static int64_t count_of(const nd_run *run, int64_t index)
{
    return run->model->params.list[index].rows * run->model->params.list[index].cols;
}

static nd_gradient_wire wire_of(const nd_run *run, int64_t index)
{
    static const nd_gradient_wire formats[] = {ND_GRADIENT_WIRE_FP32, ND_GRADIENT_WIRE_INT8,
                                               ND_GRADIENT_WIRE_INT4};
    return nd_gradient_wire_for(formats[run->config.dist.outer_comm_dtype], count_of(run, index));
}

/* Whether this rank is the home of a parameter. */
static bool is_home(const nd_run *run, int64_t index)
{
    return run->own.owner[index] == run->comm->rank;
}

static nd_view *residual_of(const nd_run *run, int i, int64_t index)
{
    return &run->rounds->outer->residuals[i * run->model->params.count + index];
}

nd_status nd_outer_create(nd_run *run, nd_rounds *rounds)
{
    const nd_params *params = &run->model->params;
    const size_t count = (size_t)params->count;
    nd_outer *o = rounds->outer = calloc(1, sizeof *o);
    ND_FAIL_IF(!o, ND_ENOMEM, "no memory for the outer step");
    ND_AUTOFREE double *sizes = calloc(count, sizeof *sizes);
    o->momentum = calloc(count, sizeof *o->momentum);
    o->residual = calloc(count, sizeof *o->residual);
    o->residuals = calloc(count * (size_t)rounds->carried, sizeof *o->residuals);
    ND_FAIL_IF(!sizes || !o->momentum || !o->residual || !o->residuals, ND_ENOMEM,
               "no memory for the tables of the outer step");
    for (int64_t i = 0; i < params->count; i++)
        sizes[i] = (double)(params->list[i].rows * params->list[i].cols);
    return nd_ownership_create(sizes, params->count, (int)rounds->workers, &o->home);
}

void nd_outer_destroy(nd_outer *o)
{
    if (!o)
        return;
    nd_ownership_destroy(&o->home);
    free(o->momentum);
    free(o->residual);
    free(o->residuals);
    if (o->owns_host) {
        free(o->messages.data);
        free(o->values.data);
    }
    free(o);
}

nd_status nd_outer_reserve_state(nd_run *run, nd_arena *arena)
{
    nd_outer *o = run->rounds->outer;
    const int bits = run->config.dist.outer_state_bits == ND_OUTER_BITS_8 ? 8 : 32;
    bool loads = false;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        const nd_param *p = &run->model->params.list[i];
        if (!is_home(run, i))
            continue;
        const nd_state_codec *codec = nd_state_codec_momentum(bits, p->rows, p->cols);
        loads |= codec != &nd_state_fp32;
        ND_TRY(nd_state_reserve(&o->momentum[i], codec, p->rows, p->cols, arena));
    }
    ND_TRY(nd_arena_reserve(arena, ND_F32, 1, PART, &o->sum));
    return nd_arena_reserve(arena, ND_F32, 1, loads ? PART : 0, &o->loaded);
}

static nd_status reserve_residual(const nd_run *run, int64_t index, nd_view *residual,
                                  nd_arena *arena)
{
    const size_t bytes = nd_gradient_residual_bytes(wire_of(run, index), count_of(run, index));
    return bytes > 0 ? nd_arena_reserve(arena, ND_U8, 1, (int64_t)bytes, residual) : ND_OK;
}

/* The host's working memory is in the arena if that is host memory. */
static nd_status reserve_host(nd_run *run, nd_arena *arena)
{
    nd_outer *o = run->rounds->outer;
    const int64_t all = 2 * run->rounds->workers * PART * (int64_t)sizeof(float);
    if (run->backend->ops.host_memory) {
        ND_TRY(nd_arena_reserve(arena, ND_F32, 2, PART, &o->values));
        return nd_arena_reserve(arena, ND_U8, 1, all, &o->messages);
    }
    if (!arena->memory || o->owns_host)
        return ND_OK;
    o->owns_host = true;
    o->values = nd_view_of(malloc(2 * PART * sizeof(float)), ND_F32, 2, PART);
    o->messages = nd_view_of(malloc((size_t)all), ND_U8, 1, all);
    return ND_CHECK(o->values.data && o->messages.data, ND_ENOMEM,
                    "no memory for messages between workers");
}

nd_status nd_outer_reserve_wire(nd_run *run, nd_arena *arena)
{
    nd_rounds *r = run->rounds;
    for (int64_t i = 0; i < run->model->params.count; i++) {
        if (is_home(run, i))
            ND_TRY(reserve_residual(run, i, &r->outer->residual[i], arena));
        for (int k = 0; k < r->carried; k++)
            if (r->worker[k].own.owner[i] == r->inside->rank)
                ND_TRY(reserve_residual(run, i, residual_of(run, k, i), arena));
    }
    return reserve_host(run, arena);
}

static int add_residual(nd_view residual, nd_optimizer_state *states)
{
    if (residual.rows == 0)
        return 0;
    *states = (nd_optimizer_state){"outer_residual", residual};
    return 1;
}

int nd_outer_states(const nd_run *run, int64_t index, nd_optimizer_state *states)
{
    const nd_outer *o = run->rounds->outer;
    const nd_state *m = &o->momentum[index];
    int count = 0;
    if (!is_home(run, index))
        return 0;
    for (int p = 0; p < m->codec->parts; p++, count++) {
        snprintf(states[count].name, sizeof states[count].name, "outer_momentum%s",
                 m->codec->suffixes[p]);
        states[count].view = m->parts[p];
    }
    return count + add_residual(o->residual[index], states + count);
}

int nd_outer_worker_states(const nd_run *run, int i, int64_t index, nd_optimizer_state *states)
{
    return add_residual(*residual_of(run, i, index), states);
}

/* Values [first, first + count) of a view as f32 in host memory: in place or in `scratch`. */
static nd_status fetch(nd_backend *b, nd_view view, int64_t first, int64_t count, float *scratch,
                       const float **values)
{
    const char *at = (const char *)view.data + (size_t)first * nd_dtype_size(view.dtype);
    const size_t bytes = (size_t)count * nd_dtype_size(view.dtype);
    const bool direct = b->ops.host_memory && view.dtype == ND_F32;
    *values = direct ? (const float *)(const void *)at : scratch;
    if (direct)
        return ND_OK;
    ND_TRY(b->ops.download(b, scratch, at, bytes));
    if (view.dtype == ND_BF16) /* backwards: the expanded values overwrite the following ones */
        for (int64_t i = count - 1; i >= 0; i--) {
            uint16_t bits;
            memcpy(&bits, (const char *)scratch + 2 * i, sizeof bits);
            scratch[i] = nd_bf16_to_float(bits);
        }
    return ND_OK;
}

/* The residual of values from `first` on in host memory: in place or in `scratch`. */
static nd_status fetch_residual(nd_backend *b, nd_gradient_wire format, nd_view residual,
                                int64_t first, int64_t count, void *scratch, void **values)
{
    *values = NULL;
    if (!residual.data)
        return ND_OK;
    char *at = (char *)residual.data + nd_gradient_residual_bytes(format, first);
    *values = b->ops.host_memory ? at : scratch;
    return b->ops.host_memory
               ? ND_OK
               : b->ops.download(b, scratch, at, nd_gradient_residual_bytes(format, count));
}

/* Encodes values of a parameter from `first` on into a message and updates the residual. */
static nd_status encode(const nd_run *run, nd_gradient_wire format, nd_view residual, int64_t first,
                        int64_t count, const float *values, void *message)
{
    nd_backend *b = run->backend;
    char scratch[PART + PART / 64 + ND_WIRE_BLOCK_BYTES];
    void *kept;
    ND_TRY(fetch_residual(b, format, residual, first, count, scratch, &kept));
    nd_gradient_wire_encode(format, message, values, kept, count);
    return kept == scratch
               ? b->ops.upload(b, (char *)residual.data + nd_gradient_residual_bytes(format, first),
                               scratch, nd_gradient_residual_bytes(format, count))
               : ND_OK;
}

static size_t message_bytes(const nd_run *run, const part *p)
{
    return nd_gradient_wire_bytes(wire_of(run, p->index), p->count);
}

/* Encodes d_k of this rank's workers to `out`. */
static nd_status encode_changes(const nd_run *run, const part *p, char *out)
{
    const nd_rounds *r = run->rounds;
    float *scratch = r->outer->values.data, *change = scratch + PART;
    const nd_gradient_wire format = wire_of(run, p->index);
    for (int k = 0; k < r->carried; k++) {
        const float *start, *master;
        ND_TRY(fetch(run->backend, run->masters[p->index], p->first, p->count, change, &start));
        if (start != change)
            memcpy(change, start, (size_t)p->count * sizeof *change);
        ND_TRY(fetch(run->backend, r->worker[k].masters[p->index], p->first, p->count, scratch,
                     &master));
        for (int64_t i = 0; i < p->count; i++)
            change[i] -= master[i];
        ND_TRY(encode(run, format, *residual_of(run, k, p->index), p->first, p->count, change,
                      out + (size_t)k * message_bytes(run, p)));
    }
    return ND_OK;
}

/* o->sum = the mean of all d_k, which rank r's workers sent as changes[r]. */
static nd_status compute_mean(const nd_run *run, const part *p, void *const *changes)
{
    const nd_rounds *r = run->rounds;
    float *mean = r->outer->values.data;
    const size_t bytes = message_bytes(run, p);
    memset(mean, 0, (size_t)p->count * sizeof *mean);
    for (int64_t k = 0; k < r->workers; k++)
        nd_gradient_wire_add(
            wire_of(run, p->index), mean,
            (const char *)changes[k / r->carried] + (size_t)(k % r->carried) * bytes, p->count);
    for (int64_t i = 0; i < p->count; i++)
        mean[i] /= (float)r->workers;
    return run->backend->ops.upload(run->backend, r->outer->sum.data, mean,
                                    (size_t)p->count * sizeof *mean);
}

/* o->sum: g becomes u. */
static nd_status apply_momentum(const nd_run *run, const part *p)
{
    const nd_outer *o = run->rounds->outer;
    const nd_state_scratch none = {.host = NULL};
    const nd_state *whole = &o->momentum[p->index];
    const float mu = (float)run->config.dist.outer_momentum;
    const float lr = (float)run->config.dist.outer_lr;
    const bool rounded = whole->codec != &nd_state_fp32;
    nd_backend *b = run->backend;
    nd_state state = {.codec = whole->codec, .rows = 1, .cols = p->count};
    nd_view m;
    state.parts[0] = nd_view_of((char *)whole->parts[0].data +
                                    (size_t)p->first * nd_dtype_size(whole->parts[0].dtype),
                                whole->parts[0].dtype, 1, p->count);
    if (rounded)
        state.parts[1] =
            nd_view_of((float *)whole->parts[1].data + p->first / ND_STATE_LINEAR_BLOCK, ND_F32, 1,
                       (p->count + ND_STATE_LINEAR_BLOCK - 1) / ND_STATE_LINEAR_BLOCK);
    const nd_view g = nd_view_of(o->sum.data, ND_F32, 1, p->count);
    ND_TRY(
        state.codec->load(b, &state, &none, nd_view_of(o->loaded.data, ND_F32, 1, p->count), &m));
    ND_TRY(b->ops.axpby(b, m, 1.0f, nd_as_const(g), mu));
    ND_TRY(b->ops.axpby(b, g, lr * mu, nd_as_const(m), lr));
    return rounded ? state.codec->store(b, &state, &none, m) : ND_OK;
}

/* Encodes u, in o->sum, into a message. */
static nd_status encode_step(const nd_run *run, const part *p, void *out)
{
    const nd_outer *o = run->rounds->outer;
    const float *values;
    ND_TRY(fetch(run->backend, o->sum, 0, p->count, o->values.data, &values));
    return encode(run, wire_of(run, p->index), o->residual[p->index], p->first, p->count, values,
                  out);
}

/* x -= u */
static nd_status apply_step(const nd_run *run, const part *p, const void *message)
{
    nd_backend *b = run->backend;
    float *scratch = run->rounds->outer->values.data, *change = scratch + PART;
    const nd_view start = run->masters[p->index];
    const float *values;
    memset(change, 0, (size_t)p->count * sizeof *change);
    nd_gradient_wire_add(wire_of(run, p->index), change, message, p->count);
    ND_TRY(fetch(b, start, p->first, p->count, scratch, &values));
    for (int64_t i = 0; i < p->count; i++)
        scratch[i] = values[i] - change[i];
    return b->ops.upload(b, (float *)start.data + p->first, scratch,
                         (size_t)p->count * sizeof *scratch);
}

/* Advances to the next part whose home is rank `home` of `across` and that this place owns. */
static void next_part(const nd_run *run, int home, part *p)
{
    const nd_rounds *r = run->rounds;
    const int64_t params = run->model->params.count;
    p->first += p->count;
    while (p->index < params && (p->index < 0 || p->first == count_of(run, p->index) ||
                                 r->worker[0].own.owner[p->index] != r->inside->rank ||
                                 r->outer->home.owner[p->index] / r->carried != home)) {
        p->index++;
        p->first = 0;
    }
    p->count = 0;
    if (p->index == params)
        return;
    const int64_t left = count_of(run, p->index) - p->first;
    p->count = left < PART ? left : PART;
}

/* For parts[r] of every home r: sends changes there and receives the resulting steps. */
static nd_status exchange_parts(nd_run *run, const part *parts)
{
    const nd_rounds *r = run->rounds;
    nd_comm *across = r->across;
    const int ranks = across->size;
    const part *mine = &parts[across->rank];
    const size_t each = (size_t)r->carried * PART * sizeof(float);
    void *out[ranks], *in[ranks];
    size_t out_bytes[ranks], in_bytes[ranks];
    for (int home = 0; home < ranks; home++) {
        out[home] = (char *)r->outer->messages.data + (size_t)home * each;
        in[home] = (char *)r->outer->messages.data + (size_t)(ranks + home) * each;
        out_bytes[home] = in_bytes[home] = 0;
        if (mine->count > 0)
            in_bytes[home] = (size_t)r->carried * message_bytes(run, mine);
        if (parts[home].count == 0)
            continue;
        nd_save_wait_written(run, parts[home].index);
        out_bytes[home] = (size_t)r->carried * message_bytes(run, &parts[home]);
        ND_TRY(encode_changes(run, &parts[home], out[home]));
    }
    for (int round = 1; round < ranks; round++) { /* each with another pair of ranks */
        const int to = (across->rank + round) % ranks;
        const int from = (across->rank + ranks - round) % ranks;
        const nd_comm_exchange x = {out[to], out_bytes[to], to, in[from], in_bytes[from], from};
        ND_TRY(across->ops.begin_exchange(across, &x));
    }
    ND_TRY(across->ops.finish(across));
    in[across->rank] = out[across->rank];
    if (mine->count > 0) {
        ND_TRY(compute_mean(run, mine, in));
        ND_TRY(apply_momentum(run, mine));
        ND_TRY(encode_step(run, mine, out[across->rank]));
    }
    for (int home = 0; home < ranks; home++)
        out_bytes[home] = parts[home].count > 0 ? message_bytes(run, &parts[home]) : 0;
    ND_TRY(nd_comm_broadcast_each(across, out, out_bytes));
    for (int home = 0; home < ranks; home++)
        if (parts[home].count > 0)
            ND_TRY(apply_step(run, &parts[home], out[home]));
    return ND_OK;
}

nd_status nd_outer_step(nd_run *run)
{
    const int ranks = run->rounds->across->size;
    part parts[ranks];
    nd_comm_set_phase(run->rounds->inside, run->position.step + 1, "outer step");
    nd_comm_set_phase(run->rounds->across, run->position.step + 1, "outer step");
    for (int home = 0; home < ranks; home++)
        parts[home] = (part){.index = -1};
    for (bool any = true; any;) {
        any = false;
        for (int home = 0; home < ranks; home++) {
            next_part(run, home, &parts[home]);
            any |= parts[home].count > 0;
        }
        if (any)
            ND_TRY(exchange_parts(run, parts));
        nd_fault_point(run->comm, "outer");
    }
    return nd_rounds_adopt(run, true);
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
