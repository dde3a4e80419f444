/* In the place of cuda/cudnn_library.c: cuDNN's graph interface, with plans that are executed
 * operation by operation on the host. Two engines are proposed for every graph, and the better one
 * does not repeat its bits. The environment variable ND_EMULATED_CUDNN names what goes wrong. */
extern "C" {
#include "core/base/error.h"
#include "core/base/float_formats.h"
}

#include "cudnn_library.h"

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

void nd_emulated_do(std::function<void()> work);

struct cudnnContext {
};

namespace
{

const int64_t WORKSPACE = 1000;

struct descriptor {
    cudnnBackendDescriptorType_t type;
    std::map<int, std::vector<unsigned char>> attributes;
    bool finished;
};

bool goes_wrong(const char *what)
{
    const char *wrong = getenv("ND_EMULATED_CUDNN");
    return wrong && strcmp(wrong, what) == 0;
}

descriptor *of(cudnnBackendDescriptor_t d)
{
    return static_cast<descriptor *>(d);
}

bool has(const descriptor *d, int name)
{
    return d->attributes.count(name) > 0;
}

template <typename T> T value(const descriptor *d, int name, size_t at = 0)
{
    T out = T();
    const auto found = d->attributes.find(name);
    if (found != d->attributes.end() && (at + 1) * sizeof(T) <= found->second.size())
        memcpy(&out, found->second.data() + at * sizeof(T), sizeof(T));
    return out;
}

descriptor *part(const descriptor *d, int name, size_t at = 0)
{
    return of(value<cudnnBackendDescriptor_t>(d, name, at));
}

size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

using four = std::array<int64_t, 4>; /* a shape, strides or a place */

int64_t row_major(const four &dim, const four &p)
{
    return ((p[0] * dim[1] + p[1]) * dim[2] + p[2]) * dim[3] + p[3];
}

/* Where the element of a tensor of shape `own` lies that stands against `i` of one of shape `dim`:
 * `own` may be smaller. */
int64_t against(const four &own, const four &i, const four &dim)
{
    four p;
    for (size_t n = 0; n < 4; n++)
        p[n] = own[n] == dim[n] ? i[n] : i[n] * own[n] / dim[n];
    return row_major(own, p);
}

struct execution {
    std::map<int64_t, void *> memory;
    std::map<const descriptor *, std::vector<float>> values; /* row-major */

    static four dims(const descriptor *tensor, int name = CUDNN_ATTR_TENSOR_DIMENSIONS)
    {
        four out;
        for (size_t n = 0; n < 4; n++)
            out[n] = value<int64_t>(tensor, name, n);
        return out;
    }

