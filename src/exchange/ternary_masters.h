/* Masters for weights that are already codes times scales.
 *
 * Ternarisation takes s = fp16(mean |W|) (docs/model.md), so W = C·s would get a smaller scale: its
 * mean is s times the fraction of weights that are not 0. With W = C·t, t = s·n/k for k of n
 * weights not 0, mean |W| = s up to the rounding of t to f32, a relative error of 2^-24. s is an
 * fp16 value, whose neighbors are at least 2^-11 s away, so the mean rounds to s again; and |W|/s
 * = n/k >= 1 or 0, so the codes are C again. */
#pragma once

#include "core/backend/backend.h"

/* Turns `values` [rows, cols] into masters in place. Each value must be 0, v or -v, with one v for
 * the matrix (groups 0) or for each of `groups` parts of a row. `scale`: the exact scale if v was
 * rounded; 0: v. Then ternarizes them with `backend` (the CPU's) and checks that codes and scales
 * are the given ones. Errors: ND_EDATA naming `name` and the value that is none of the three;
 * ND_EINTERNAL. */
nd_status nd_ternary_masters(nd_backend *backend, const char *name, float *values, int64_t rows,
                             int64_t cols, int64_t groups, float scale);
