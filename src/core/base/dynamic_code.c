#include "core/base/dynamic_code.h"

#include <math.h>

void nd_dynamic_code_fill(nd_dynamic_code *code, bool has_sign)
{
    int count = 1;
    double low = 1e-7;
    code->has_sign = has_sign;
    code->values[0] = 0.0f;
    for (int d = 0; d < ND_DYNAMIC_DECADES; d++, low *= 10.0) {
        const int cells = (has_sign ? 1 : 2) << d;
        for (int i = 0; i < cells; i++)
            code->values[count++] = (float)(low * (1.0 + 9.0 * (i + 0.5) / cells));
    }
    if (has_sign)
        code->values[count - 1] = 1.0f;
    else
        code->values[count++] = 1.0f;
    code->count = count;
    for (int k = 0; k + 1 < count; k++)
        code->limits[k] = 0.5f * (code->values[k] + code->values[k + 1]);
    code->limits[count - 1] = INFINITY;
    if (!has_sign)
        code->limits[0] = 0.0f;
}
