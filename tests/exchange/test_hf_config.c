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
