/* The layout of transformers: names of tensors, the order of rows, and config.json of its llama and
 * bitnet models.
 *
 * The rotary embedding of transformers rotates elements (i, i + D/2) of a head in both models
 * (rotate_half). So does bitnet here, but llama here rotates (2i, 2i + 1), so the rows of its q and
 * k are in another order there: row i of a head is row 2i here, row D/2 + i is row 2i + 1. */
#pragma once

#include "core/config/config.h"
#include "core/model/params.h"

enum { ND_HF_NAME_MAX = 96 };

/* The name of a parameter in transformers. */
void nd_hf_name(const nd_param *param, char name[ND_HF_NAME_MAX]);

/* The row here of the parameter's row `row` in transformers. */
int64_t nd_hf_row(const nd_model_config *model, const nd_param *param, int64_t row);

/* The text of config.json and of generation_config.json, which the caller frees; `mark` is the
 * token between documents, -1: none. Errors: ND_ENOMEM. */
nd_status nd_hf_config_text(const nd_config *config, bool bf16, int mark, char **text);
nd_status nd_hf_generation_text(int mark, char **text);

/* Fills [model] of `config` from the text of a config.json (`path` is for messages), or from the
 * file at `path`. *epsilon receives the epsilon of the norms. Errors: ND_EDATA naming what this
 * program's graphs do not have; ND_ECONFIG for sizes out of range. */
nd_status nd_hf_config_parse(const char *text, size_t size, const char *path, nd_config *config,
                             double *epsilon);
nd_status nd_hf_config_read(const char *path, nd_config *config, double *epsilon);
