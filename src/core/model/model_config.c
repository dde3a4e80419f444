#include "core/model/model_config.h"

static nd_recompute recomputed(const nd_config *config)
{
    if (!config->hardware.gradient_checkpointing)
        return config->hardware.recompute_ffn ? ND_RECOMPUTE_FFN : ND_RECOMPUTE_NOTHING;
    return config->hardware.recompute_attention ? ND_RECOMPUTE_ATTENTION : ND_RECOMPUTE_LAYER;
}

nd_model_config nd_model_config_from(const nd_config *config)
{
    return (nd_model_config){
        .arch = (nd_arch)config->model.arch,
        .hidden_dim = config->model.hidden_dim,
        .num_layers = config->model.num_layers,
        .num_heads = config->model.num_heads,
        .num_kv_heads = config->model.num_kv_heads,
        .head_dim = config->model.hidden_dim / config->model.num_heads,
        .ffn_dim = nd_config_ffn_dim(config),
        .vocab_size = config->model.vocab_size,
        .group_size = config->model.group_size,
        .tied = config->model.tie_embeddings,
        .rope_base = config->model.rope_base,
        .compute = config->hardware.precision == ND_PRECISION_BF16 ? ND_BF16 : ND_F32,
        .ternary = true,
        .activation_quant = true,
        .int8_gradients = config->hardware.backward_precision == ND_BACKWARD_INT8,
        .on_device = config->hardware.target == ND_TARGET_CUDA,
        .recompute = recomputed(config),
        .pack_ternary_weights = config->hardware.pack_ternary_weights,
        .collider = config->training.use_collider && config->training.collider_sparsity > 0.0,
        .collider_params = {.rule = (nd_collider_rule)config->training.collider_rule,
                            .threshold = config->training.collider_threshold,
                            .sparsity = config->training.collider_sparsity,
                            .seed = (uint64_t)config->training.seed},
        .mtp_form = (nd_mtp_form)config->training.mtp_form,
        .mtp_tokens = config->training.use_mtp ? (int)config->training.mtp_n_tokens : 1,
        .micro_batch = nd_config_micro_batch(config),
        .seq_length = config->training.seq_length,
        .loss = {.label_smoothing = (float)config->training.label_smoothing,
                 .z_loss_weight = (float)config->training.z_loss_weight,
                 .entropy_weight = (float)config->training.entropy_weight,
                 .offsets = config->training.use_mtp && config->training.mtp_form == ND_MTP_SHARED
                                ? (int)config->training.mtp_n_tokens
                                : 1},
    };
}

nd_model_config nd_model_config_without_extra_heads(nd_model_config config)
{
    if (nd_model_extra_heads(&config) > 0) {
        config.mtp_form = ND_MTP_SHARED;
        config.mtp_tokens = 1;
    }
    return config;
}
