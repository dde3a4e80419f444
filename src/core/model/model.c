#include "core/model/model.h"

#include "core/model/head.h"
#include "core/model/mtp.h"

#include <stdlib.h>

void nd_model_set_offset_weights(nd_model *m, const float *weights)
{
    for (int j = 1; j < nd_model_predicted(&m->config); j++)
        m->config.loss.offset_weight[j] = weights[j];
}

/* Uploads the first `count` positions of host_targets for the next token's loss. */
static nd_status upload_targets(nd_model *m, int64_t count)
{
    if (m->params.extra_heads > 0)
        return nd_mtp_upload_targets(m, count, 0);
    const size_t bytes = nd_view_bytes(nd_cview_rows(nd_as_const(m->targets), 0, count));
    return m->backend->ops.upload(m->backend, m->targets.data, m->host_targets, bytes);
}

/* Splits sequences of seq_length + 1 tokens into inputs and targets at each offset; -1 beyond. */
nd_status nd_model_upload(nd_model *m, const int32_t *tokens)
{
    const int64_t length = m->config.seq_length;
    const int ahead = nd_model_predicted(&m->config);
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
    ND_TRY(b->ops.embedding(b, m->layers[0].x, nd_model_dense(m, nd_params_embedding(&m->params)),
                            nd_as_const(m->inputs)));
    for (int64_t l = 0; l < m->config.num_layers; l++) {
        const nd_layer_pass pass = nd_model_layer_pass(m, &m->layers[l], nd_params_layer_index, l);
        const nd_view next = l + 1 < m->config.num_layers ? m->layers[l + 1].x : m->x_last;
        ND_TRY(nd_layer_forward(&pass, next));
    }
    return b->ops.rmsnorm(b, m->x_final, m->final_r, nd_as_const(m->x_last),
                          nd_model_dense(m, nd_params_output_norm(&m->params)));
}

/* The next token's loss of rows [first, end) of x_final. */
static nd_head_pass head_pass(const nd_model *m, nd_view x_final, int64_t first, int64_t end)
{
    const int64_t rows = end - first;
    return (nd_head_pass){.x = nd_as_const(nd_view_rows(x_final, first, rows)),
                          .head = nd_model_dense(m, nd_params_head(&m->params)),
                          .targets = nd_as_const(nd_view_rows(m->targets, first, rows)),
                          .loss = m->config.loss,
                          .nll = nd_view_rows(m->nll, first, rows),
                          .total = nd_view_rows(m->total, first, rows)};
}

/* The next token's loss of positions [first, end), without gradients. Stores their logits in `kept`
 * and the norms of their errors in `norms` [tokens, 1], each unless its data is NULL. */
static nd_status loss_only(nd_model *m, int64_t first, int64_t end, nd_view kept, nd_view norms)
{
    nd_head_pass pass = head_pass(m, m->x_final, first, end);
    pass.kept = kept;
    if (norms.data)
        pass.norm = nd_view_rows(norms, first, end - first);
    return nd_head_run(m->backend, m->logits, &pass);
}

/* The same for some rows of the backward pass, with dx_final and dhead = beta dhead + ... */
static nd_status loss_and_gradients(nd_model *m, const nd_backward_rows *part, int64_t first,
                                    int64_t end, nd_view kept, float gradient_scale, nd_view dhead,
                                    float beta)
{
    nd_head_pass pass = head_pass(m, part->x_final, first, end);
    pass.kept = kept;
    pass.computed = kept.data != NULL;
    pass.dlogits = m->dlogits;
    if (part->weight.data)
        pass.weight = nd_cview_rows(part->weight, first, end - first);
    pass.dx = nd_view_rows(part->dx_final, first, end - first);
    pass.dhead = dhead;
    pass.dhead_beta = beta;
    pass.loss.gradient_scale = gradient_scale;
    return nd_head_run(m->backend, m->logits, &pass);
}

/* The head's gradients of all backward rows, starting with those whose logits were kept. */
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
    ND_AUTOFREE double *host = malloc(bytes);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory for %lld losses", (long long)sums.rows);
    ND_TRY(m->backend->ops.download(m->backend, host, sums.data, bytes));
    for (int64_t j = 0; j < sums.rows; j++) {
        const double *row = host + j * sums.cols;
        losses[j].nll = row[0], losses[j].total = row[1];
        nd_mtp_add_losses(m, row + 2, &losses[j].total);
    }
    return ND_OK;
}

