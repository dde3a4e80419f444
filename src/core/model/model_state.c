#include "core/model/model_state.h"

#include <stdlib.h>

int nd_model_predicted(const nd_model_config *config)
{
    const int offsets = nd_cross_entropy_offsets(&config->loss);
    return config->mtp_tokens > offsets ? config->mtp_tokens : offsets;
}

nd_status nd_model_create(const nd_model_config *config, nd_backend *backend, nd_model **model)
{
    nd_model *m = calloc(1, sizeof *m);
    ND_FAIL_IF(!m, ND_ENOMEM, "no memory for the model's tables");
    m->config = *config;
    m->config.on_device |= !backend->ops.host_memory; /* also with target = auto */
    m->backend = backend;
    m->filtering = config->collider;
    m->tokens = config->micro_batch * config->seq_length;
    nd_status status = nd_params_create(config, &m->params);
    m->weights = calloc((size_t)m->params.count, sizeof *m->weights);
    m->layers = calloc((size_t)config->num_layers, sizeof *m->layers);
    const int64_t targets = m->tokens * nd_model_predicted(config);
    m->host_inputs = calloc((size_t)m->tokens, sizeof *m->host_inputs);
    m->host_targets = calloc((size_t)targets, sizeof *m->host_targets);
    ND_IF_OK(ND_CHECK(m->weights && m->layers && m->host_inputs && m->host_targets, ND_ENOMEM,
                      "no memory for the tables of %lld layers", (long long)config->num_layers));
    if (config->collider)
        ND_IF_OK(nd_collider_create(&m->collider, config->collider_params, m->tokens));
    ND_IF_OK(nd_mtp_create(&m->mtp, config, m->tokens));
    ND_RETURN_MADE(status, m, nd_model_destroy, model);
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
    nd_mtp_destroy(&m->mtp);
    free(m);
}

/* Codes as bytes, or packed with a view of a shared scratch. */
static nd_status reserve_codes(nd_arena *arena, const nd_param *p, nd_view scratch, nd_weight *w)
{
    if (scratch.cols == 0)
        return nd_arena_reserve(arena, ND_I8, p->rows, p->cols, &w->codes);
    w->codes = nd_view_of(scratch.data, ND_I8, p->rows, p->cols);
    return nd_arena_reserve(arena, ND_U8, 1, (p->rows * p->cols + 3) / 4, &w->packed);
}

nd_status nd_model_reserve_weights(nd_model *m, nd_arena *arena)
{
    const nd_model_config *c = &m->config;
    const nd_dtype norm_type = nd_dtype_wide(c->compute);
    nd_view scratch = {0};
    if (c->pack_ternary_weights && c->ternary)
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
        ND_TRY(reserve_codes(arena, p, scratch, w));
        ND_TRY(
            nd_arena_reserve(arena, ND_F32, groups ? p->rows : 1, groups ? groups : 1, &w->scales));
    }
    return ND_OK;
}

int64_t nd_model_logit_rows(const nd_model_config *config)
{
    const int64_t tokens = config->micro_batch * config->seq_length;
    const int64_t max_floats = (int64_t)(config->on_device ? 32 << 20 : 4 << 20);
    int64_t rows = max_floats / config->vocab_size / 32 * 32;
    if (rows < 32)
        rows = 32;
    return rows < tokens ? rows : tokens;
}

/* Layers share what the backward pass recomputes layer by layer; the last layer's activations are
 * still there then. An evaluation shares everything. */
static nd_status reserve_layers(nd_model *m, nd_arena *arena, bool training)
{
    const nd_model_config *c = &m->config;
    nd_layer_activations *first = &m->layers[0];
    ND_TRY(nd_layer_activations_reserve(arena, c, m->tokens, first));
    for (int64_t l = 1; l < c->num_layers; l++) {
        nd_layer_activations *acts = &m->layers[l];
        *acts = *first;
        if (training && nd_layer_recomputes(c))
            ND_TRY(nd_layer_checkpoint_reserve(arena, c, m->tokens, acts));
        else if (training)
            ND_TRY(nd_layer_activations_reserve(arena, c, m->tokens, acts));
    }
    return ND_OK;
}

int64_t nd_model_loss_sums(const nd_model *m)
{
    return 2 + m->params.extra_heads;
}

