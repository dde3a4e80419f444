#include "core/model/model.h"

#include "core/model/head.h"

#include <stdlib.h>
#include <string.h>

/* Tokens predicted ahead of each position. */
static int predicted(const nd_model_config *config)
{
    const int offsets = nd_cross_entropy_offsets(&config->loss);
    return config->mtp_tokens > offsets ? config->mtp_tokens : offsets;
}

nd_status nd_model_create(const nd_model_config *config, nd_backend *backend, nd_model **model)
{
    nd_status status = ND_OK;
    nd_model *m = calloc(1, sizeof *m);
    if (!m)
        return ND_FAIL(ND_ENOMEM, "no memory for the model's tables");
    m->config = *config;
    m->backend = backend;
    m->filtering = config->collider;
    m->tokens = config->micro_batch * config->seq_length;
    ND_TRY_GOTO(nd_params_create(config, &m->params), fail);
    m->weights = calloc((size_t)m->params.count, sizeof *m->weights);
    m->layers = calloc((size_t)config->num_layers, sizeof *m->layers);
    const int64_t targets = m->tokens * predicted(config);
    m->host_inputs = calloc((size_t)m->tokens, sizeof *m->host_inputs);
    m->host_targets = calloc((size_t)targets, sizeof *m->host_targets);
    if (!m->weights || !m->layers || !m->host_inputs || !m->host_targets) {
        status = ND_FAIL(ND_ENOMEM, "no memory for the tables of %lld layers",
                         (long long)config->num_layers);
        goto fail;
    }
    if (config->collider) {
        const nd_collider_params params = {config->collider_threshold, config->collider_sparsity};
        ND_TRY_GOTO(nd_collider_create(&m->collider, params, m->tokens), fail);
    }
    ND_TRY_GOTO(nd_mtp_create(m), fail);
    *model = m;
    return ND_OK;
fail:
    nd_model_destroy(m);
    return status;
}

void nd_model_destroy(nd_model *m)
{
    if (!m)
        return;
    nd_params_destroy(&m->params);
    free(m->weights);
    free(m->layers);
    free(m->host_inputs);
    free(m->host_targets);
    nd_collider_destroy(&m->collider);
    nd_mtp_destroy(m);
    free(m);
}

/* Codes as bytes, or packed beside a view of the scratch that all of them share. */
static nd_status take_codes(nd_arena *arena, const nd_param *p, nd_view scratch, nd_weight *w)
{
    if (scratch.cols == 0)
        return nd_arena_reserve(arena, ND_I8, p->rows, p->cols, &w->codes);
    w->codes = nd_view_of(scratch.data, ND_I8, p->rows, p->cols);
    return nd_arena_reserve(arena, ND_U8, 1, (p->rows * p->cols + 3) / 4, &w->packed);
}

nd_status nd_model_reserve_weights(nd_model *m, nd_arena *arena)
{
    const nd_model_config *c = &m->config;
    const nd_dtype norm_type = c->compute == ND_F64 ? ND_F64 : ND_F32;
    nd_view scratch = {0};
    if (c->packed_codes && c->ternary)
        ND_TRY(nd_arena_reserve(arena, ND_I8, 1, nd_params_largest(&m->params, ND_ROLE_TERNARY),
                                &scratch));
    for (int64_t i = 0; i < m->params.count; i++) {
        const nd_param *p = &m->params.list[i];
        nd_weight *w = &m->weights[i];
        w->ternary = p->role == ND_ROLE_TERNARY && c->ternary;
        if (!w->ternary) {
            const nd_dtype type = p->role == ND_ROLE_NORM ? norm_type : c->compute;
            ND_TRY(nd_arena_reserve(arena, type, p->rows, p->cols, &w->dense));
            continue;
        }
        const int64_t groups = nd_model_scale_groups(c, p->cols);
        ND_TRY(take_codes(arena, p, scratch, w));
        ND_TRY(
            nd_arena_reserve(arena, ND_F32, groups ? p->rows : 1, groups ? groups : 1, &w->scales));
    }
    return ND_OK;
}

