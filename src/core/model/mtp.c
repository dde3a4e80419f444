#include "core/model/mtp.h"

#include "core/model/head.h"

static float head_weight(const nd_model *m, int64_t head)
{
    return m->config.loss.offset_weight[head + 1];
}

int64_t nd_mtp_active_heads(const nd_model_config *c)
{
    int64_t active = nd_model_extra_heads(c);
    while (active > 0 && c->loss.offset_weight[active] == 0.0f)
        active--;
    return active;
}

int64_t nd_mtp_trained_params(const nd_model *m)
{
    return nd_params_mtp_first(&m->params, nd_mtp_active_heads(&m->config));
}

/* Uploads target `offset` of the first `count` positions, at least `least`. */
static nd_status upload_column(nd_model *m, nd_view to, int64_t count, int64_t offset,
                               int32_t least)
{
    for (int64_t t = 0; t < count; t++) {
        const int32_t token = m->host_targets[t * m->config.mtp_tokens + offset];
        m->mtp.column[t] = token < least ? least : token;
    }
    return m->backend->ops.upload(m->backend, to.data, m->mtp.column,
                                  (size_t)count * sizeof *m->mtp.column);
}

nd_status nd_mtp_upload_targets(nd_model *m, int64_t count, int offset)
{
    return upload_column(m, m->targets, count, offset, -1);
}

/* Sums a head's losses. Those of sampled tokens are weighted: the expected sum is that of all. */
static nd_status sum_losses(nd_model *m, int64_t index, const nd_head_pass *pass)
{
    nd_backend *b = m->backend;
    const nd_view sum = nd_view_of((double *)m->sums.data + 2 + index, ND_F64, 1, 1);
    const nd_view weighted = nd_view_rows(m->nll, 0, 1); /* of the next token, summed before */
    if (!pass->weight.data)
        return b->ops.sum(b, sum, nd_as_const(pass->total));
    ND_TRY(
        b->ops.gemm(b, weighted, nd_as_const(pass->total), true, pass->weight, false, 1.0f, 0.0f));
    return b->ops.sum(b, sum, nd_as_const(weighted));
}

/* The loss of one further token and its gradients: with smoothing, without z-loss and entropy. */
static nd_status run_head(nd_model *m, int64_t index, nd_cview x, nd_head_pass *pass)
{
    ND_TRY(nd_mtp_upload_targets(m, x.rows, (int)index + 1));
    pass->x = x;
    pass->targets = nd_cview_rows(nd_as_const(m->targets), 0, x.rows);
    pass->nll = nd_view_rows(m->nll, 0, x.rows);
    pass->total = nd_view_rows(m->total, 0, x.rows);
    pass->dlogits = m->dlogits;
    pass->loss = (nd_cross_entropy_params){.label_smoothing = m->config.loss.label_smoothing,
                                           .gradient_scale =
                                               pass->loss.gradient_scale * head_weight(m, index)};
    ND_TRY(nd_head_run(m->backend, m->logits, pass));
    return sum_losses(m, index, pass);
}

/* Adds in the order in which the heads ran. */
void nd_mtp_add_losses(const nd_model *m, const double *sums, double *total)
{
    const int64_t active = nd_mtp_active_heads(&m->config);
    const bool backwards = m->config.mtp_form == ND_MTP_SEQUENTIAL;
    for (int64_t i = 0; i < active; i++) {
        const int64_t head = backwards ? active - 1 - i : i;
        *total += (double)head_weight(m, head) * sums[head];
    }
}

nd_status nd_mtp_train_heads(nd_model *m, const nd_backward_rows *part, float gradient_scale,
                             const nd_model_gradients *into)
{
    if (m->config.mtp_form != ND_MTP_SEPARATE)
        return ND_OK;
    const int64_t active = nd_mtp_active_heads(&m->config);
    for (int64_t head = 0; head < active; head++) {
        const int64_t index = nd_params_mtp_first(&m->params, head);
        nd_head_pass pass = {.head = nd_model_dense(m, index),
                             .loss = {.gradient_scale = gradient_scale},
                             .weight = part->weight,
                             .dx = part->dx_final,
                             .dx_beta = 1.0f,
                             .dhead = into->views[index],
                             .dhead_beta = into->accumulate_others ? 1.0f : 0.0f};
        ND_TRY(run_head(m, head, nd_as_const(part->x_final), &pass));
    }
    return ND_OK;
}

static const nd_weight *block_weight(const nd_model *m, int64_t k, nd_mtp_param which)
{
    return &m->weights[nd_params_mtp_index(&m->params, k, which)];
}

