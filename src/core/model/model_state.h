/* The model as a replica holds it: its weights and the activations of one micro-batch. */
#pragma once

#include "core/base/arena.h"
#include "core/model/collider.h"
#include "core/model/layer.h"
#include "core/model/mtp_blocks.h"
#include "core/model/params.h"

typedef struct nd_model {
    nd_model_config config;
    int64_t pieces; /* rows of the vocabulary that are tokens, the others are padding; 0: all */
    nd_params params;
    nd_backend *backend; /* not owned */
    nd_weight *weights;  /* [params.count], in the arena of nd_model_reserve_weights */

    /* Activations of one micro-batch, in the arena of nd_model_reserve_activations. */
    int64_t tokens;               /* micro_batch * seq_length */
    nd_layer_activations *layers; /* [num_layers] */
    nd_layer_scratch scratch;
    nd_view inputs, targets;  /* i32 [1, tokens], [tokens, offsets] */
    int32_t *host_inputs;     /* [tokens] */
    int32_t *host_targets;    /* [tokens, tokens predicted ahead] */
    nd_view x_last;           /* [tokens, d] output of the last layer */
    nd_view x_final, final_r; /* [tokens, d] after the final norm, [tokens, 1] */
    nd_view dx;               /* [tokens, d] */
    nd_view logits;           /* [chunk, pieces] */
    nd_view dlogits;          /* the same in bf16, where products want it; else data NULL */
    nd_view idle;             /* scratch except `hidden`, dx and logits: free while the head runs */
    nd_view nll, total;       /* [tokens, 1] */
    nd_view sums; /* f64 [1, nd_model_loss_sums]: of nll, of total, of each extra head's losses */
    nd_collider collider; /* with config.collider */
    bool filtering;
    nd_mtp mtp; /* with extra heads */
} nd_model;

/* The number of tokens that the model can predict. */
static inline int64_t nd_model_pieces(const nd_model *model)
{
    const int64_t rows = model->config.vocab_size;
    return model->pieces > 0 && model->pieces < rows ? model->pieces : rows;
}

/* The values of a parameter that is not ternary. */
static inline nd_cview nd_model_dense(const nd_model *model, int64_t index)
{
    return nd_as_const(model->weights[index].dense);
}

/* Where gradients go. views[i]: f32 (f64 in checks) [rows, cols] of parameter i, overwritten, or
 * added to if the flag of its kind is set. If they are overwritten, views of different layers may
 * share memory: nd_gradients_ready must then have used a layer's values when it returns. */
typedef struct nd_model_gradients {
    const nd_view *views;   /* [params.count] */
    bool accumulate_layers; /* parameters of layers */
    bool accumulate_others; /* embedding, final norm, head */
    nd_view spare; /* memory that is free until the first layer's backward pass, or empty */
} nd_model_gradients;

/* What a backward pass works on: all rows, or those of the kept tokens. */
typedef struct nd_backward_rows {
    nd_cview rows; /* data NULL: all */
    int64_t count;
    int64_t early;  /* number of leading rows whose logits must be computed again */
    nd_view logits; /* of the other rows: [count - early, pieces] */
    nd_view inputs, x_last, final_r, x_final;
    nd_view dx_final, dx;
    nd_cview weight; /* [count, 1] factors of the rows' losses; data NULL: 1 */
} nd_backward_rows;

/* Builds the parameter table without weights or activations. The caller owns it.
 * Errors: ND_ENOMEM. */
nd_status nd_model_create(const nd_model_config *config, nd_backend *backend, nd_model **model);
void nd_model_destroy(nd_model *model);

/* Reserve weights (category "codes") and activations: run them on a sizing arena, commit, run them
 * again. Errors: those of nd_arena_reserve. */
nd_status nd_model_reserve_weights(nd_model *model, nd_arena *arena);
nd_status nd_model_reserve_activations(nd_model *model, nd_arena *arena, bool training);

/* Sets weight i from its master [rows, cols] (f32, bf16 or f64, backend memory): ternarizes
 * projections, converts the rest. */
nd_status nd_model_load_weight(nd_model *model, int64_t index, nd_cview master);

/* Gradients of one micro-batch into `views`, which were reserved in the order of parameters. Unless
 * they accumulate, their memory is spare. */
static inline nd_model_gradients nd_model_gradients_into(const nd_params *params,
                                                         const nd_view *views, bool accumulate)
{
    const int64_t layers = accumulate ? 0 : params->layers;
    return (nd_model_gradients){views, accumulate, accumulate,
                                nd_params_layer_span(params, views, layers)};
}

/* nd_params_layer_index or nd_params_mtp_layer_index. */
typedef int64_t nd_layer_index(const nd_params *params, int64_t number, nd_layer_param which);

/* The training pass of layer `number` over all tokens, and this layer's views among the gradients
 * of all parameters. `index` finds its parameters. */
nd_layer_pass nd_model_layer_pass(const nd_model *model, const nd_layer_activations *acts,
                                  nd_layer_index *index, int64_t number);
nd_layer_gradients nd_model_layer_gradients(const nd_model *model, const nd_view *views,
                                            nd_layer_index *index, int64_t number);

/* Zeroes one gradient, or those of the norms among parameters [first, first + count). */
nd_status nd_model_zero_gradient(nd_model *model, nd_view gradient);
nd_status nd_model_zero_norms(nd_model *model, const nd_view *views, int64_t first, int64_t count);

/* Tokens predicted ahead of each position. */
int nd_model_predicted(const nd_model_config *config);

/* Columns of model->sums. */
int64_t nd_model_loss_sums(const nd_model *model);

/* Rows of logits computed at once: 16 MiB of f32 in host memory, near the cores' caches; on a
 * device 128 MiB, because each chunk reads the head and reads and writes its gradient. */
int64_t nd_model_logit_rows(const nd_model_config *config);