/* Logits lie over what is idle while the head runs. But Collider keeps logits there, and blocks
 * that predict further tokens hold dx while their heads run. */
static nd_status reserve_logits(nd_model *m, nd_arena *arena, bool training)
{
    const nd_model_config *c = &m->config;
    const nd_dtype wide = nd_dtype_wide(c->compute);
    const size_t end = arena->used;
    if (!c->collider && c->mtp_form != ND_MTP_SEQUENTIAL)
        arena->used = m->scratch.idle;
    ND_TRY(nd_arena_reserve(arena, wide, nd_model_logit_rows(c), nd_model_pieces(m), &m->logits));
    m->idle = nd_view_span(m->scratch.wide, m->logits);
    if (training && c->compute == ND_BF16 && (c->on_device || m->backend->traits.fast_bf16))
        ND_TRY(nd_arena_reserve(arena, ND_BF16, m->logits.rows, m->logits.cols, &m->dlogits));
    arena->used = arena->used > end ? arena->used : end;
    return ND_OK;
}

nd_status nd_model_reserve_activations(nd_model *m, nd_arena *arena, bool training)
{
    const nd_model_config *c = &m->config;
    const nd_dtype wide = nd_dtype_wide(c->compute);
    ND_TRY(reserve_layers(m, arena, training));
    ND_TRY(nd_layer_scratch_reserve(arena, c, m->tokens, training, &m->scratch));
    if (training)
        ND_TRY(nd_arena_reserve(arena, c->compute, m->tokens, c->hidden_dim, &m->dx));
    ND_TRY(reserve_logits(m, arena, training));
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
        ND_TRY(nd_collider_reserve(&m->collider, wide, arena));
    if (training)
        ND_TRY(nd_mtp_reserve(&m->mtp, c, m->tokens, arena));
    ND_TRY(nd_arena_reserve(arena, wide, m->tokens, 1, &m->nll));
    ND_TRY(nd_arena_reserve(arena, wide, m->tokens, 1, &m->total));
    return nd_arena_reserve(arena, ND_F64, 1, nd_model_loss_sums(m), &m->sums);
}

nd_layer_pass nd_model_layer_pass(const nd_model *m, const nd_layer_activations *acts,
                                  nd_layer_index *index, int64_t number)
{
    nd_layer_pass pass = {.backend = m->backend,
                          .config = &m->config,
                          .acts = acts,
                          .scratch = &m->scratch,
                          .span = {.sequences = m->config.micro_batch,
                                   .query_len = m->config.seq_length,
                                   .keys = acts->k,
                                   .values = acts->v}};
    for (int which = 0; which < ND_LAYER_PARAM_COUNT; which++) {
        const int64_t at = index(&m->params, number, (nd_layer_param)which);
        if (at >= 0)
            pass.weights.w[which] = &m->weights[at];
    }
    return pass;
}

nd_layer_gradients nd_model_layer_gradients(const nd_model *m, const nd_view *views,
                                            nd_layer_index *index, int64_t number)
{
    nd_layer_gradients g = {{{0}}};
    for (int which = 0; which < ND_LAYER_PARAM_COUNT; which++) {
        const int64_t at = index(&m->params, number, (nd_layer_param)which);
        if (at >= 0)
            g.dw[which] = views[at];
    }
    return g;
}

nd_status nd_model_zero_gradient(nd_model *m, nd_view gradient)
{
    return m->backend->ops.zero(m->backend, gradient.data, nd_view_bytes(nd_as_const(gradient)));
}

nd_status nd_model_zero_norms(nd_model *m, const nd_view *views, int64_t first, int64_t count)
{
    for (int64_t i = first; i < first + count; i++)
        if (m->params.list[i].role == ND_ROLE_NORM)
            ND_TRY(nd_model_zero_gradient(m, views[i]));
    return ND_OK;
}

nd_status nd_model_load_weight(nd_model *m, int64_t index, nd_cview master)
{
    nd_backend *b = m->backend;
    nd_weight *w = &m->weights[index];
    if (w->ternary) {
        ND_TRY(b->ops.ternarize(b, w->codes, w->scales, master));
        return nd_weight_pack(b, w);
    }
    return b->ops.axpby(b, w->dense, 1.0f, master, 0.0f);
}
