#include "exchange/hf_layout.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *kind, *hf_kind;
} names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_sub_norm", "self_attn.attn_sub_norm"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_sub_norm", "mlp.ffn_sub_norm"},
    {"ffn_down", "mlp.down_proj"},
};

/* The part of "blk.3.attn_q.weight" between the dots, and its length. */
static const char *tensor_kind(const nd_param *p, size_t *bytes)
{
    const char *kind = strchr(strchr(p->name, '.') + 1, '.') + 1;
    *bytes = (size_t)(strrchr(kind, '.') - kind);
    return kind;
}

void nd_hf_name(const nd_param *p, char name[ND_HF_NAME_MAX])
{
    size_t bytes;
    if (p->layer < 0) {
        snprintf(name, ND_HF_NAME_MAX, "%s.weight",
                 p->role == ND_ROLE_EMBEDDING ? "model.embed_tokens"
                 : p->role == ND_ROLE_NORM    ? "model.norm"
                                              : "lm_head");
        return;
    }
    const char *kind = tensor_kind(p, &bytes);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i].kind) == bytes && memcmp(names[i].kind, kind, bytes) == 0)
            snprintf(name, ND_HF_NAME_MAX, "model.layers.%lld.%s.weight", (long long)p->layer,
                     names[i].hf_kind);
}

int64_t nd_hf_row(const nd_model_config *m, const nd_param *p, int64_t row)
{
    size_t bytes;
    if (m->arch != ND_ARCH_LLAMA || p->layer < 0)
        return row;
    const char *kind = tensor_kind(p, &bytes);
    if (bytes != 6 || (memcmp(kind, "attn_q", 6) != 0 && memcmp(kind, "attn_k", 6) != 0))
        return row;
    const int64_t half = m->head_dim / 2, head = row / m->head_dim, in_head = row % m->head_dim;
    return head * m->head_dim + 2 * (in_head % half) + in_head / half;
}