static nd_layer_pass block_pass(const nd_model *m, int64_t k, const nd_mtp_block *block)
{
    return nd_model_layer_pass(m, &block->acts, nd_params_mtp_layer_index, k);
}

/* Block k reads token t+1+k, which the previous head predicted. Positions too close to the end of
 * their sequence get token 0 instead; they predict nothing, and no other position reads them. */
static nd_status upload_inputs(nd_model *m, int64_t k)
{
    return upload_column(m, m->mtp.blocks[k].inputs, m->tokens, k, 0);
}

/* The normalized input of one of the block's two projections, in scratch. */
static nd_status block_input(nd_model *m, int64_t k, nd_cview x, nd_mtp_param norm,
                             nd_linear_input *input)
{
    *input = nd_linear_input_shaped(&m->scratch.input, x.rows, x.cols);
    return nd_linear_input_norm(m->backend, input, x, block_weight(m, k, norm));
}

static nd_status block_forward(nd_model *m, int64_t k, nd_cview hidden)
{
    nd_backend *b = m->backend;
    nd_mtp_block *block = &m->mtp.blocks[k];
    const nd_layer_pass pass = block_pass(m, k, block);
    const nd_view weight_scratch = m->scratch.weight, second = m->scratch.hidden;
    nd_linear_input input;
    ND_TRY(upload_inputs(m, k));
    ND_TRY(b->ops.embedding(b, block->embedding, nd_model_dense(m, nd_params_embedding(&m->params)),
                            nd_as_const(block->inputs)));
    ND_TRY(block_input(m, k, hidden, ND_MTP_HIDDEN_NORM, &input));
    ND_TRY(nd_linear_forward(b, block->acts.x, &input, block_weight(m, k, ND_MTP_HIDDEN_PROJ),
                             weight_scratch));
    ND_TRY(block_input(m, k, nd_as_const(block->embedding), ND_MTP_EMBEDDING_NORM, &input));
    ND_TRY(nd_linear_forward(b, second, &input, block_weight(m, k, ND_MTP_EMBEDDING_PROJ),
                             weight_scratch));
    ND_TRY(b->ops.add(b, block->acts.x, nd_as_const(block->acts.x), nd_as_const(second)));
    return nd_layer_forward(&pass, block->out);
}

nd_status nd_mtp_forward(nd_model *m)
{
    if (m->config.mtp_form != ND_MTP_SEQUENTIAL)
        return ND_OK;
    const int64_t active = nd_mtp_active_heads(&m->config);
    for (int64_t k = 0; k < active; k++)
        ND_TRY(block_forward(m, k, nd_as_const(k > 0 ? m->mtp.blocks[k - 1].out : m->x_last)));
    return ND_OK;
}

/* The block's views for the backward pass, compacted in place unless all rows take part. */
static nd_status compact_block(nd_model *m, const nd_backward_rows *part, int64_t k,
                               nd_mtp_block *block)
{
    *block = m->mtp.blocks[k];
    if (!part->rows.data)
        return ND_OK;
    nd_view inputs = nd_view_of(block->inputs.data, ND_I32, m->tokens, 1);
    nd_view *const views[] = {&inputs, &block->embedding, &block->out};
    ND_TRY(nd_layer_compact_rows(m->backend, views, 3, part->rows));
    block->inputs = nd_view_of(inputs.data, ND_I32, 1, part->count);
    return nd_layer_compact(m->backend, &m->mtp.blocks[k].acts, part->rows, &block->acts);
}

/* dx = beta dx + the gradient of the block's own loss with respect to its output. */
static nd_status block_head(nd_model *m, const nd_backward_rows *part, int64_t k,
                            const nd_mtp_block *block, float gradient_scale, nd_view dx, float beta,
                            const nd_model_gradients *into)
{
    nd_backend *b = m->backend;
    const int64_t norm = nd_params_mtp_index(&m->params, k, ND_MTP_OUTPUT_NORM);
    const int64_t head = nd_params_head(&m->params);
    const nd_cview w = nd_model_dense(m, norm);
    const nd_view x = nd_view_rows(m->x_final, 0, part->count);
    const nd_view r = nd_view_rows(m->final_r, 0, part->count);
    nd_head_pass pass = {.head = nd_model_dense(m, head),
                         .loss = {.gradient_scale = gradient_scale},
                         .weight = part->weight,
                         .dx = part->dx_final,
                         .dhead = into->views[head],
                         .dhead_beta = 1.0f};
    ND_TRY(b->ops.rmsnorm(b, x, r, nd_as_const(block->out), w));
    ND_TRY(run_head(m, k, nd_as_const(x), &pass));
    return b->ops.rmsnorm_backward(b, dx, into->views[norm], nd_as_const(part->dx_final),
                                   nd_as_const(block->out), w, nd_as_const(r), beta);
}

