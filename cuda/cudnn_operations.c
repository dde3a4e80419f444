#include "cudnn_operations.h"

#include <stdio.h>
#include <string.h>

/* First number of intermediate values. */
enum { FIRST_VIRTUAL = 1000 };

void nd_cudnn_describe(const nd_cudnn_library *cudnn, cudnnStatus_t code, char *text, size_t size)
{
    char more[192] = "";
    cudnn->last_error(more, sizeof more);
    more[sizeof more - 1] = '\0';
    for (char *c = more; *c; c++)
        if (*c == '\n')
            *c = ' ';
    snprintf(text, size, "%s%s%s", cudnn->error_string(code), more[0] ? ": " : "", more);
}

void nd_cudnn_graph_open(nd_cudnn_graph *graph, const nd_cudnn_library *cudnn)
{
    memset(graph, 0, sizeof *graph);
    graph->cudnn = cudnn;
}

void nd_cudnn_graph_close(nd_cudnn_graph *graph)
{
    while (graph->made_count > 0)
        graph->cudnn->destroy_descriptor(graph->made[--graph->made_count]);
    graph->operation_count = 0;
}

static void check(nd_cudnn_graph *graph, cudnnStatus_t code, const char *what, int number)
{
    char reason[ND_CUDNN_REASON];
    if (code == CUDNN_STATUS_SUCCESS)
        return;
    nd_cudnn_describe(graph->cudnn, code, reason, sizeof reason);
    snprintf(graph->failed, sizeof graph->failed, "%s %d: %.200s", what, number, reason);
}

cudnnBackendDescriptor_t nd_cudnn_make(nd_cudnn_graph *graph, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t made = NULL;
    if (graph->failed[0])
        return NULL;
    if (graph->made_count == ND_CUDNN_DESCRIPTORS) {
        snprintf(graph->failed, sizeof graph->failed, "more than %d descriptors",
                 ND_CUDNN_DESCRIPTORS);
        return NULL;
    }
    check(graph, graph->cudnn->create_descriptor(type, &made), "descriptor of type", (int)type);
    if (graph->failed[0])
        return NULL;
    graph->made[graph->made_count++] = made;
    return made;
}

void nd_cudnn_set(nd_cudnn_graph *graph, cudnnBackendDescriptor_t descriptor,
                  cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void *values)
{
    if (!graph->failed[0])
        check(graph, graph->cudnn->set(descriptor, name, type, count, values), "attribute",
              (int)name);
}

void nd_cudnn_finish(nd_cudnn_graph *graph, cudnnBackendDescriptor_t descriptor, const char *what)
{
    if (!graph->failed[0])
        check(graph, graph->cudnn->finalize(descriptor), what, graph->operation_count);
}

