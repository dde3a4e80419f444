#include "train/passes.h"

#include <string.h>

typedef struct one_pass {
    nd_run *run;
    nd_gradient_leaf leaf;
    nd_loss *loss;
} one_pass;

/* What determines the arguments of a pass's ops, besides the run's configuration. */
typedef struct pass_key {
    int32_t slot, merges, accumulate;
    float gradient_scale, offset_weight[ND_OFFSETS_MAX];
} pass_key;

nd_status nd_passes_reserve(nd_run *run, nd_arena *arena)
{
    return nd_arena_reserve(arena, ND_F64, run->local_micro_batches, nd_model_loss_sums(run->model),
                            &run->loss_sums);
}

/* For the gradient of the mean over the batch's tokens. */
static float gradient_scale(const nd_run *run)
{
    const int64_t length = run->model->config.seq_length;
    return (float)(1.0 / (double)(run->config.training.batch_size * length));
}

static nd_status add_gradients(void *context, int64_t first, int64_t count)
{
    return nd_gradient_reducer_add(context, first, count);
}

static nd_status run_pass(void *context)
{
    const one_pass *p = context;
    const nd_gradients_ready ready = {add_gradients, p->run->reducer};
    return nd_model_pass(p->run->model, gradient_scale(p->run), p->leaf.into, ready,
                         &p->loss->kept);
}

/* Whether it consists of ops with the same arguments every time. */
static bool repeats(const one_pass *p)
{
    const nd_run *run = p->run;
    const bool new_weights =
        run->config.training.use_mtp && run->config.training.mtp_schedule == ND_MTP_LINEAR;
    return run->replay && p->leaf.repeats && !run->model->filtering &&
           run->model->params.extra_heads == 0 && !new_weights;
}

/* Uploads the tokens of this rank's micro-batch j and what Collider's choice needs. */
static nd_status upload(nd_run *run, const int32_t *tokens, int64_t j)
{
    nd_model *model = run->model;
    const int64_t leaf = run->local_micro_batches * run->comm->rank + j;
    nd_collider_draw draw = {.sample =
                                 run->position.next_sample + leaf * model->config.micro_batch};
    if (model->filtering && run->reference)
        ND_TRY(nd_reference_model_losses(run->reference, tokens, &draw.reference));
    nd_model_set_draw(model, draw);
    return nd_model_upload(model, tokens);
}

static nd_status run_or_replay(one_pass *p)
{
    pass_key key;
    if (!repeats(p))
        return run_pass(p);
    memset(&key, 0, sizeof key);
    key.slot = p->leaf.slot;
    key.merges = p->leaf.merges;
    key.accumulate = p->leaf.into.accumulate_others;
    key.gradient_scale = gradient_scale(p->run);
    memcpy(key.offset_weight, p->run->model->config.loss.offset_weight, sizeof key.offset_weight);
    return nd_replay_run(p->run->replay, &key, sizeof key, run_pass, p);
}

nd_status nd_passes_run(nd_run *run, const int32_t *tokens, nd_loss *losses)
{
    nd_model *model = run->model;
    const int64_t stride = model->config.micro_batch * (model->config.seq_length + 1);
    for (int64_t j = 0; j < run->local_micro_batches; j++) {
        /* Each has its own row of losses, so that only the last one is waited for. */
        const nd_view row = nd_view_rows(run->loss_sums, j, 1);
        one_pass p = {run, nd_gradient_reducer_begin(run->reducer, j), &losses[j]};
        losses[j] = (nd_loss){.tokens = model->tokens, .kept = model->tokens};
        ND_TRY(upload(run, tokens + j * stride, j));
        ND_TRY(run_or_replay(&p));
        ND_TRY(run->backend->ops.copy(run->backend, row.data, model->sums.data,
                                      nd_view_bytes(nd_as_const(row))));
    }
    return nd_model_read_losses(model, nd_as_const(run->loss_sums), losses);
}

nd_status nd_passes_forward(nd_run *run, const int32_t *tokens, nd_split_pass *pass, nd_loss *loss)
{
    nd_model *model = run->model;
    pass->leaf = nd_gradient_reducer_begin(run->reducer, 0);
    *loss = (nd_loss){.tokens = model->tokens};
    ND_TRY(upload(run, tokens, 0));
    ND_TRY(nd_model_pass_begin(model, gradient_scale(run), &pass->leaf.into, &pass->rows,
                               &loss->kept));
    return nd_model_read_losses(model, nd_as_const(model->sums), loss);
}

nd_status nd_passes_backward(nd_run *run, const nd_split_pass *pass, nd_gradients_ready layer_ready)
{
    return nd_model_pass_finish(run->model, &pass->leaf.into, layer_ready, &pass->rows);
}
