#include "cli/args.h"
#include "cli/cli.h"
#include "core/base/directory.h"
#include "data/shards/hdf5_arrays.h"
#include "optim/mtp_schedule.h"
#include "train/checkpoint/load_model.h"

#include <stdlib.h>

typedef struct grad_arguments {
    const char *checkpoint, *tokens, *out, *precision, *target;
    bool reference, no_activation_quant;
} grad_arguments;

/* `gradients` has a view for each parameter. */
static nd_status reserve(nd_loaded_model *l, nd_arena *arena, nd_view *gradients)
{
    const nd_params *params = &l->model->params;
    ND_TRY(nd_model_reserve_activations(l->model, arena, true));
    for (int64_t i = 0; i < params->count; i++)
        ND_TRY(nd_arena_reserve(arena, ND_F32, params->list[i].rows, params->list[i].cols,
                                &gradients[i]));
    return ND_OK;
}

static nd_status check_tokens(const nd_loaded_model *l, const char *path, const int32_t *tokens,
                              int64_t rows, int64_t cols)
{
    ND_FAIL_IF(cols - 1 > l->config.model.max_seq_len, ND_EDATA,
               "%s: sequences of %lld tokens and the next; the model's max_seq_len is %lld", path,
               (long long)(cols - 1), (long long)l->config.model.max_seq_len);
    for (int64_t i = 0; i < rows * cols; i++)
        ND_FAIL_IF(tokens[i] < 0 || tokens[i] >= l->config.model.vocab_size, ND_EDATA,
                   "%s: token %d at element %lld; the vocabulary has %lld", path, tokens[i],
                   (long long)i, (long long)l->config.model.vocab_size);
    return ND_OK;
}

/* Copies the gradient to host memory first. */
static nd_status write_gradient(nd_hdf5_out *out, nd_backend *b, const char *name,
                                nd_cview gradient)
{
    const size_t bytes = nd_view_bytes(gradient);
    ND_AUTOFREE void *host = malloc(bytes);
    ND_FAIL_IF(!host, ND_ENOMEM, "no memory for %s (%zu bytes)", name, bytes);
    ND_TRY(b->ops.download(b, host, gradient.data, bytes));
    return nd_hdf5_out_write(out, name,
                             nd_cview_of(host, gradient.dtype, gradient.rows, gradient.cols));
}

/* With Collider, for each position: 1 if it took part in the backward pass, and its loss factor. */
static nd_status write_kept(nd_hdf5_out *out, const nd_model *m, int64_t count)
{
    const nd_collider *c = &m->collider;
    const bool weighted = c->params.rule == ND_COLLIDER_SAMPLE && count < m->tokens;
    if (!m->config.collider)
        return ND_OK;
    ND_AUTOFREE int32_t *kept = calloc((size_t)m->tokens, sizeof *kept);
    ND_AUTOFREE double *weight = calloc((size_t)m->tokens, sizeof *weight);
    ND_FAIL_IF(!kept || !weight, ND_ENOMEM, "no memory to mark %lld tokens", (long long)m->tokens);
    for (int64_t i = 0; i < count; i++) {
        const int64_t t = count < m->tokens ? c->kept[i] : i;
        kept[t] = 1;
        weight[t] = weighted ? 1.0 / c->probability[t] : 1.0;
    }
    const int64_t rows = m->config.micro_batch, cols = m->config.seq_length;
    ND_TRY(nd_hdf5_out_write(out, "/kept", nd_cview_of(kept, ND_I32, rows, cols)));
    return nd_hdf5_out_write(out, "/weight", nd_cview_of(weight, ND_F64, rows, cols));
}

static nd_status write_results(nd_loaded_model *l, const nd_view *gradients, const char *path,
                               const nd_loss *loss, nd_cview tokens)
{
    const double mean = loss->nll / (double)loss->tokens;
    const double total = loss->total / (double)loss->tokens;
    nd_hdf5_out *out = NULL;
    ND_TRY(nd_hdf5_out_create(path, "/gradients", &out));
    nd_status status = nd_hdf5_out_write(out, "/loss", nd_cview_of(&mean, ND_F64, 0, 0));
    ND_IF_OK(nd_hdf5_out_write(out, "/total_loss", nd_cview_of(&total, ND_F64, 0, 0)));
    ND_IF_OK(nd_hdf5_out_write(out, "/tokens", tokens));
    ND_IF_OK(write_kept(out, l->model, loss->kept));
    for (int64_t i = 0; i < l->model->params.count; i++) {
        char name[ND_PARAM_NAME_MAX + 16];
        snprintf(name, sizeof name, "/gradients/%s", l->model->params.list[i].name);
        ND_IF_OK(write_gradient(out, l->backend, name, nd_as_const(gradients[i])));
    }
    const nd_status closed = nd_hdf5_out_close(out, status == ND_OK);
    return status != ND_OK ? status : closed;
}

