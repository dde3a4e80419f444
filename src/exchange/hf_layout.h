/* The layout of transformers: names of tensors, the order of rows, and config.json of its llama and
 * bitnet models.
 *
 * Its rotary embedding rotates elements (i, i + D/2) of a head in both models (rotate_half). Our
 * bitnet does too; our llama rotates (2i, 2i + 1), so the rows of its q and k are in another order
 * there: row i of a head is our row 2i, row D/2 + i our row 2i + 1. */
#pragma once

#include "core/config/config.h"
#include "core/model/params.h"

enum { ND_HF_NAME_MAX = 96 };

/* The name of a parameter there. */
void nd_hf_name(const nd_param *param, char name[ND_HF_NAME_MAX]);

/* Our row of the parameter that is row `row` there. */
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
