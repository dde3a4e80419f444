#include "dist/reduction/float_compression.h"

#include "core/backend/row_kernels.h"

static int block_at(int64_t first, int64_t count)
{
    return (int)(count - first < ND_FLOATS_BLOCK ? count - first : ND_FLOATS_BLOCK);
}

size_t nd_floats_compress(void *out, const float *values, int64_t count)
{
    const nd_row_kernels kernels = nd_row_kernels_in_force();
    uint8_t *at = out, *end = at + count * (int64_t)sizeof *values - 1;
    for (int64_t first = 0; first < count; first += ND_FLOATS_BLOCK) {
        const int n = block_at(first, count);
        const int64_t bytes = kernels.compress_floats(at, end - at, values + first, n);
        if (bytes == 0)
            return 0;
        at += bytes;
    }
    return (size_t)(at - (uint8_t *)out);
}

bool nd_floats_decompress(float *into, const void *in, size_t bytes, int64_t count, bool add)
{
    const nd_row_kernels kernels = nd_row_kernels_in_force();
    const uint8_t *at = in, *end = at + bytes;
    for (int64_t first = 0; first < count; first += ND_FLOATS_BLOCK) {
        const int n = block_at(first, count);
        const int64_t taken = kernels.decompress_floats(into + first, at, end - at, n, add);
        if (taken == 0)
            return false;
        at += taken;
    }
    return at == end;
}
