/* Builds a cuDNN operation graph: tensors of four dimensions and operations between them. `failed`
 * keeps the first error; later calls do nothing, so that a graph is written like its formulas and
 * checked once at the end. */
#pragma once

#include "cudnn_library.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ND_CUDNN_DESCRIPTORS = 160,
    ND_CUDNN_OPERATIONS = 40,
    ND_CUDNN_REASON = 256,
    ND_CUDNN_ALIGNMENT = 16
};

typedef struct nd_cudnn_tensor {
    cudnnBackendDescriptor_t descriptor;
    int64_t dim[4];
} nd_cudnn_tensor;

typedef struct nd_cudnn_graph {
    const nd_cudnn_library *cudnn;
    cudnnBackendDescriptor_t made[ND_CUDNN_DESCRIPTORS]; /* all descriptors; the graph owns them */
    cudnnBackendDescriptor_t operations[ND_CUDNN_OPERATIONS];
    int made_count, operation_count;
    int64_t virtual_count;
    char failed[ND_CUDNN_REASON]; /* "": no error so far */
} nd_cudnn_graph;

/* Writes the meaning of `code` and the library's last error message to `text` of `size` bytes. */
void nd_cudnn_describe(const nd_cudnn_library *cudnn, cudnnStatus_t code, char *text, size_t size);

void nd_cudnn_graph_open(nd_cudnn_graph *graph, const nd_cudnn_library *cudnn);
void nd_cudnn_graph_close(nd_cudnn_graph *graph);

/* A new descriptor, owned by the graph; NULL after an error. */
cudnnBackendDescriptor_t nd_cudnn_make(nd_cudnn_graph *graph, cudnnBackendDescriptorType_t type);
void nd_cudnn_set(nd_cudnn_graph *graph, cudnnBackendDescriptor_t descriptor,
                  cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void *values);
void nd_cudnn_finish(nd_cudnn_graph *graph, cudnnBackendDescriptor_t descriptor, const char *what);

/* An argument of the graph at execution, identified by `id` (1 and up), at addresses that are
 * multiples of `alignment` bytes. */
nd_cudnn_tensor nd_cudnn_argument(nd_cudnn_graph *graph, int64_t id, cudnnDataType_t type,
                                  int64_t alignment, const int64_t dim[4], const int64_t stride[4]);

/* An f32 in host memory, read when the graph is executed. */
nd_cudnn_tensor nd_cudnn_number(nd_cudnn_graph *graph, int64_t id);

/* An intermediate value, which need not exist in memory. `stride` NULL: row-major. */
nd_cudnn_tensor nd_cudnn_between(nd_cudnn_graph *graph, cudnnDataType_t type, const int64_t dim[4],
                                 const int64_t stride[4]);

/* y = mode(x, b, t), computed in `compute`; b and t may be NULL. `axis`: for index operations. */
void nd_cudnn_pointwise_into(nd_cudnn_graph *graph, cudnnPointwiseMode_t mode,
                             cudnnDataType_t compute, int64_t axis, const nd_cudnn_tensor *x,
                             const nd_cudnn_tensor *b, const nd_cudnn_tensor *t,
                             const nd_cudnn_tensor *y);

/* The same in f32; the result is an intermediate value with the shape of x. */
nd_cudnn_tensor nd_cudnn_pointwise(nd_cudnn_graph *graph, cudnnPointwiseMode_t mode,
                                   nd_cudnn_tensor x, const nd_cudnn_tensor *b);

/* c = a b over the last two dimensions, summed in f32; a may have a multiple of b's heads. */
void nd_cudnn_product(nd_cudnn_graph *graph, nd_cudnn_tensor a, nd_cudnn_tensor b,
                      nd_cudnn_tensor c);

/* y = x reduced over the dimensions in which y is smaller, in f32. */
void nd_cudnn_reduce(nd_cudnn_graph *graph, cudnnReduceTensorOp_t reduction, nd_cudnn_tensor x,
                     nd_cudnn_tensor y);

/* y is x with y's dimensions and strides. */
void nd_cudnn_reshape(nd_cudnn_graph *graph, nd_cudnn_tensor x, nd_cudnn_tensor y);