    static four strides(const descriptor *tensor)
    {
        return dims(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    }

    static int64_t strided(const four &stride, const four &p)
    {
        int64_t at = 0;
        for (size_t n = 0; n < 4; n++)
            at += p[n] * stride[n];
        return at;
    }

    template <typename F> static void each(const four &dim, const F &visit)
    {
        four p;
        for (p[0] = 0; p[0] < dim[0]; p[0]++)
            for (p[1] = 0; p[1] < dim[1]; p[1]++)
                for (p[2] = 0; p[2] < dim[2]; p[2]++)
                    for (p[3] = 0; p[3] < dim[3]; p[3]++)
                        visit(p);
    }

    static cudnnDataType_t type_of(const descriptor *tensor)
    {
        return value<cudnnDataType_t>(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE);
    }

    static bool is_virtual(const descriptor *tensor)
    {
        return value<bool>(tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
    }

    const std::vector<float> &load(const descriptor *tensor)
    {
        std::vector<float> &v = values[tensor];
        if (is_virtual(tensor) || !v.empty())
            return v;
        const four dim = dims(tensor), stride = strides(tensor);
        const bool narrow = type_of(tensor) == CUDNN_DATA_BFLOAT16;
        v.resize((size_t)(dim[0] * dim[1] * dim[2] * dim[3]));
        const void *from = memory.at(value<int64_t>(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID));
        each(dim, [&](const four &p) {
            const int64_t at = strided(stride, p);
            v[(size_t)row_major(dim, p)] =
                narrow ? nd_bf16_to_float(static_cast<const uint16_t *>(from)[at])
                       : static_cast<const float *>(from)[at];
        });
        return v;
    }

    void store(const descriptor *tensor, std::vector<float> v)
    {
        const four dim = dims(tensor), stride = strides(tensor);
        const bool narrow = type_of(tensor) == CUDNN_DATA_BFLOAT16;
        for (float &x : v)
            x = narrow ? nd_bf16_to_float(nd_bf16_from_float(x)) : x;
        if (!is_virtual(tensor)) {
            void *to = memory.at(value<int64_t>(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID));
            each(dim, [&](const four &p) {
                const int64_t at = strided(stride, p);
                const float x = v[(size_t)row_major(dim, p)];
                if (narrow)
                    static_cast<uint16_t *>(to)[at] = nd_bf16_from_float(x);
                else
                    static_cast<float *>(to)[at] = x;
            });
        }
        values[tensor] = std::move(v);
    }

    /* An operand of an operation element by element; of nothing it is 0. */
    struct operand {
        const std::vector<float> *values;
        four dim;

        float at(const four &i, const four &of) const
        {
            return values ? (*values)[(size_t)against(dim, i, of)] : 0.0f;
        }
    };

    operand operand_of(const descriptor *op, int name)
    {
        operand made = {NULL, {{1, 1, 1, 1}}};
        if (has(op, name)) {
            made.dim = dims(part(op, name));
            made.values = &load(part(op, name));
        }
        return made;
    }

    static float computed(cudnnPointwiseMode_t mode, float x, float b, float t)
    {
        switch (mode) {
        case CUDNN_POINTWISE_MUL:
            return x * b;
        case CUDNN_POINTWISE_ADD:
            return x + b;
        case CUDNN_POINTWISE_SUB:
            return x - b;
        case CUDNN_POINTWISE_DIV:
            return x / b;
        case CUDNN_POINTWISE_EXP:
            return std::exp(x);
        case CUDNN_POINTWISE_LOG:
            return std::log(x);
        case CUDNN_POINTWISE_CMP_GE:
            return x >= b ? 1.0f : 0.0f;
        case CUDNN_POINTWISE_BINARY_SELECT:
            return t != 0.0f || goes_wrong("mask") ? x : b;
        default:
            return NAN;
        }
    }

    void pointwise(const descriptor *op)
    {
        const descriptor *how = part(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
        const operand x = operand_of(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
        const operand b = operand_of(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
        const operand t = operand_of(op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
        const descriptor *y = part(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
        const auto mode = value<cudnnPointwiseMode_t>(how, CUDNN_ATTR_POINTWISE_MODE);
        const int64_t axis = value<int64_t>(how, CUDNN_ATTR_POINTWISE_AXIS);
        const four dim = dims(y);
        std::vector<float> out;
        each(dim, [&](const four &p) {
            out.push_back(mode == CUDNN_POINTWISE_GEN_INDEX
                              ? (float)p[(size_t)axis]
                              : computed(mode, x.at(p, dim), b.at(p, dim), t.at(p, dim)));
        });
        store(y, out);
    }

    void product(const descriptor *op)
    {
        const descriptor *a = part(op, CUDNN_ATTR_OPERATION_MATMUL_ADESC);
        const descriptor *b = part(op, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
        const descriptor *c = part(op, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
        const four left = dims(a), right = dims(b), dim = dims(c);
        const std::vector<float> &x = load(a), &y = load(b);
        std::vector<float> out;
        each(dim, [&](const four &p) {
            double sum = 0.0;
            const four i = {{p[0], p[1], p[2], 0}};
            const four j = {{p[0], p[1] * right[1] / dim[1], 0, p[3]}};
            const float *row = &x[(size_t)row_major(left, i)];
            const float *col = &y[(size_t)row_major(right, j)];
            for (int64_t k = 0; k < left[3]; k++)
                sum += (double)row[k] * col[k * right[3]];
            out.push_back((float)sum);
        });
        store(c, out);
    }

    void reduction(const descriptor *op)
    {
        const descriptor *how = part(op, CUDNN_ATTR_OPERATION_REDUCTION_DESC);
        const descriptor *x = part(op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
        const descriptor *y = part(op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
        const bool sums = value<cudnnReduceTensorOp_t>(how, CUDNN_ATTR_REDUCTION_OPERATOR) ==
                          CUDNN_REDUCE_TENSOR_ADD;
        const four from = dims(x), to = dims(y);
        const std::vector<float> &v = load(x);
        std::vector<double> out((size_t)(to[0] * to[1] * to[2] * to[3]), sums ? 0.0 : -INFINITY);
        each(from, [&](const four &p) {
            double &sum = out[(size_t)against(to, p, from)];
            const double one = v[(size_t)row_major(from, p)];
            sum = sums ? sum + one : std::fmax(sum, one);
        });
        store(y, std::vector<float>(out.begin(), out.end()));
    }

    /* Only what stands transposed. */
    void reshape(const descriptor *op)
    {
        const descriptor *x = part(op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
        const descriptor *y = part(op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
        const four from = dims(x), to = dims(y);
        const std::vector<float> &v = load(x);
        std::vector<float> out;
        each(to, [&](const four &p) {
            const four i = {{p[0], p[1], p[3], p[2]}};
            out.push_back(v[(size_t)row_major(from, i)]);
        });
        store(y, out);
    }

    void run(const descriptor *graph, size_t count)
    {
        for (size_t i = 0; i < count; i++) {
            const descriptor *op = part(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i);
            if (op->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
                pointwise(op);
            else if (op->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
                product(op);
            else if (op->type == CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
                reduction(op);
            else
                reshape(op);
        }
    }
};

size_t get_version(void)
{
    return goes_wrong("old") ? 90100 : 91900;
}

const char *error_string(cudnnStatus_t code)
{
    return code == CUDNN_STATUS_NOT_SUPPORTED ? "NOT_SUPPORTED" : "BAD_PARAM";
}

void last_error(char *text, size_t size)
{
    snprintf(text, size, "as the test wants");
}

cudnnStatus_t create(cudnnHandle_t *handle)
{
    if (goes_wrong("create"))
        return CUDNN_STATUS_NOT_INITIALIZED;
    *handle = new cudnnContext();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t destroy(cudnnHandle_t handle)
{
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t set_stream(cudnnHandle_t, cudaStream_t)
{
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t create_descriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *d)
{
    descriptor *made = new descriptor();
    made->type = type;
    *d = made;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t destroy_descriptor(cudnnBackendDescriptor_t d)
{
    delete of(d);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    const unsigned char *from = static_cast<const unsigned char *>(values);
    if (of(d)->finished)
        return CUDNN_STATUS_BAD_PARAM;
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < count; i++)
            if (!of(static_cast<const cudnnBackendDescriptor_t *>(values)[i])->finished)
                return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    of(d)->attributes[name].assign(from, from + (size_t)count * size_of(type));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize(cudnnBackendDescriptor_t d)
{
    const descriptor *made = of(d);
    const int tensor[] = {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_ATTR_TENSOR_DIMENSIONS,
                          CUDNN_ATTR_TENSOR_STRIDES, CUDNN_ATTR_TENSOR_UNIQUE_ID};
    if (made->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR)
        for (const int name : tensor)
            if (!has(made, name))
                return CUDNN_STATUS_BAD_PARAM;
    if ((made->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && goes_wrong("heuristics")) ||
        (made->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && goes_wrong("plan")))
        return CUDNN_STATUS_NOT_SUPPORTED;
    of(d)->finished = true;
    return CUDNN_STATUS_SUCCESS;
}

template <typename T> void put(descriptor *d, int name, T one)
{
    const unsigned char *from = reinterpret_cast<const unsigned char *>(&one);
    d->attributes[name].assign(from, from + sizeof one);
}

cudnnStatus_t get(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t, int64_t, int64_t *count, void *values)
{
    const descriptor *from = of(d);
    *count = 1;
    if (!from->finished)
        return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        *count = goes_wrong("no engines") ? 0 : 2;
        for (int64_t i = 0; i < *count; i++) {
            descriptor *config = of(static_cast<cudnnBackendDescriptor_t *>(values)[i]);
            put(config, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, i);
            put(config, CUDNN_ATTR_ENGINE_OPERATION_GRAPH,
                value<cudnnBackendDescriptor_t>(from, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
            config->finished = true;
        }
    } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
        descriptor *engine = of(*static_cast<cudnnBackendDescriptor_t *>(values));
        engine->attributes = from->attributes;
        engine->finished = true;
    } else if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) {
        *static_cast<int64_t *>(values) = value<int64_t>(from, name);
    } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
        cudnnBackendNumericalNote_t *notes = static_cast<cudnnBackendNumericalNote_t *>(values);
        const bool repeats =
            value<int64_t>(from, CUDNN_ATTR_ENGINE_GLOBAL_INDEX) > 0 && !goes_wrong("bits");
        *count = repeats ? 1 : 2;
        notes[0] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
        if (!repeats)
            notes[1] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
        *static_cast<int64_t *>(values) = goes_wrong("workspace") ? (int64_t)1 << 40 : WORKSPACE;
    } else {
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* Numbers of the host are read now, memory of the device when it is this call's turn. */
cudnnStatus_t execute(cudnnHandle_t, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    const descriptor *config = part(of(plan), CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const descriptor *graph = part(config, CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
    if (goes_wrong("execute") || !of(pack)->finished)
        return CUDNN_STATUS_EXECUTION_FAILED;
    execution all;
    const size_t count = of(pack)->attributes[CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS].size() / 8;
    for (size_t i = 0; i < count; i++)
        all.memory[value<int64_t>(of(pack), CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i)] =
            value<void *>(of(pack), CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    const size_t operations = graph->attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).size() / 8;
    const int inputs[] = {CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
                          CUDNN_ATTR_OPERATION_POINTWISE_BDESC};
    for (size_t i = 0; i < operations; i++)
        for (const int input : inputs) {
            const descriptor *op = part(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i);
            const descriptor *tensor = has(op, input) ? part(op, input) : NULL;
            if (tensor && value<bool>(tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE))
                all.load(tensor);
        }
    void *workspace = value<void *>(of(pack), CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    nd_emulated_do([=] {
        execution now = all;
        memset(workspace, 0xa5, (size_t)WORKSPACE);
        now.run(graph, operations);
    });
    return CUDNN_STATUS_SUCCESS;
}

} // namespace

extern "C" nd_status nd_cudnn_library_open(nd_cudnn_library *cudnn)
{
    if (goes_wrong("missing"))
        return ND_FAIL(ND_EINTERNAL, "attention through cuDNN needs libcudnn.so.9, which cannot be "
                                     "opened: as the test wants");
    cudnn->version = get_version;
    cudnn->error_string = error_string;
    cudnn->last_error = last_error;
    cudnn->create = create;
    cudnn->destroy = destroy;
    cudnn->set_stream = set_stream;
    cudnn->create_descriptor = create_descriptor;
    cudnn->destroy_descriptor = destroy_descriptor;
    cudnn->set = set;
    cudnn->get = get;
    cudnn->finalize = finalize;
    cudnn->execute = execute;
    cudnn->part_bytes = 170000; /* so that small shapes are passed over in parts */
    return ND_OK;
}