nd_status nd_model_evaluate(nd_model *m, const int32_t *tokens, int64_t sequences, nd_loss *loss)
{
    const int64_t rows = sequences * m->config.seq_length;
    double sums[2];
    ND_TRY(nd_model_upload(m, tokens));
    ND_TRY(forward(m));
    ND_TRY(loss_only(m, 0, m->tokens, (nd_view){0}, (nd_view){0}));
    ND_TRY(sum_losses(m, rows));
    ND_TRY(m->backend->ops.download(m->backend, sums, m->sums.data, sizeof sums));
    *loss = (nd_loss){.nll = sums[0], .total = sums[1], .tokens = rows, .kept = rows};
    return ND_OK;
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

/* As many rows of logits as fit `memory`, with padding unless all do. */
static nd_view logits_view(const nd_model *m, nd_view memory)
{
    const nd_view one = nd_view_rows(m->logits, 0, 1);
    int64_t rows = memory.cols / (int64_t)nd_view_bytes(nd_as_const(one));
    if (rows < m->tokens)
        rows = rows >= ND_KEPT_ROUND ? rows - (ND_KEPT_ROUND - 1) : 0;
    return nd_view_of(memory.data, one.dtype, rows < m->tokens ? rows : m->tokens, one.cols);
}

/* Memory that keeps the logits of the last `rows` tokens. */
static nd_view kept_logits(const nd_model *m, const nd_model_gradients *into)
{
    const nd_view scratch = logits_view(m, m->idle);
    const nd_view gradients = logits_view(m, into->spare);
    return gradients.rows > scratch.rows ? gradients : scratch;
}

/* Computes all losses, then compacts the head's inputs to the kept tokens. */
static nd_status filter_tokens(nd_model *m, const nd_model_gradients *into, nd_backward_rows *part,
                               int64_t *kept)
{
    nd_backend *b = m->backend;
    nd_view inputs = nd_view_of(m->inputs.data, ND_I32, m->tokens, 1);
    const nd_view late = kept_logits(m, into);
    const int64_t first = m->tokens - late.rows;
    ND_TRY(loss_only(m, 0, first, (nd_view){0}, m->collider.norms));
    ND_TRY(loss_only(m, first, m->tokens, late, m->collider.norms));
    ND_TRY(sum_losses(m, m->tokens));
    const nd_collider_tokens ids = {m->host_inputs, m->host_targets, m->config.vocab_size,
                                    nd_model_predicted(&m->config)};
    ND_TRY(nd_collider_choose(&m->collider, b, nd_as_const(m->nll), &ids, &part->rows,
                              &part->weight, kept));
    if (!part->rows.data)
        return ND_OK;
    part->count = part->rows.cols;
    nd_collider_compact_targets(&m->collider, part->rows, m->config.seq_length,
                                nd_model_predicted(&m->config), m->host_targets);
    ND_TRY(upload_targets(m, part->count));
    nd_cview late_rows;
    ND_TRY(nd_collider_split(&m->collider, b, part->rows, first, &part->early, &late_rows));
    part->logits = nd_view_of(late.data, late.dtype, late_rows.cols, late.cols);
    ND_TRY(b->ops.gather_rows(b, part->logits, nd_as_const(late), late_rows));
    nd_view *const views[] = {&part->x_final, &part->x_last, &part->final_r, &inputs};
    ND_TRY(nd_layer_compact_rows(b, views, 4, part->rows));
    part->inputs = nd_view_of(inputs.data, ND_I32, 1, part->count);
    part->dx_final = nd_view_rows(part->dx_final, 0, part->count);
    part->dx = nd_view_rows(part->dx, 0, part->count);
    return ND_OK;
}

static nd_status notify_ready(nd_gradients_ready ready, int64_t first, int64_t count)
{
    return ready.call ? ready.call(ready.context, first, count) : ND_OK;
}

/* Announces a layer's gradients together; of the first layer, which has no other to be reduced
 * beside, those of the feed-forward half before the attention half computes. */
static nd_status backward_layer(nd_model *m, int64_t layer, const nd_backward_rows *part,
                                const nd_model_gradients *into, nd_gradients_ready ready)
{
    nd_layer_pass pass = nd_model_layer_pass(m, &m->layers[layer], nd_params_layer_index, layer);
    const nd_layer_gradients g =
        nd_model_layer_gradients(m, into->views, nd_params_layer_index, layer);
    const int64_t first = nd_params_layer_index(&m->params, layer, ND_ATTN_NORM);
    const int64_t attention = nd_params_layer_index(&m->params, layer, ND_FFN_NORM) - first;
    const float beta = into->accumulate_layers ? 1.0f : 0.0f;
    nd_layer_activations kept = *pass.acts;
    if (!into->accumulate_layers)
        ND_TRY(nd_model_zero_norms(m, into->views, first, m->params.per_layer));
    pass.rows = part->rows;
    if (nd_layer_recomputes(&m->config) && layer + 1 < m->config.num_layers)
        ND_TRY(nd_layer_recompute(&pass, &kept));
    else if (part->rows.data)
        ND_TRY(nd_layer_compact(m->backend, pass.acts, part->rows, &kept));
    pass.acts = &kept;
    ND_TRY(nd_layer_ffn_backward(&pass, part->dx, &g, beta));
    if (layer == 0)
        ND_TRY(notify_ready(ready, first + attention, m->params.per_layer - attention));
    ND_TRY(nd_layer_attention_backward(&pass, part->dx, &g, beta));
    return notify_ready(ready, first, layer == 0 ? attention : m->params.per_layer);
}

nd_status nd_model_pass_begin(nd_model *m, float gradient_scale, const nd_model_gradients *into,
                              nd_backward_rows *part, int64_t *kept)
{
    nd_backend *b = m->backend;
    const nd_view *gradients = into->views;
    const int64_t norm = nd_params_output_norm(&m->params), head = nd_params_head(&m->params);
    const int64_t embedding = nd_params_embedding(&m->params);
    *part = all_rows(m);
    *kept = m->tokens;
    ND_TRY(forward(m));
    ND_TRY(nd_mtp_forward(m));
    if (m->filtering)
        ND_TRY(filter_tokens(m, into, part, kept));
    ND_TRY(head_gradients(m, part, gradient_scale, into));
    if (!m->filtering)
        ND_TRY(sum_losses(m, m->tokens));
    ND_TRY(nd_mtp_train_heads(m, part, gradient_scale, into));
    if (!into->accumulate_others)
        ND_TRY(nd_model_zero_gradient(m, gradients[norm]));
    ND_TRY(b->ops.rmsnorm_backward(b, part->dx, gradients[norm], nd_as_const(part->dx_final),
                                   nd_as_const(part->x_last), nd_model_dense(m, norm),
                                   nd_as_const(part->final_r), 0.0f));
    if (head != embedding && !into->accumulate_others)
        ND_TRY(nd_model_zero_gradient(m, gradients[embedding]));
    return nd_mtp_train_blocks(m, part, gradient_scale, into);
}

nd_status nd_model_pass_finish(nd_model *m, const nd_model_gradients *into,
                               nd_gradients_ready ready, const nd_backward_rows *part)
{
    nd_backend *b = m->backend;
    const int64_t norm = nd_params_output_norm(&m->params);
    const int64_t embedding = nd_params_embedding(&m->params);
    ND_TRY(notify_ready(ready, norm, nd_mtp_trained_params(m) - norm));
    for (int64_t l = m->config.num_layers - 1; l >= 0; l--)
        ND_TRY(backward_layer(m, l, part, into, ready));
    ND_TRY(b->ops.embedding_backward(b, into->views[embedding], nd_as_const(part->dx),
                                     nd_as_const(part->inputs)));
    return notify_ready(ready, embedding, 1);
}

nd_status nd_model_pass(nd_model *m, float gradient_scale, nd_model_gradients into,
                        nd_gradients_ready ready, int64_t *kept)
{
    nd_backward_rows part;
    ND_TRY(nd_model_pass_begin(m, gradient_scale, &into, &part, kept));
    return nd_model_pass_finish(m, &into, ready, &part);
}

nd_status nd_model_train(nd_model *m, const int32_t *tokens, float gradient_scale,
                         nd_model_gradients into, nd_gradients_ready ready, nd_loss *loss)
{
    *loss = (nd_loss){.tokens = m->tokens};
    ND_TRY(nd_model_upload(m, tokens));
    ND_TRY(nd_model_pass(m, gradient_scale, into, ready, &loss->kept));
    return nd_model_read_losses(m, nd_as_const(m->sums), loss);
}