int64_t nd_model_logit_rows(const nd_model_config *config)
{
    const int64_t tokens = config->micro_batch * config->seq_length;
    int64_t rows = (int64_t)(4 << 20) / config->vocab_size / 32 * 32;
    if (rows < 32)
        rows = 32;
    return rows < tokens ? rows : tokens;
}

/* With checkpointing every layer keeps its input alone and they share the rest, recomputed layer by
 * layer in the backward pass; an evaluation shares everything. */
static nd_status take_layers(nd_model *m, nd_arena *arena, bool training)
{
    const nd_model_config *c = &m->config;
    nd_layer_activations *first = &m->layers[0];
    ND_TRY(nd_layer_activations_reserve(arena, c, m->tokens, false, first));
    for (int64_t l = 1; l < c->num_layers; l++) {
        nd_layer_activations *acts = &m->layers[l];
        if (training && !c->checkpointing) {
            ND_TRY(nd_layer_activations_reserve(arena, c, m->tokens, false, acts));
            continue;
        }
        *acts = *first;
        if (training)
            ND_TRY(nd_layer_activations_reserve(arena, c, m->tokens, true, acts));
    }
    return ND_OK;
}

int64_t nd_model_loss_sums(const nd_model *m)
{
    return 2 + m->params.extra_heads;
}

nd_status nd_model_reserve_activations(nd_model *m, nd_arena *arena, bool training)
{
    const nd_model_config *c = &m->config;
    const nd_dtype wide = c->compute == ND_F64 ? ND_F64 : ND_F32;
    ND_TRY(take_layers(m, arena, training));
    ND_TRY(nd_layer_scratch_reserve(arena, c, m->tokens, training, &m->scratch));
    if (training)
        ND_TRY(nd_arena_reserve(arena, c->compute, m->tokens, c->hidden_dim, &m->dx));
    ND_TRY(nd_arena_reserve(arena, wide, nd_model_logit_rows(c), nd_model_pieces(c), &m->logits));
    ND_TRY(nd_arena_reserve(arena, ND_I32, 1, m->tokens, &m->inputs));
    ND_TRY(nd_arena_reserve(arena, ND_I32, m->tokens, nd_cross_entropy_offsets(&c->loss),
                            &m->targets));
    if (training || c->num_layers == 0)
        ND_TRY(nd_arena_reserve(arena, c->compute, m->tokens, c->hidden_dim, &m->x_last));
    else
        m->x_last = m->layers[0].x;
    ND_TRY(nd_arena_reserve(arena, c->compute, m->tokens, c->hidden_dim, &m->x_final));
    ND_TRY(nd_arena_reserve(arena, wide, m->tokens, 1, &m->final_r));
    if (training && c->collider)
        ND_TRY(nd_collider_reserve(&m->collider, arena));
    if (training)
        ND_TRY(nd_mtp_reserve(m, arena));
    ND_TRY(nd_arena_reserve(arena, wide, m->tokens, 1, &m->nll));
    ND_TRY(nd_arena_reserve(arena, wide, m->tokens, 1, &m->total));
    return nd_arena_reserve(arena, ND_F64, 1, nd_model_loss_sums(m), &m->sums);
}

nd_status nd_model_load_weight(nd_model *m, int64_t index, nd_cview master)
{
    nd_backend *b = m->backend;
    nd_weight *w = &m->weights[index];
    if (w->ternary) {
        ND_TRY(b->ops.ternarize(b, w->codes, w->scales, master));
        return w->packed.data ? b->ops.pack_codes(b, w->packed, nd_as_const(w->codes)) : ND_OK;
    }
    return b->ops.axpby(b, w->dense, 1.0f, master, 0.0f);
}

static nd_layer_weights layer_weights(const nd_model *m, int64_t layer)
{
    nd_layer_weights out = {{NULL}};
    for (int which = 0; which < ND_LAYER_PARAM_COUNT; which++) {
        const int64_t index = nd_params_layer_index(&m->params, layer, (nd_layer_param)which);
        if (index >= 0)
            out.w[which] = &m->weights[index];
    }
    return out;
}