static void set_type(nd_cudnn_graph *graph, cudnnBackendDescriptor_t d,
                     cudnnBackendAttributeName_t name, cudnnDataType_t type)
{
    nd_cudnn_set(graph, d, name, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

static void set_tensor(nd_cudnn_graph *graph, cudnnBackendDescriptor_t d,
                       cudnnBackendAttributeName_t name, const nd_cudnn_tensor *tensor)
{
    if (tensor)
        nd_cudnn_set(graph, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &tensor->descriptor);
}

static nd_cudnn_tensor make_tensor(nd_cudnn_graph *graph, int64_t id, cudnnDataType_t type,
                                   int64_t alignment, const int64_t dim[4], const int64_t stride[4],
                                   bool is_virtual, bool is_number)
{
    nd_cudnn_tensor tensor = {nd_cudnn_make(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR), {0}};
    const cudnnBackendDescriptor_t d = tensor.descriptor;
    memcpy(tensor.dim, dim, sizeof tensor.dim);
    set_type(graph, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    nd_cudnn_set(graph, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim);
    nd_cudnn_set(graph, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    nd_cudnn_set(graph, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    nd_cudnn_set(graph, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (is_virtual)
        nd_cudnn_set(graph, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    if (is_number)
        nd_cudnn_set(graph, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &is_number);
    nd_cudnn_finish(graph, d, "tensor before operation");
    return tensor;
}

nd_cudnn_tensor nd_cudnn_argument(nd_cudnn_graph *graph, int64_t id, cudnnDataType_t type,
                                  int64_t alignment, const int64_t dim[4], const int64_t stride[4])
{
    return make_tensor(graph, id, type, alignment, dim, stride, false, false);
}

nd_cudnn_tensor nd_cudnn_number(nd_cudnn_graph *graph, int64_t id)
{
    const int64_t ones[4] = {1, 1, 1, 1};
    return make_tensor(graph, id, CUDNN_DATA_FLOAT, ND_CUDNN_ALIGNMENT, ones, ones, false, true);
}

nd_cudnn_tensor nd_cudnn_between(nd_cudnn_graph *graph, cudnnDataType_t type, const int64_t dim[4],
                                 const int64_t stride[4])
{
    const int64_t packed[4] = {dim[1] * dim[2] * dim[3], dim[2] * dim[3], dim[3], 1};
    return make_tensor(graph, FIRST_VIRTUAL + graph->virtual_count++, type, ND_CUDNN_ALIGNMENT, dim,
                       stride ? stride : packed, true, false);
}

static void add_operation(nd_cudnn_graph *graph, cudnnBackendDescriptor_t operation)
{
    nd_cudnn_finish(graph, operation, "operation");
    if (graph->failed[0])
        return;
    if (graph->operation_count == ND_CUDNN_OPERATIONS)
        snprintf(graph->failed, sizeof graph->failed, "more than %d operations",
                 ND_CUDNN_OPERATIONS);
    else
        graph->operations[graph->operation_count++] = operation;
}

void nd_cudnn_pointwise_into(nd_cudnn_graph *graph, cudnnPointwiseMode_t mode,
                             cudnnDataType_t compute, int64_t axis, const nd_cudnn_tensor *x,
                             const nd_cudnn_tensor *b, const nd_cudnn_tensor *t,
                             const nd_cudnn_tensor *y)
{
    const cudnnBackendDescriptor_t how = nd_cudnn_make(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    nd_cudnn_set(graph, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(graph, how, CUDNN_ATTR_POINTWISE_MATH_PREC, compute);
    if (mode == CUDNN_POINTWISE_GEN_INDEX)
        nd_cudnn_set(graph, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    nd_cudnn_finish(graph, how, "kind of operation");
    const cudnnBackendDescriptor_t d =
        nd_cudnn_make(graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    nd_cudnn_set(graph, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    add_operation(graph, d);
}

nd_cudnn_tensor nd_cudnn_pointwise(nd_cudnn_graph *graph, cudnnPointwiseMode_t mode,
                                   nd_cudnn_tensor x, const nd_cudnn_tensor *b)
{
    const nd_cudnn_tensor y = nd_cudnn_between(graph, CUDNN_DATA_FLOAT, x.dim, NULL);
    nd_cudnn_pointwise_into(graph, mode, CUDNN_DATA_FLOAT, 0, &x, b, NULL, &y);
    return y;
}

void nd_cudnn_product(nd_cudnn_graph *graph, nd_cudnn_tensor a, nd_cudnn_tensor b,
                      nd_cudnn_tensor c)
{
    const cudnnBackendDescriptor_t how = nd_cudnn_make(graph, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(graph, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    nd_cudnn_finish(graph, how, "kind of operation");
    const cudnnBackendDescriptor_t d =
        nd_cudnn_make(graph, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, &a);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, &b);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, &c);
    nd_cudnn_set(graph, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                 &how);
    add_operation(graph, d);
}

void nd_cudnn_reduce(nd_cudnn_graph *graph, cudnnReduceTensorOp_t reduction, nd_cudnn_tensor x,
                     nd_cudnn_tensor y)
{
    const cudnnBackendDescriptor_t how = nd_cudnn_make(graph, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set_type(graph, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    nd_cudnn_set(graph, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1,
                 &reduction);
    nd_cudnn_finish(graph, how, "kind of operation");
    const cudnnBackendDescriptor_t d =
        nd_cudnn_make(graph, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, &x);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, &y);
    nd_cudnn_set(graph, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                 &how);
    add_operation(graph, d);
}

void nd_cudnn_reshape(nd_cudnn_graph *graph, nd_cudnn_tensor x, nd_cudnn_tensor y)
{
    const cudnnBackendDescriptor_t d =
        nd_cudnn_make(graph, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, &x);
    set_tensor(graph, d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, &y);
    add_operation(graph, d);
}
