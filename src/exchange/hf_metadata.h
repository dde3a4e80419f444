/* Metadata in the .safetensors files of this program, from which an import recovers the codes. */
#pragma once

/* "true": every projection is codes times scales. */
#define ND_HF_TERNARY_KEY "nanochat_dist.ternary"
/* [model] group_size. */
#define ND_HF_GROUP_KEY "nanochat_dist.group_size"
/* A JSON object of tensors' scales, which bf16 would round; only with one scale per matrix. */
#define ND_HF_SCALES_KEY "nanochat_dist.scales"
/* For people. */
#define ND_HF_ACTIVATIONS_KEY "nanochat_dist.activations"
#define ND_HF_ACTIVATIONS_TEXT                                                                     \
    "The model was trained with the inputs of every projection quantized to int8 for each token. " \
    "That quantization is absent here: the weights are dequantized, activations are not rounded."