static nd_layer_span training_span(const nd_model *m, const nd_layer_activations *acts)
{
    return (nd_layer_span){.sequences = m->config.micro_batch,
                           .query_len = m->config.seq_length,
                           .keys = acts->k,
                           .values = acts->v};
}

void nd_model_set_offset_weights(nd_model *m, const float *weights)
{
    for (int j = 1; j < predicted(&m->config); j++)
        m->config.loss.offset_weight[j] = weights[j];
}

void nd_model_set_filtering(nd_model *m, bool filtering)
{
    m->filtering = filtering && m->config.collider;
}

/* The first `count` positions of host_targets, as the next token's loss reads them. */
static nd_status upload_targets(nd_model *m, int64_t count)
{
    if (m->params.extra_heads > 0)
        return nd_mtp_upload_targets(m, count, 0);
    const size_t bytes = nd_view_bytes(nd_cview_rows(nd_as_const(m->targets), 0, count));
    return m->backend->ops.upload(m->backend, m->targets.data, m->host_targets, bytes);
}

/* Splits sequences of seq_length + 1 tokens into inputs and the targets one and more further on; a
 * target beyond the sequence is -1. */
nd_status nd_model_upload(nd_model *m, const int32_t *tokens)
{
    const int64_t length = m->config.seq_length;
    const int ahead = predicted(&m->config);
    nd_backend *b = m->backend;
    for (int64_t s = 0; s < m->config.micro_batch; s++) {
        const int32_t *sequence = tokens + s * (length + 1);
        for (int64_t i = 0; i < length; i++) {
            m->host_inputs[s * length + i] = sequence[i];
            for (int j = 0; j < ahead; j++)
                m->host_targets[(s * length + i) * ahead + j] =
                    i + 1 + j <= length ? sequence[i + 1 + j] : -1;
        }
    }
    ND_TRY(b->ops.upload(b, m->inputs.data, m->host_inputs, nd_view_bytes(nd_as_const(m->inputs))));
    return upload_targets(m, m->tokens);
}

static nd_status forward(nd_model *m)
{
    nd_backend *b = m->backend;
    ND_TRY(b->ops.embedding(b, m->layers[0].x,
                            nd_as_const(m->weights[nd_params_embedding(&m->params)].dense),
                            nd_as_const(m->inputs)));
    for (int64_t l = 0; l < m->config.num_layers; l++) {
        const nd_layer_activations *acts = &m->layers[l];
        const nd_layer_weights weights = layer_weights(m, l);
        const nd_layer_span span = training_span(m, acts);
        const nd_view next = l + 1 < m->config.num_layers ? m->layers[l + 1].x : m->x_last;
        ND_TRY(nd_layer_forward(b, &m->config, &weights, acts, &m->scratch, &span, next));
    }
    return b->ops.rmsnorm(b, m->x_final, m->final_r, nd_as_const(m->x_last),
                          nd_as_const(m->weights[nd_params_output_norm(&m->params)].dense));
}

/* The next token's loss of positions [first, end), without gradients. Their logits are left in `kept`
 * unless its data is NULL. */
static nd_status loss_alone(nd_model *m, int64_t first, int64_t end, nd_view kept)
{
    const int64_t rows = end - first;
    const nd_head_pass pass = {.x = nd_cview_rows(nd_as_const(m->x_final), first, rows),
                               .head = nd_as_const(m->weights[nd_params_head(&m->params)].dense),
                               .targets = nd_cview_rows(nd_as_const(m->targets), first, rows),
                               .loss = m->config.loss,
                               .kept = kept,
                               .nll = nd_view_rows(m->nll, first, rows),
                               .total = nd_view_rows(m->total, first, rows)};
    return nd_head_run(m->backend, m->logits, &pass);
}

