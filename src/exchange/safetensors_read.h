/* Reads .safetensors files of any program. Everything is checked before it is used: a damaged or
 * hostile file gives an error, never an access outside it. */
#pragma once

#include "core/base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { ND_SAFETENSORS_DIMENSIONS_MAX = 8, ND_SAFETENSORS_HEADER_MAX = 100000000 };

typedef struct nd_safetensors_tensor {
    const char *name;  /* lives as long as the header */
    const char *dtype; /* "F32", "BF16", ... */
    int dimensions;
    int64_t shape[ND_SAFETENSORS_DIMENSIONS_MAX];
    const uint8_t *data; /* unaligned */
    size_t bytes;
} nd_safetensors_tensor;

typedef struct nd_safetensors {
    json_t *header;
    nd_safetensors_tensor *tensors; /* in the order of their data */
    size_t count;
    const uint8_t *data; /* of all tensors */
    size_t data_bytes;
} nd_safetensors;

/* Parses a whole file of `size` bytes, which must outlive the result; `name` is for messages. The
 * tensors must cover the data without gaps or overlaps. The caller frees it, unless it failed.
 * Errors: ND_EDATA naming what is wrong; ND_ENOMEM. */
nd_status nd_safetensors_parse(const void *bytes, size_t size, const char *name,
                               nd_safetensors *file);
void nd_safetensors_free(nd_safetensors *file);

/* The tensor with this name; NULL when there is none. */
const nd_safetensors_tensor *nd_safetensors_find(const nd_safetensors *file, const char *name);

/* The metadata under this key; NULL when there is none. */
const char *nd_safetensors_text(const nd_safetensors *file, const char *key);

/* Whether its type is F32, BF16, F16 or F64. */
bool nd_safetensors_has_floats(const nd_safetensors_tensor *tensor);

/* Converts values [first, first + count) of a tensor in F32, BF16, F16 or F64 to floats. Errors:
 * ND_EDATA naming the tensor and its type. */
nd_status nd_safetensors_floats(const nd_safetensors_tensor *tensor, int64_t first, int64_t count,
                                float *values);

/* Checks the data against the digest that files of this program have; *has_digest receives whether
 * there is one. Errors: ND_EDATA. */
nd_status nd_safetensors_verify(const nd_safetensors *file, const char *name, bool *has_digest);

/* Prints metadata and tensors of a file of `bytes` bytes. Errors: ND_ENOMEM. */
nd_status nd_safetensors_describe(const nd_safetensors *file, const char *path, size_t bytes,
                                  FILE *out);

/* What `info FILE.safetensors` prints. Errors: ND_EDATA. */
nd_status nd_safetensors_print(const char *path, bool verify, FILE *out);
