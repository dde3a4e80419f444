/* Reads GGUF files of any program. Everything is checked before it is used: a damaged or hostile
 * file gives an error, never an access outside it. */
#pragma once

#include "core/base/error.h"
#include "exchange/ggml_types.h"
#include "exchange/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A text in the file, without a terminator. */
typedef struct nd_gguf_span {
    const uint8_t *at;
    size_t bytes;
} nd_gguf_span;

typedef struct nd_gguf_pair {
    nd_gguf_span key;
    nd_gguf_kind kind;    /* never ND_GGUF_ARRAY: an array has its elements' kind */
    bool array;           /* its elements have all been checked to lie in the file */
    uint64_t count;       /* elements; 1 outside arrays */
    const uint8_t *value; /* the first element, unaligned */
} nd_gguf_pair;

typedef struct nd_gguf_tensor {
    nd_gguf_span name;
    uint32_t dimensions;
    uint64_t lengths[ND_GGUF_DIMENSIONS_MAX]; /* the innermost first; 1 beyond `dimensions` */
    const nd_ggml_type *type;
    const uint8_t *data;
    uint64_t bytes;
} nd_gguf_tensor;

typedef struct nd_gguf {
    uint32_t version;
    uint64_t alignment;
    nd_gguf_pair *pairs; /* views into the file's bytes, which outlive them */
    size_t pair_count;
    nd_gguf_tensor *tensors;
    size_t tensor_count;
    const uint8_t *data; /* where the tensors' data begins */
    size_t data_bytes;
} nd_gguf;

/* Parses a whole file of `size` bytes (version 2 or 3), which must outlive the result; `name` is
 * for messages. The caller frees it, unless it failed. Errors: ND_EDATA naming what is wrong and
 * where; ND_ENOMEM. */
nd_status nd_gguf_parse(const void *bytes, size_t size, const char *name, nd_gguf *gguf);
void nd_gguf_free(nd_gguf *gguf);

/* The pair with this key; NULL when there is none. */
const nd_gguf_pair *nd_gguf_find(const nd_gguf *gguf, const char *key);

/* Bytes of a value of this kind; 0 for texts and arrays. */
size_t nd_gguf_kind_bytes(nd_gguf_kind kind);

/* The first element of a pair of integers, floats or bools. */
double nd_gguf_number(const nd_gguf_pair *pair);

/* The text at *at, which then points after it. */
nd_gguf_span nd_gguf_next_text(const uint8_t **at);

/* Prints pairs and tensors of a file of `bytes` bytes. */
void nd_gguf_describe(const nd_gguf *gguf, const char *path, size_t bytes, FILE *out);

/* What `info FILE.gguf` prints; `verify` checks the data's digest, if any. Errors: ND_EDATA. */
nd_status nd_gguf_print(const char *path, bool verify, FILE *out);