/* The same with dx_final and dhead = beta dhead + ..., of some of the rows that take part. */
static nd_status loss_and_gradients(nd_model *m, const nd_backward_rows *part, int64_t first,
                                    int64_t end, nd_view kept, float gradient_scale, nd_view dhead,
                                    float beta)
{
    const int64_t rows = end - first;
    nd_head_pass pass = {.x = nd_cview_rows(nd_as_const(part->x_final), first, rows),
                         .head = nd_as_const(m->weights[nd_params_head(&m->params)].dense),
                         .targets = nd_cview_rows(nd_as_const(m->targets), first, rows),
                         .loss = m->config.loss,
                         .kept = kept,
                         .computed = kept.data != NULL,
                         .nll = nd_view_rows(m->nll, first, rows),
                         .total = nd_view_rows(m->total, first, rows),
                         .dx = nd_view_rows(part->dx_final, first, rows),
                         .dhead = dhead,
                         .dhead_beta = beta};
    pass.loss.gradient_scale = gradient_scale;
    return nd_head_run(m->backend, m->logits, &pass);
}

/* Those of all rows that take part, first the ones whose logits were kept. */
static nd_status head_gradients(nd_model *m, const nd_backward_rows *part, float gradient_scale,
                                const nd_model_gradients *into)
{
    const nd_view dhead = into->views[nd_params_head(&m->params)];
    const float beta = into->accumulate_others ? 1.0f : 0.0f;
    const bool late = part->early < part->count;
    if (late)
        ND_TRY(loss_and_gradients(m, part, part->early, part->count, part->logits, gradient_scale,
                                  dhead, beta));
    return loss_and_gradients(m, part, 0, part->early, (nd_view){0}, gradient_scale, dhead,
                              late ? 1.0f : beta);
}

static nd_status sum_losses(nd_model *m, int64_t rows)
{
    nd_backend *b = m->backend;
    double *device = m->sums.data;
    ND_TRY(b->ops.sum(b, nd_view_of(device, ND_F64, 1, 1),
                      nd_cview_rows(nd_as_const(m->nll), 0, rows)));
    return b->ops.sum(b, nd_view_of(device + 1, ND_F64, 1, 1),
                      nd_cview_rows(nd_as_const(m->total), 0, rows));
}

nd_status nd_model_read_losses(nd_model *m, nd_cview sums, nd_loss *losses)
{
    const size_t bytes = nd_view_bytes(sums);
    double *host = malloc(bytes);
    if (!host)
        return ND_FAIL(ND_ENOMEM, "no memory for %lld losses", (long long)sums.rows);
    const nd_status status = m->backend->ops.download(m->backend, host, sums.data, bytes);
    for (int64_t j = 0; status == ND_OK && j < sums.rows; j++) {
        const double *row = host + j * sums.cols;
        losses[j].nll = row[0], losses[j].total = row[1];
        nd_mtp_add_losses(m, row + 2, &losses[j].total);
    }
    free(host);
    return status;
}

nd_status nd_model_evaluate(nd_model *m, const int32_t *tokens, int64_t sequences, nd_loss *loss)
{
    const int64_t rows = sequences * m->config.seq_length;
    double sums[2];
    ND_TRY(nd_model_upload(m, tokens));
    ND_TRY(forward(m));
    ND_TRY(loss_alone(m, 0, m->tokens, (nd_view){0}));
    ND_TRY(sum_losses(m, rows));
    ND_TRY(m->backend->ops.download(m->backend, sums, m->sums.data, sizeof sums));
    *loss = (nd_loss){.nll = sums[0], .total = sums[1], .tokens = rows, .kept = rows};
    return ND_OK;
}

static nd_status zero_gradient(nd_model *m, nd_view gradient)
{
    return m->backend->ops.zero(m->backend, gradient.data, nd_view_bytes(nd_as_const(gradient)));
}

static nd_backward_rows all_rows(const nd_model *m)
{
    return (nd_backward_rows){.count = m->tokens,
                              .early = m->tokens,
                              .inputs = m->inputs,
                              .x_last = m->x_last,
                              .final_r = m->final_r,
                              .x_final = m->x_final,
                              .dx_final = m->scratch.hidden,
                              .dx = m->dx};
}

/* As many rows of logits as lie between two addresses, at most all tokens'. Where it is fewer, rows of
 * padding have room behind them. */
