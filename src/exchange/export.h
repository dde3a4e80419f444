/* A checkpoint's model in the files of other programs (docs/export.md). */
#pragma once

#include "exchange/source.h"

/* How the projections are stored. */
typedef enum nd_gguf_export_type {
    ND_EXPORT_TQ2_0,
    ND_EXPORT_TQ1_0,
    ND_EXPORT_Q2_0,
    ND_EXPORT_F16,
    ND_EXPORT_F32
} nd_gguf_export_type;

/* GGUF for llama.cpp. Projections lose nothing in any type: codes and fp16 scales as they are, or their
 * products. Norms are f32; embedding and head are f16, with ND_EXPORT_F32 f32. Errors: ND_ECONFIG when
 * widths or groups do not fit the type's blocks, naming the tensor; ND_ECHECKPOINT; ND_EIO. */
nd_status nd_export_gguf(const nd_source *source, nd_gguf_export_type type, const char *path);

/* A directory for transformers: model.safetensors in bf16 or f32, config.json, generation_config.json
 * and, with a tokenizer, tokenizer.model and tokenizer_config.json. It must not exist yet, or be empty.
 * Errors: ND_ECONFIG, ND_ECHECKPOINT, ND_EIO. */
nd_status nd_export_safetensors(const nd_source *source, bool bf16, const char *path);
