/* In the place of cuda/matmul_lt.cu and device_info.cu: the products of cuBLASLt as plain loops,
 * and a device that is always there. */
#include "context.cuh"

#include "cuda_backend.h"

#include <stdio.h>

extern "C" int nd_cuda_device_count(char *reason, size_t size)
{
    (void)reason, (void)size;
    return 1;
}

extern "C" void nd_cuda_describe(const nd_backend *backend, char *text, size_t size)
{
    (void)backend;
    snprintf(text, size, "an emulated device");
}

struct nd_cuda_matmuls {
    int calls;
};

nd_status nd_cuda_matmuls_create(nd_cuda *cuda)
{
    cuda->matmuls = new nd_cuda_matmuls();
    return ND_OK;
}

void nd_cuda_matmuls_destroy(nd_cuda *cuda)
{
    delete cuda->matmuls;
}

size_t nd_cuda_matmuls_bytes(const nd_cuda *cuda)
{
    (void)cuda;
    return 0;
}

static double at(const void *data, nd_dtype type, int64_t i)
{
    if (type == ND_BF16)
        return nd_bf16_to_float(static_cast<const uint16_t *>(data)[i]);
    if (type == ND_I8)
        return static_cast<const int8_t *>(data)[i];
    return static_cast<const float *>(data)[i];
}

static void multiply(const nd_matmul *p)
{
    const double alpha = p->alpha_device ? *p->alpha_device : p->alpha;
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = 0.0;
            for (int64_t l = 0; l < p->k; l++)
                sum += at(p->a, p->type, p->transpose_a ? l * p->m + i : i * p->k + l) *
                       at(p->b, p->type, p->transpose_b ? j * p->k + l : l * p->n + j);
            const int64_t to = i * p->n + j;
            sum *= alpha;
            if (p->c_type == ND_I32)
                static_cast<int32_t *>(p->c)[to] = (int32_t)sum;
            else if (p->c_type == ND_F32)
                static_cast<float *>(p->c)[to] =
                    (float)(sum + (p->beta == 0.0f ? 0.0 : p->beta * at(p->c, ND_F32, to)));
            else
                static_cast<uint16_t *>(p->c)[to] = nd_bf16_from_float(
                    (float)(sum + (p->beta == 0.0f ? 0.0 : p->beta * at(p->c, ND_BF16, to))));
        }
}

/* Some shapes are refused, so that what stands in for the library is tested as well. */
nd_status nd_cuda_matmul(nd_cuda *cuda, const nd_matmul *p, bool *done)
{
    (void)cuda;
    *done =
        (p->m + p->n + p->k) % 3 != 0 && (p->type != ND_I8 || (p->k % 16 == 0 && p->n % 16 == 0));
    if (*done) {
        const nd_matmul call = *p;
        nd_emulated_do([=] { multiply(&call); });
    }
    return ND_OK;
}