static nd_view logits_between(const nd_model *m, char *start, const char *end)
{
    const nd_view one = nd_view_rows(m->logits, 0, 1);
    int64_t rows = (end - start) / (int64_t)nd_view_bytes(nd_as_const(one));
    if (rows < m->tokens)
        rows = rows >= ND_KEPT_ROUND ? rows - (ND_KEPT_ROUND - 1) : 0;
    return nd_view_of(start, one.dtype, rows < m->tokens ? rows : m->tokens, one.cols);
}

/* The layers' scratch but `hidden`, dx and the logits lie one after the other and are free while the
 * head runs. */
static nd_view room_in_scratch(const nd_model *m)
{
    return logits_between(m, m->scratch.wide.data,
                          (const char *)m->logits.data + nd_view_bytes(nd_as_const(m->logits)));
}

/* The layers' gradients that are not written yet, as far as they lie one after the other. */
static nd_view room_in_gradients(const nd_model *m, const nd_model_gradients *into)
{
    const int64_t first = nd_params_layer_index(&m->params, 0, ND_ATTN_NORM);
    const int64_t behind = first + m->config.num_layers * m->params.per_layer;
    char *start = m->config.num_layers > 0 ? into->views[first].data : NULL, *end = start;
    if (into->accumulate_layers)
        return (nd_view){0};
    for (int64_t i = first; i < behind; i++) {
        char *at = into->views[i].data;
        if (at < end || at - end >= ND_ARENA_ALIGN)
            break;
        end = at + nd_view_bytes(nd_as_const(into->views[i]));
    }
    return logits_between(m, start, end);
}

/* Room for the logits of the last tokens, whose number its rows are. */
static nd_view late_logits(const nd_model *m, const nd_model_gradients *into)
{
    const nd_view scratch = room_in_scratch(m), gradients = room_in_gradients(m, into);
    return gradients.rows > scratch.rows ? gradients : scratch;
}

/* Learns the losses of all tokens first, then compacts what the head reads to those that matter. */
static nd_status filter_tokens(nd_model *m, const nd_model_gradients *into, nd_backward_rows *part,
                               int64_t *kept)
{
    nd_backend *b = m->backend;
    nd_view inputs = nd_view_of(m->inputs.data, ND_I32, m->tokens, 1);
    const nd_view late = late_logits(m, into);
    const int64_t first = m->tokens - late.rows;
    ND_TRY(loss_alone(m, 0, first, (nd_view){0}));
    ND_TRY(loss_alone(m, first, m->tokens, late));
    ND_TRY(sum_losses(m, m->tokens));
    ND_TRY(nd_collider_choose(&m->collider, b, nd_as_const(m->nll), &part->rows, kept));
    if (!part->rows.data)
        return ND_OK;
    part->count = part->rows.cols;
    nd_collider_compact_targets(&m->collider, part->rows, m->config.seq_length,
                                predicted(&m->config), m->host_targets);
    ND_TRY(upload_targets(m, part->count));
    nd_cview late_rows;
    ND_TRY(nd_collider_late(&m->collider, b, part->rows, first, &part->early, &late_rows));
    part->logits = nd_view_of(late.data, late.dtype, late_rows.cols, late.cols);
    ND_TRY(b->ops.gather_rows(b, part->logits, nd_as_const(late), late_rows));
    ND_TRY(nd_collider_compact_rows(b, &part->x_final, part->rows));
    ND_TRY(nd_collider_compact_rows(b, &part->x_last, part->rows));
    ND_TRY(nd_collider_compact_rows(b, &part->final_r, part->rows));
    ND_TRY(nd_collider_compact_rows(b, &inputs, part->rows));
    part->inputs = nd_view_of(inputs.data, ND_I32, 1, part->count);
    part->dx_final = nd_view_rows(part->dx_final, 0, part->count);
    part->dx = nd_view_rows(part->dx, 0, part->count);
    return ND_OK;
}

