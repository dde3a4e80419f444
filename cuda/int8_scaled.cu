/* The int8 product with one scale, by cuBLASLt into int32 and a scaling pass, or by the project's
 * kernel with fused scaling. Sums are exact and scaled by the same operations, so the bits are
 * equal, and the faster may be chosen by measuring. */
#include "floats.cuh"

#include "cuda_backend.h"
#include "int8_product.cuh"

#include <map>
#include <tuple>

namespace
{

enum { TRIALS = 3 };

struct shape_kind {
    int64_t n, k;
    int log_rows; /* products of filtered tokens have many heights */
    bool operator<(const shape_kind &other) const
    {
        return std::tie(n, k, log_rows) < std::tie(other.n, other.k, other.log_rows);
    }
};

} // namespace

struct nd_cuda_int8_choices {
    std::map<shape_kind, bool> own; /* by shape: whether the project's kernel is faster */
    cudaEvent_t begin, between, end;
    nd_cuda_hopper hopper;
};

nd_status nd_cuda_int8_choices_create(nd_cuda *cuda)
{
    nd_cuda_int8_choices *choices = new nd_cuda_int8_choices();
    cuda->int8_choices = choices;
    ND_CUDA_TRY(cudaEventCreateWithFlags(&choices->begin, cudaEventDefault));
    ND_CUDA_TRY(cudaEventCreateWithFlags(&choices->between, cudaEventDefault));
    return ND_CUDA(cudaEventCreateWithFlags(&choices->end, cudaEventDefault));
}

nd_cuda_hopper *nd_cuda_hopper_of(nd_cuda *cuda)
{
    return &cuda->int8_choices->hopper;
}

void nd_cuda_int8_choices_destroy(nd_cuda *cuda)
{
    nd_cuda_int8_choices *choices = cuda->int8_choices;
    if (!choices)
        return;
    cudaEventDestroy(choices->begin);
    cudaEventDestroy(choices->between);
    cudaEventDestroy(choices->end);
    delete choices;
    cuda->int8_choices = NULL;
}

/* y (+)= sum * s * a/127 */
__global__ void scale_rows_kernel(nd_floats y, const int32_t *sums, const float *a, const float *s,
                                  int64_t rows, int64_t n, bool add, bool wide)
{
    const float scale = *s;
    const int64_t count = rows * n;
    ND_GRID_LOOP_WIDE(i, count) {
        float x[ND_WIDE], before[ND_WIDE];
        if (wide) { /* n is a multiple of 8: one row */
            const uint4 *from = reinterpret_cast<const uint4 *>(sums + i);
            const uint4 low = from[0], high = from[1];
            const float factor = scale * (a[i / n] / 127.0f);
            const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            ND_UNROLL
            for (int j = 0; j < ND_WIDE; j++)
                x[j] = nd_product((float)(int32_t)words[j], factor);
        } else {
            for (int j = 0; j < ND_WIDE; j++)
                x[j] = i + j < count
                           ? nd_product((float)sums[i + j], scale * (a[(i + j) / n] / 127.0f))
                           : 0.0f;
        }
        if (add) {
            nd_load_wide(y, i, count - i, wide, before);
            for (int j = 0; j < ND_WIDE; j++)
                x[j] = before[j] + x[j];
        }
        nd_store_wide(y, i, count - i, wide, x);
    }
}

static nd_status by_library(nd_cuda *cuda, const nd_int8_product *p, void *sums, bool *done)
{
    nd_matmul product;
    memset(&product, 0, sizeof product);
    product.type = ND_I8;
    product.c_type = ND_I32;
    product.transpose_b = true;
    product.m = p->y.rows;
    product.n = p->y.cols;
    product.k = p->k;
    product.a = p->left;
    product.b = p->right;
    product.c = sums;
    product.alpha = 1.0f;
    ND_TRY(nd_cuda_matmul(cuda, &product, done));
    if (!*done)
        return ND_OK;
    const int64_t count = p->y.rows * p->y.cols;
    return ND_LAUNCH_WIDE(scale_rows_kernel, cuda, count, nd_floats_of(p->y),
                          static_cast<const int32_t *>(sums), p->a, p->s, p->y.rows, p->y.cols,
                          p->add, nd_aligned(p->y.cols, p->y.data));
}

/* Runs both several times and measures the last ones; p->y holds the result afterwards. */
static nd_status measure(nd_backend *b, const nd_int8_product *p, void *sums, bool *own)
{
    nd_cuda *cuda = nd_cuda_of(b);
    nd_cuda_int8_choices *choices = cuda->int8_choices;
    float library_ms = 0.0f, own_ms = 0.0f;
    *own = true;
    for (int run = 0; run < TRIALS; run++) {
        bool done = false;
        ND_CUDA_TRY(cudaEventRecord(choices->begin, cuda->stream));
        ND_TRY(by_library(cuda, p, sums, &done));
        ND_CUDA_TRY(cudaEventRecord(choices->between, cuda->stream));
        ND_TRY(nd_cuda_int8_product(b, p));
        if (!done)
            return ND_OK;
        ND_CUDA_TRY(cudaEventRecord(choices->end, cuda->stream));
    }
    ND_TRY(nd_cuda_wait(cuda));
    ND_CUDA_TRY(cudaEventElapsedTime(&library_ms, choices->begin, choices->between));
    ND_CUDA_TRY(cudaEventElapsedTime(&own_ms, choices->between, choices->end));
    *own = own_ms < library_ms;
    if (b->log)
        nd_log_line(b->log,
                    "device  int8 product of %lld x %lld and %lld x %lld: %s; cuBLASLt and scaling "
                    "%.3f ms, own kernel %.3f ms",
                    (long long)p->y.rows, (long long)p->k, (long long)p->y.cols, (long long)p->k,
                    *own ? "own kernel" : "cuBLASLt", (double)library_ms, (double)own_ms);
    return ND_OK;
}

size_t nd_cuda_int8_scratch(const nd_cuda *cuda, int64_t rows, int64_t cols)
{
    return cuda->int8 >= ND_CUDA_INT8_OWN ? 0 : nd_scratch_bytes(rows * cols, sizeof(int32_t));
}

nd_status nd_cuda_int8_scaled(nd_backend *b, const nd_int8_product *p, void *sums)
{
    nd_cuda *cuda = nd_cuda_of(b);
    bool own = cuda->int8 >= ND_CUDA_INT8_OWN;
    if (cuda->int8 == ND_CUDA_INT8_FASTEST) {
        shape_kind shape = {p->y.cols, p->k, 0};
        while (p->y.rows >> shape.log_rows > 1)
            shape.log_rows++;
        const auto known = cuda->int8_choices->own.find(shape);
        if (known != cuda->int8_choices->own.end()) {
            own = known->second;
        } else if (!cuda->recording) {
            nd_int8_product once = *p;
            if (p->add) { /* cannot be repeated: measured without, in memory of no use afterwards */
                once.add = false;
                once.y.data = sums;
            }
            ND_TRY(measure(b, &once, sums, &own));
            cuda->int8_choices->own[shape] = own;
            if (!p->add)
                return ND_OK;
        }
    }
    bool done = false;
    if (!own)
        ND_TRY(by_library(cuda, p, sums, &done));
    return done ? ND_OK : nd_cuda_int8_product(b, p);
}