/* From dy, the gradient of a projection of rmsnorm(x): dx = beta dx + that of x. */
static nd_status input_backward(nd_model *m, int64_t k, nd_cview x, nd_cview dy, nd_view dx,
                                float beta, nd_mtp_param norm, nd_mtp_param projection,
                                const nd_model_gradients *into)
{
    nd_backend *b = m->backend;
    const bool int8 = m->config.int8_gradients;
    const nd_view dn = nd_view_rows(m->scratch.hidden, 0, x.rows);
    nd_linear_input input;
    ND_TRY(block_input(m, k, x, norm, &input));
    ND_TRY(nd_linear_backward_weight(b, into->views[nd_params_mtp_index(&m->params, k, projection)],
                                     dy, &input, int8, into->accumulate_others ? 1.0f : 0.0f));
    ND_TRY(nd_linear_backward_input(b, dn, dy, block_weight(m, k, projection), int8, 0.0f));
    return b->ops.rmsnorm_backward(b, dx, into->views[nd_params_mtp_index(&m->params, k, norm)],
                                   nd_as_const(dn), x, nd_as_const(block_weight(m, k, norm)->dense),
                                   nd_as_const(input.r), beta);
}

/* From dx, the gradient of the block's output: dhidden = beta dhidden + that of its input state. */
static nd_status block_backward(nd_model *m, const nd_backward_rows *part, int64_t k,
                                const nd_mtp_block *block, nd_cview hidden, nd_view dx,
                                nd_view dhidden, float beta, const nd_model_gradients *into)
{
    nd_backend *b = m->backend;
    const nd_params *p = &m->params;
    const float matrix_beta = into->accumulate_others ? 1.0f : 0.0f;
    nd_layer_pass pass = block_pass(m, k, block);
    const nd_view de = nd_view_rows(m->scratch.heads, 0, part->count);
    const nd_layer_gradients g =
        nd_model_layer_gradients(m, into->views, nd_params_mtp_layer_index, k);
    pass.rows = part->rows;
    ND_TRY(nd_layer_ffn_backward(&pass, dx, &g, matrix_beta));
    ND_TRY(nd_layer_attention_backward(&pass, dx, &g, matrix_beta));
    ND_TRY(input_backward(m, k, nd_as_const(block->embedding), nd_as_const(dx), de, 0.0f,
                          ND_MTP_EMBEDDING_NORM, ND_MTP_EMBEDDING_PROJ, into));
    ND_TRY(b->ops.embedding_backward(b, into->views[nd_params_embedding(p)], nd_as_const(de),
                                     nd_as_const(block->inputs)));
    return input_backward(m, k, hidden, nd_as_const(dx), dhidden, beta, ND_MTP_HIDDEN_NORM,
                          ND_MTP_HIDDEN_PROJ, into);
}

nd_status nd_mtp_train_blocks(nd_model *m, const nd_backward_rows *part, float gradient_scale,
                              const nd_model_gradients *into)
{
    if (m->config.mtp_form != ND_MTP_SEQUENTIAL)
        return ND_OK;
    const int64_t active = nd_mtp_active_heads(&m->config);
    nd_mtp_block blocks[ND_OFFSETS_MAX];
    for (int64_t k = 0; k < active; k++)
        ND_TRY(compact_block(m, part, k, &blocks[k]));
    for (int64_t k = active - 1; k >= 0; k--) {
        const nd_view dx = nd_view_rows(m->mtp.dx[k % 2], 0, part->count);
        const nd_view below = nd_view_rows(m->mtp.dx[(k + 1) % 2], 0, part->count);
        const bool last = k == active - 1, first = k == 0;
        if (!into->accumulate_others)
            ND_TRY(nd_model_zero_norms(m, into->views, nd_params_mtp_first(&m->params, k),
                                       m->params.per_extra_head));
        ND_TRY(block_head(m, part, k, &blocks[k], gradient_scale, dx, last ? 0.0f : 1.0f, into));
        ND_TRY(block_backward(m, part, k, &blocks[k],
                              nd_as_const(first ? part->x_last : blocks[k - 1].out), dx,
                              first ? part->dx : below, first ? 1.0f : 0.0f, into));
    }
    return ND_OK;
}
