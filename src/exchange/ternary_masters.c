#include "exchange/ternary_masters.h"

#include "core/base/float_formats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Turns `count` values that share one scale into masters; returns the scale and the codes. */
static nd_status convert_part(const char *name, float *values, int64_t count, float known_scale,
                              float *scale, int8_t *codes)
{
    float largest = 0.0f;
    int64_t nonzero = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
    for (int64_t i = 0; i < count; i++) {
        ND_FAIL_IF(values[i] != 0.0f && fabsf(values[i]) != largest, ND_EDATA,
                   "%s: marked as ternary, but holds %.9g besides 0 and %.9g; was it changed after "
                   "its export?",
                   name, (double)values[i], (double)largest);
        codes[i] = (int8_t)((values[i] > 0.0f) - (values[i] < 0.0f));
        nonzero += codes[i] != 0;
    }
    *scale = known_scale > 0.0f ? known_scale : largest;
    if (nonzero == 0) {
        *scale = nd_f16_round(1e-5f);
        return ND_OK;
    }
    ND_FAIL_IF(nd_f16_round(*scale) != *scale || fabsf(*scale - largest) > largest / 128.0f,
               ND_EDATA, "%s: its scale is %.9g beside weights of %.9g; expected an fp16 value",
               name, (double)*scale, (double)largest);
    const float t = (float)((double)*scale * (double)count / (double)nonzero);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)codes[i] * t;
    return ND_OK;
}

/* Checks that ternarizing the masters gives these codes and scales. */
static nd_status check_ternarized(nd_backend *b, const char *name, nd_cview values,
                                  const int8_t *codes, const float *scales, int64_t groups)
{
    const int64_t parts = groups ? values.rows * groups : 1;
    const size_t count = (size_t)nd_view_count(values);
    ND_AUTOFREE int8_t *got_codes = malloc(count);
    ND_AUTOFREE float *got_scales = malloc((size_t)parts * sizeof *got_scales);
    ND_FAIL_IF(!got_codes || !got_scales, ND_ENOMEM, "no memory to check %s", name);
    ND_TRY(b->ops.ternarize(
        b, nd_view_of(got_codes, ND_I8, values.rows, values.cols),
        nd_view_of(got_scales, ND_F32, groups ? values.rows : 1, groups ? groups : 1), values));
    ND_TRY(b->ops.synchronize(b));
    return ND_CHECK(memcmp(got_codes, codes, count) == 0 &&
                        memcmp(got_scales, scales, (size_t)parts * sizeof *scales) == 0,
                    ND_EINTERNAL, "%s: its masters do not ternarize to its codes and scale", name);
}

nd_status nd_ternary_masters(nd_backend *backend, const char *name, float *values, int64_t rows,
                             int64_t cols, int64_t groups, float scale)
{
    const int64_t parts = groups ? rows * groups : 1, each = rows * cols / parts;
    ND_AUTOFREE int8_t *codes = malloc((size_t)(rows * cols));
    ND_AUTOFREE float *scales = malloc((size_t)parts * sizeof *scales);
    ND_FAIL_IF(!codes || !scales, ND_ENOMEM, "no memory for the codes of %s", name);
    for (int64_t i = 0; i < parts; i++)
        ND_TRY(convert_part(name, values + i * each, each, scale, &scales[i], codes + i * each));
    return check_ternarized(backend, name, nd_cview_of(values, ND_F32, rows, cols), codes, scales,
                            groups);
}
