#include "train/plan/memory_advice.h"

static const double gib = 1024.0 * 1024.0 * 1024.0;

void nd_memory_advise(const nd_config *config, const size_t bytes[ND_MEMORY_COUNT], FILE *out)
{
    if (!config->hardware.gradient_checkpointing && !config->hardware.recompute_ffn)
        fprintf(out, "  hardware.recompute_ffn = true keeps about half of the activations\n");
    if (!config->hardware.gradient_checkpointing)
        fprintf(out,
                "  hardware.gradient_checkpointing = true keeps two activations a layer "
                "(activations are %.2f GiB)\n",
                (double)bytes[ND_MEMORY_ACTIVATIONS] / gib);
    else if (!config->hardware.recompute_attention)
        fprintf(out,
                "  hardware.recompute_attention = true keeps one activation a layer instead of two "
                "(activations are %.2f GiB)\n",
                (double)bytes[ND_MEMORY_ACTIVATIONS] / gib);
    if (nd_config_micro_batch(config) > 1)
        fprintf(out, "  training.micro_batch_size = %lld halves them\n",
                (long long)(nd_config_micro_batch(config) / 2));
    if (config->optimizer.master_precision == ND_PRECISION_FP32)
        fprintf(out, "  optimizer.master_precision = bf16 halves the masters (%.2f GiB)\n",
                (double)bytes[ND_MEMORY_MASTERS] / gib);
    if (config->dist.deterministic == ND_DETERMINISTIC_WORLD)
        fprintf(out,
                "  dist.deterministic = off, or fewer micro-batches a rank, needs one gradient "
                "buffer (gradients are %.2f GiB)\n",
                (double)bytes[ND_MEMORY_GRADIENTS] / gib);
    if (config->training.grad_clip > 0.0)
        fprintf(out, "  training.grad_clip = 0 with one micro-batch a rank updates layer by layer "
                     "and keeps one layer's gradients\n");
    if (config->training.use_galore && config->optimizer.galore_residual > 0.0)
        fprintf(out, "  optimizer.galore_residual = 0 keeps gradients in galore_rank dimensions\n");
    if (!config->training.use_galore)
        fprintf(out,
                "  training.use_galore = true keeps gradients and optimizer state (%.2f GiB) in "
                "galore_rank dimensions\n",
                (double)bytes[ND_MEMORY_OPTIMIZER] / gib);
    fprintf(out, "  more ranks share masters and optimizer state (%.2f GiB here)\n",
            (double)(bytes[ND_MEMORY_MASTERS] + bytes[ND_MEMORY_OPTIMIZER]) / gib);
}