static nd_status backward_layer(nd_model *m, int64_t layer, const nd_backward_rows *part,
                                const nd_view *gradients, bool accumulate)
{
    nd_backend *b = m->backend;
    const nd_layer_activations *acts = &m->layers[layer];
    const nd_layer_weights weights = layer_weights(m, layer);
    const nd_layer_span span = training_span(m, acts);
    nd_layer_gradients g = {{{0}}};
    for (int which = 0; which < ND_LAYER_PARAM_COUNT; which++) {
        const int64_t index = nd_params_layer_index(&m->params, layer, (nd_layer_param)which);
        if (index < 0)
            continue;
        g.dw[which] = gradients[index];
        if (!accumulate && m->params.list[index].role == ND_ROLE_NORM)
            ND_TRY(zero_gradient(m, gradients[index]));
    }
    nd_layer_activations kept = *acts;
    if (m->config.checkpointing)
        ND_TRY(nd_layer_recompute(b, &m->config, &weights, acts, &m->scratch, &span, part->rows,
                                  &kept));
    else if (part->rows.data)
        ND_TRY(nd_collider_compact(b, acts, part->rows, ND_COLLIDER_ALL, &kept));
    return nd_layer_backward(b, &m->config, &weights, &kept, &m->scratch, &span, part->rows,
                             part->dx, &g, accumulate ? 1.0f : 0.0f);
}

static nd_status announce(nd_gradients_ready ready, int64_t first, int64_t count)
{
    return ready.call ? ready.call(ready.context, first, count) : ND_OK;
}

nd_status nd_model_pass(nd_model *m, float gradient_scale, nd_model_gradients into,
                        nd_gradients_ready ready, int64_t *kept)
{
    nd_backend *b = m->backend;
    const nd_view *gradients = into.views;
    const bool accumulate = into.accumulate_others;
    const int64_t norm = nd_params_output_norm(&m->params), head = nd_params_head(&m->params);
    const int64_t embedding = nd_params_embedding(&m->params);
    nd_backward_rows part = all_rows(m);
    *kept = m->tokens;
    ND_TRY(forward(m));
    ND_TRY(nd_mtp_forward(m));
    if (m->filtering)
        ND_TRY(filter_tokens(m, &into, &part, kept));
    ND_TRY(head_gradients(m, &part, gradient_scale, &into));
    if (!m->filtering)
        ND_TRY(sum_losses(m, m->tokens));
    ND_TRY(nd_mtp_train_heads(m, &part, gradient_scale, &into));
    if (!accumulate)
        ND_TRY(zero_gradient(m, gradients[norm]));
    ND_TRY(b->ops.rmsnorm_backward(b, part.dx, gradients[norm], nd_as_const(part.dx_final),
                                   nd_as_const(part.x_last), nd_as_const(m->weights[norm].dense),
                                   nd_as_const(part.final_r), 0.0f));
    if (head != embedding && !accumulate)
        ND_TRY(zero_gradient(m, gradients[embedding]));
    ND_TRY(nd_mtp_train_blocks(m, &part, gradient_scale, &into));
    ND_TRY(announce(ready, norm, m->params.count - norm));
    for (int64_t l = m->config.num_layers - 1; l >= 0; l--) {
        ND_TRY(backward_layer(m, l, &part, gradients, into.accumulate_layers));
        ND_TRY(announce(ready, nd_params_layer_index(&m->params, l, ND_ATTN_NORM),
                        m->params.per_layer));
    }
    ND_TRY(b->ops.embedding_backward(b, gradients[embedding], nd_as_const(part.dx),
                                     nd_as_const(part.inputs)));
    return announce(ready, embedding, 1);
}

nd_status nd_model_train(nd_model *m, const int32_t *tokens, float gradient_scale,
                         nd_model_gradients into, nd_gradients_ready ready, nd_loss *loss)
{
    *loss = (nd_loss){.tokens = m->tokens};
    ND_TRY(nd_model_upload(m, tokens));
    ND_TRY(nd_model_pass(m, gradient_scale, into, ready, &loss->kept));
    return nd_model_read_losses(m, nd_as_const(m->sums), loss);
}
