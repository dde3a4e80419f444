/* config.json of other programs: numbers nobody has checked. */
#include "exchange/hf_layout.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A llama of 2 layers of 32 with `more` keys. */
static nd_status parse(const char *more, nd_config *config)
{
    char text[1024];
    double epsilon;
    snprintf(text, sizeof text,
             "{\"model_type\": \"llama\", \"hidden_size\": 32, \"num_hidden_layers\": 2, "
             "\"num_attention_heads\": 4, \"vocab_size\": 64, \"intermediate_size\": 96%s}",
             more);
    nd_config_defaults(config);
    return nd_hf_config_parse(text, strlen(text), "config.json", config, &epsilon);
}

Test(hf_config, reads_the_shape)
{
    nd_config *config = malloc(sizeof *config);
    ND_ASSERT_OK(parse(", \"head_dim\": 8", config));
    cr_assert_eq(config->model.hidden_dim, 32);
    cr_assert_eq(nd_config_ffn_dim(config), 96);
    free(config);
}

Test(hf_config, refuses_a_head_dim_whose_product_wraps_around)
{
    nd_config *config = malloc(sizeof *config);
    ND_ASSERT_FAILS(parse(", \"head_dim\": 4611686018427387912", config), ND_EDATA,
                    "head_dim = 4611686018427387912 times 4 heads is not hidden_size = 32");
    free(config);
}

/* Another type than the key's is not the key's absence. */
Test(hf_config, refuses_values_of_other_types_instead_of_taking_the_default)
{
    static const char *const others[][2] = {
        {"rope_theta", "\"500000\""}, {"rope_theta", "0"},   {"rms_norm_eps", "\"1e-05\""},
        {"rms_norm_eps", "-1e-5"},    {"head_dim", "\"8\""}, {"tie_word_embeddings", "\"true\""},
        {"rope_theta", "[]"}};
    nd_config *config = malloc(sizeof *config);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char more[96];
        snprintf(more, sizeof more, ", \"%s\": %s", others[i][0], others[i][1]);
        ND_ASSERT_FAILS(parse(more, config), ND_EDATA, others[i][0]);
    }
    ND_ASSERT_FAILS(parse(", \"rope_parameters\": {\"rope_theta\": \"x\"}", config), ND_EDATA,
                    "rope_theta is not a number");
    ND_ASSERT_OK(parse(", \"rope_theta\": null, \"rms_norm_eps\": null, \"head_dim\": null, "
                       "\"tie_word_embeddings\": null",
                       config));
    free(config);
}

/* transformers 5 reads both keys, the older one first. */
Test(hf_config, refuses_positions_that_either_key_scales_or_rotates_in_part)
{
    static const char *const others[] = {
        ", \"rope_parameters\": {\"rope_theta\": 1e4}, \"rope_scaling\": {\"type\": \"linear\", "
        "\"factor\": 2.0}",
        ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}",
        ", \"rope_parameters\": {\"rope_type\": \"yarn\"}"};
    nd_config *config = malloc(sizeof *config);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        ND_ASSERT_FAILS(parse(others[i], config), ND_EDATA, "rotary positions are scaled");
    ND_ASSERT_FAILS(parse(", \"partial_rotary_factor\": 0.5", config), ND_EDATA,
                    "partial_rotary_factor is 0.5");
    ND_ASSERT_FAILS(parse(", \"rope_parameters\": {\"partial_rotary_factor\": 0.25}", config),
                    ND_EDATA, "partial_rotary_factor is 0.25");
    ND_ASSERT_OK(parse(", \"rope_scaling\": {\"type\": \"default\"}, \"partial_rotary_factor\": "
                       "1.0",
                       config));
    free(config);
}

Test(hf_config, names_the_key_of_the_file_whose_number_is_out_of_range)
{
    nd_config *config = malloc(sizeof *config);
    ND_ASSERT_FAILS(parse(", \"max_position_embeddings\": 10000000", config), ND_ECONFIG,
                    "config.json: max_position_embeddings: [model] max_seq_len = '10000000'");
    ND_ASSERT_FAILS(parse(", \"rope_theta\": 1e10", config), ND_ECONFIG,
                    "config.json: rope_theta: [model] rope_base = '10000000000'");
    free(config);
}
