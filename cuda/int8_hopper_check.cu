/* Compares the int8 product of int8_hopper.cu with int8_product.cu on this device and chooses. */
#include "int8_product.cuh"

#include "cuda_backend.h"

#include <stdlib.h>
#include <vector>

namespace
{

struct shape {
    int64_t rows, cols, k, row_width;
    nd_dtype type;
    bool add;
};

/* Device memory of one comparison. */
struct operands {
    int8_t *left, *right;
    float *a, *s;
    void *y[2]; /* of both kernels */
    size_t y_bytes;
};

} // namespace

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

template <typename T> static nd_status upload(nd_cuda *cuda, T **device, const std::vector<T> &host)
{
    const size_t bytes = host.size() * sizeof(T);
    ND_CUDA_TRY(cudaMalloc(reinterpret_cast<void **>(device), bytes));
    ND_CUDA_TRY(cudaMemcpyAsync(*device, host.data(), bytes, cudaMemcpyHostToDevice, cuda->stream));
    return nd_cuda_wait(cuda);
}

static std::vector<int8_t> random_codes(int64_t count, uint32_t *state)
{
    std::vector<int8_t> codes((size_t)count);
    for (int8_t &code : codes)
        code = (int8_t)next_random(state);
    return codes;
}

static std::vector<float> random_scales(int64_t count, uint32_t *state)
{
    std::vector<float> scales((size_t)count);
    for (float &scale : scales)
        scale = (float)(next_random(state) % 1000 + 1) * 1e-3f;
    return scales;
}

static nd_status create(nd_cuda *cuda, const shape *x, operands *o)
{
    uint32_t state = (uint32_t)(x->rows + x->cols + x->k);
    const int64_t count = x->rows * x->cols;
    const int64_t groups = x->row_width > 0 ? nd_ceil(x->k, x->row_width) : 0;
    ND_TRY(upload(cuda, &o->left, random_codes(x->rows * x->k, &state)));
    ND_TRY(upload(cuda, &o->right, random_codes(x->cols * x->k, &state)));
    ND_TRY(upload(cuda, &o->a, random_scales(x->rows, &state)));
    ND_TRY(upload(cuda, &o->s, random_scales(groups > 0 ? groups * x->rows : 1, &state)));
    o->y_bytes = (size_t)count * nd_dtype_size(x->type);
    for (void *&y : o->y) {
        ND_CUDA_TRY(cudaMalloc(&y, o->y_bytes));
        ND_CUDA_TRY(cudaMemsetAsync(y, x->add ? 0 : 0x5a, o->y_bytes, cuda->stream));
    }
    return ND_OK;
}

static void destroy(nd_cuda *cuda, operands *o)
{
    void *const all[] = {o->left, o->right, o->a, o->s, o->y[0], o->y[1]};
    for (void *memory : all)
        if (memory && nd_cuda_free(cuda, memory) != ND_OK)
            return; /* the device and its memory are lost */
}

/* The second call adds if the shape says so. */
static nd_status run_both(nd_cuda *cuda, const shape *x, const operands *o)
{
    nd_int8_product p;
    memset(&p, 0, sizeof p);
    p.left = o->left;
    p.right = o->right;
    p.k = x->k;
    p.a = o->a;
    p.s = o->s;
    p.row_width = x->row_width;
    for (int call = 0; call < (x->add ? 2 : 1); call++) {
        p.add = call > 0;
        p.y = nd_view_of(o->y[0], x->type, x->rows, x->cols);
        ND_TRY(nd_cuda_int8_mma(cuda, &p));
        p.y.data = o->y[1];
        ND_TRY(nd_cuda_int8_hopper(cuda, &p));
    }
    return ND_OK;
}

static nd_status compare(nd_cuda *cuda, const shape *x, const char **reason)
{
    operands o;
    memset(&o, 0, sizeof o);
    nd_status status = create(cuda, x, &o);
    std::vector<unsigned char> results[2];
    ND_IF_OK(run_both(cuda, x, &o));
    for (int i = 0; status == ND_OK && i < 2; i++) {
        results[i].resize(o.y_bytes);
        status = nd_cuda_check(cudaMemcpyAsync(results[i].data(), o.y[i], o.y_bytes,
                                               cudaMemcpyDeviceToHost, cuda->stream),
                               "the results of an int8 product", __FILE__, __LINE__);
    }
    ND_IF_OK(nd_cuda_wait(cuda));
    if (status == ND_OK && cuda->fault->kind == ND_FAULT_STOPPED) {
        memset(cuda->fault, 0, sizeof *cuda->fault);
        *reason = "its operands did not arrive";
    } else if (status == ND_OK && results[0] != results[1]) {
        *reason = "its results differ";
    }
    destroy(cuda, &o);
    return status;
}

/* Runs both on the device, on shapes with incomplete tiles, slices and groups, waits, and compares
 * the bits. *reason (static text): NULL when they are equal, else why nd_cuda_int8_hopper must not
 * be used. Errors: a fault after which the device is unusable. */
static nd_status check_products(nd_cuda *cuda, const char **reason)
{
    /* Phases wrap: more than one tile of 192 columns per multiprocessor; incomplete tiles. */
    const int64_t many = 192 * (cuda->multiprocessors + 2) + 8;
    const int64_t half = 192 * (cuda->multiprocessors / 2 + 2) + 8;
    const shape shapes[] = {{300, 264, 336, 0, ND_BF16, true},
                            {136, many, 656, 0, ND_BF16, false},
                            {72, 520, 1168, 0, ND_F32, true},
                            {200, half, 1168, 1024, ND_F32, true}};
    *reason = NULL;
    for (size_t i = 0; !*reason && i < sizeof shapes / sizeof *shapes; i++)
        ND_TRY(compare(cuda, &shapes[i], reason));
    return ND_OK;
}

/* Only 9.0: later devices lack these instructions. */
static nd_status device_is_hopper(const nd_cuda *cuda, bool *is)
{
    int major = 0, minor = 0;
    ND_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->device));
    ND_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->device));
    *is = major == 9 && minor == 0;
    return ND_OK;
}

/* Checks before the first use; not while ops are recorded, when nothing can be waited for. */
static nd_status decide(nd_backend *b, nd_cuda_hopper *hopper)
{
    nd_cuda *cuda = nd_cuda_of(b);
    const char *reason = NULL;
    bool is_hopper = false;
    if (cuda->recording)
        return ND_OK;
    hopper->state = ND_HOPPER_REFUSED;
    if (cuda->int8 == ND_CUDA_INT8_MMA)
        return ND_OK;
    ND_TRY(device_is_hopper(cuda, &is_hopper));
    if (!is_hopper)
        return ND_OK;
    ND_TRY(check_products(cuda, &reason));
    if (!reason)
        hopper->state = ND_HOPPER_EXACT;
    if (b->log)
        nd_log_line(b->log, "device  int8 products by wgmma: %s%s",
                    reason ? reason : "checked, the bits are those of mma.sync",
                    reason ? "; mma.sync is used" : "");
    return ND_OK;
}

nd_status nd_cuda_int8_product(nd_backend *b, const nd_int8_product *p)
{
    nd_cuda *cuda = nd_cuda_of(b);
    nd_cuda_hopper *hopper = nd_cuda_hopper_of(cuda);
    const bool taken = nd_cuda_int8_hopper_takes(p);
    if (taken && hopper->state == ND_HOPPER_UNKNOWN)
        ND_TRY(decide(b, hopper));
    return taken && hopper->state == ND_HOPPER_EXACT ? nd_cuda_int8_hopper(cuda, p)
                                                     : nd_cuda_int8_mma(cuda, p);
}
