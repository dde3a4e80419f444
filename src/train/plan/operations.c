#include "train/plan/operations.h"

static double product(int64_t inputs, int64_t outputs)
{
    return 2.0 * (double)inputs * (double)outputs;
}

/* Parts of a layer's forward pass. */
static double keys_and_values(const nd_model_config *c)
{
    return 2.0 * product(c->hidden_dim, c->num_kv_heads * c->head_dim);
}

static double queries_to_hidden(const nd_model_config *c)
{
    return 2.0 * product(c->hidden_dim, c->num_heads * c->head_dim) +
           2.0 * product(c->hidden_dim, c->ffn_dim);
}

static double attention(const nd_model_config *c)
{
    return product(c->seq_length, c->num_heads * c->head_dim);
}

static double recomputed(const nd_model_config *c, double kept)
{
    if (c->recompute == ND_RECOMPUTE_FFN)
        return kept * 2.0 * product(c->hidden_dim, c->ffn_dim);
    if (c->recompute == ND_RECOMPUTE_NOTHING)
        return 0.0;
    return keys_and_values(c) +
           kept * (queries_to_hidden(c) +
                   (c->recompute == ND_RECOMPUTE_ATTENTION ? attention(c) : 0.0));
}

nd_pass_operations nd_pass_operations_of(const nd_model_config *c, int64_t extra_heads, double kept)
{
    const double layers = (double)c->num_layers, extra = (double)extra_heads;
    const double layer = keys_and_values(c) + queries_to_hidden(c) + attention(c) +
                         product(c->ffn_dim, c->hidden_dim);
    const double head = product(c->hidden_dim, c->vocab_size);
    const double block = c->mtp_form == ND_MTP_SEQUENTIAL
                             ? layer + 2.0 * product(c->hidden_dim, c->hidden_dim)
                             : 0.0;
    const double both = 1.0 + 2.0 * kept;
    nd_pass_operations o;
    o.start = layers * layer + both * head + extra * (both * block + 3.0 * kept * head);
    o.layer = 2.0 * kept * layer;
    o.ffn = 2.0 * kept * 3.0 * product(c->hidden_dim, c->ffn_dim);
    o.layer += recomputed(c, kept);
    o.ffn += recomputed(c, kept);
    o.start -= recomputed(c, kept); /* the last layer's is not */
    o.all = o.start + layers * o.layer;
    return o;
}

double nd_model_operations(nd_model_config config, int64_t extra_heads, double kept)
{
    config.recompute = ND_RECOMPUTE_NOTHING;
    return nd_pass_operations_of(&config, extra_heads, kept).all;
}
