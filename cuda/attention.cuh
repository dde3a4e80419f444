/* Shared by the attention kernels: the positions of queries and keys. */
#pragma once

#include "floats.cuh"

/* nd_attention_shape for kernels. Rows of q (and o, lse, dq, dout) are query_rows; rows of dk and
 * dv are key_rows. With `rows` both are the tokens named there. */
struct nd_attention_layout {
    int64_t query_len, key_len, query_rows, key_rows;
    int heads, kv_heads, head_dim;
    const int32_t *rows;
    float scale; /* 1/sqrt(head_dim) */
};

/* The sequence of a row, -1 for padding; it sees keys 0 .. visible-1. */
struct nd_query_place {
    int sequence, visible;
};

/* The sequence of a row (-2 for padding), its position, and its row of k and v. */
struct nd_key_place {
    int sequence, position;
    int64_t token;
};

__device__ __forceinline__ nd_query_place nd_query_of(const nd_attention_layout &s, int64_t row)
{
    nd_query_place place = {-1, 0};
    if (row >= s.query_rows)
        return place;
    const int64_t token = s.rows ? s.rows[row] : row;
    if (token < 0)
        return place;
    place.sequence = (int)(token / s.query_len);
    place.visible = (int)(s.key_len - s.query_len + token % s.query_len + 1);
    return place;
}

__device__ __forceinline__ nd_key_place nd_key_of(const nd_attention_layout &s, int64_t row)
{
    nd_key_place place = {-2, 0, -1};
    if (row >= s.key_rows)
        return place;
    const int64_t token = s.rows ? s.rows[row] : row;
    if (token < 0)
        return place;
    place.sequence = (int)(token / s.key_len);
    place.position = (int)(token % s.key_len);
    place.token = token;
    return place;
}

/* The first row of q in the key's sequence that sees the key of `row`. */
__device__ __forceinline__ int64_t nd_first_query(const nd_attention_layout &s, int64_t row,
                                                  const nd_key_place &key)
{
    if (s.rows)
        return row;
    const int64_t i = key.position - (s.key_len - s.query_len);
    return key.sequence * s.query_len + (i > 0 ? i : 0);
}

/* One past the last row of q in the key's sequence. */
__device__ __forceinline__ int64_t nd_end_of_queries(const nd_attention_layout &s, int64_t row,
                                                     const nd_key_place &key)
{
    const int64_t end = (key.sequence + 1) * s.query_len;
    if (!s.rows)
        return end;
    int64_t low = row, high = s.query_rows; /* rows ascend; padding (-1) is at the end */
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (s.rows[middle] >= 0 && s.rows[middle] < end)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The views of the op attention_backward. */
struct nd_attention_gradients {
    nd_view dq, dk, dv;
    nd_cview dout, o, lse, q, k, v;
};

/* Tensor-core kernels: bf16 throughout, head_dim a multiple of 8 up to 128. */
nd_status nd_cuda_attention_tensor(nd_cuda *cuda, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                   nd_cview v, const nd_attention_layout *s);

/* delta [query_rows, heads]: sum of dout * o over a head. */
nd_status nd_cuda_attention_backward_tensor(nd_cuda *cuda, const nd_attention_gradients *g,
                                            const float *delta, const nd_attention_layout *s);

/* The builtin kernels; the caller has checked the shapes. */
nd_status nd_cuda_attention_builtin(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *s);
nd_status nd_cuda_attention_backward_builtin(nd_backend *b, const nd_attention_gradients *g,
                                             const nd_attention_shape *s);

/* A library's functions for one shape. */
struct nd_attention_library_pass {
    void *context;
    nd_status (*forward)(void *context, nd_view o, nd_view lse, nd_cview q, nd_cview k, nd_cview v);
    nd_status (*backward)(void *context, const nd_attention_gradients *g);
};

/* Compares a library with the builtin kernels, and waits: `reason` (`size` bytes) is "" or says
 * what differs. *looked is false when there is not enough memory to compare. Errors: those of the
 * passes. */
nd_status nd_cuda_attention_check(nd_backend *b, const nd_attention_shape *s, bool backward,
                                  const nd_attention_library_pass *library, bool *looked,
                                  char *reason, size_t size);

/* Compute with cuDNN where it is requested and supports the shape; otherwise *done is false, and
 * nothing is enqueued. Errors: ND_ECONFIG when cuDNN is required and does not support it. */
nd_status nd_cuda_attention_library(nd_backend *b, nd_view o, nd_view lse, nd_cview q, nd_cview k,
                                    nd_cview v, const nd_attention_shape *s, bool *done);
nd_status nd_cuda_attention_backward_library(nd_backend *b, const nd_attention_gradients *g,
                                             const nd_attention_shape *s, bool *done);
