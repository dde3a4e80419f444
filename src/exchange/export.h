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

/* Writes a GGUF file for llama.cpp. Projections are exact in every type: codes and fp16 scales, or
 * their products. Norms are f32; embedding and head are f16, or f32 with ND_EXPORT_F32. Errors:
 * ND_ECONFIG naming the tensor whose width or groups do not fit the type's blocks; ND_ECHECKPOINT;
 * ND_EIO. */
nd_status nd_export_gguf(const nd_source *source, nd_gguf_export_type type, const char *path);

/* Writes a directory for transformers: model.safetensors in bf16 or f32, config.json,
 * generation_config.json and, with a tokenizer, tokenizer.model and tokenizer_config.json. The
 * directory must be empty or not exist. Errors: ND_ECONFIG, ND_ECHECKPOINT, ND_EIO. */
nd_status nd_export_safetensors(const nd_source *source, bool bf16, const char *path);