static nd_status compute(const grad_arguments *a, nd_loaded_model *l, const int32_t *tokens,
                         int64_t rows, int64_t cols)
{
    nd_loss loss;
    float offset_weights[ND_OFFSETS_MAX];
    ND_AUTOFREE nd_view *gradients = calloc((size_t)l->model->params.count, sizeof *gradients);
    ND_CLEANUP(nd_arena_release) nd_arena arena = {0};
    ND_FAIL_IF(!gradients, ND_ENOMEM, "no memory for the table of gradients");
    ND_TRY(check_tokens(l, a->tokens, tokens, rows, cols));
    nd_arena_start_sizing(&arena, "gradients", l->backend);
    ND_TRY(reserve(l, &arena, gradients));
    ND_TRY(nd_arena_commit(&arena));
    ND_TRY(reserve(l, &arena, gradients));
    /* as at the start of the run */
    nd_mtp_weights(&l->config, 0, offset_weights);
    nd_model_set_offset_weights(l->model, offset_weights);
    nd_model_set_filtering(l->model, nd_config_filters(&l->config, 0));
    const float scale = (float)(1.0 / (double)(rows * (cols - 1)));
    ND_TRY(nd_model_train(l->model, tokens, scale,
                          nd_model_gradients_into(&l->model->params, gradients, false),
                          (nd_gradients_ready){NULL, NULL}, &loss));
    ND_TRY(write_results(l, gradients, a->out, &loss, nd_cview_of(tokens, ND_I32, rows, cols)));
    printf("loss %.9f over %lld tokens; %lld gradients in %s\n", loss.nll / (double)loss.tokens,
           (long long)loss.tokens, (long long)l->model->params.count, a->out);
    return ND_OK;
}

nd_status nd_cli_grad(int argc, char **argv)
{
    grad_arguments a = {.precision = "fp32"};
    const nd_arg args[] = {
        {"--checkpoint", ND_ARG_TEXT, &a.checkpoint, "DIR", "a checkpoint, or a run's directory"},
        {"--tokens", ND_ARG_TEXT, &a.tokens, "FILE.h5",
         "/tokens: integers [batch, seq_length + 1]"},
        {"--out", ND_ARG_TEXT, &a.out, "FILE.h5",
         "/loss, /gradients/<tensor>, /tokens, /kept, /weight"},
        {"--precision", ND_ARG_TEXT, &a.precision, "fp32|bf16", "type of activations (fp32)"},
        {"--target", ND_ARG_TEXT, &a.target, "auto|cpu|cuda", "where to compute"},
        {"--reference", ND_ARG_FLAG, &a.reference, NULL,
         "use the double-accumulating reference ops"},
        {"--no-activation-quant", ND_ARG_FLAG, &a.no_activation_quant, NULL,
         "leave activations unquantized"},
    };
    const nd_command command = {
        "nanochat_dist grad --checkpoint DIR --tokens FILE.h5 --out FILE.h5 [options]",
        "Loss and every gradient of one batch, for cross-checks with other programs.", args,
        sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(!a.checkpoint || !a.tokens || !a.out, ND_ECONFIG,
               "grad needs --checkpoint, --tokens and --out (see --help)");
    ND_FAIL_IF(nd_path_same(a.tokens, a.out), ND_ECONFIG,
               "--out %s: this is the file of --tokens; give another", a.out);
    ND_TRY(nd_hdf5_out_check(a.out, "/gradients"));
    ND_AUTOFREE int32_t *tokens = NULL;
    int64_t rows = 0, cols = 0;
    ND_TRY(nd_hdf5_read_tokens(a.tokens, "/tokens", &tokens, &rows, &cols));
    nd_comm *comm = NULL;
    nd_loaded_model loaded = {0};
    nd_status status = nd_comm_create_solo(&comm);
    const nd_load_options options = {.checkpoint = a.checkpoint,
                                     .precision = a.precision,
                                     .target = a.target,
                                     .reference_only = a.reference,
                                     .activation_quant = !a.no_activation_quant,
                                     .extra_heads = true,
                                     .micro_batch = rows,
                                     .seq_length = cols - 1};
    ND_IF_OK(nd_load_model(&options, comm, &loaded));
    ND_IF_OK(compute(&a, &loaded, tokens, rows, cols));
    nd_loaded_model_release(&loaded);
    nd_comm_destroy(comm);
    return status;
}
