/* Packing: text in, HDF5 shards of tokens out, in constant memory.
 *
 * A shard is one HDF5 file (docs/formats.md): /tokens (uint16 when the vocabulary fits, else uint32;
 * 1-D, chunked, fletcher32), /doc_offsets (uint64, start of each document in /tokens, then the
 * length), attributes format_version, vocab_size, tokenizer_sha256, n_tokens, n_bytes, split.
 * Each document is followed by EOS. Shards are written under a temporary name and renamed. */
#ifndef ND_DATA_PACK_H
#define ND_DATA_PACK_H

#include "core/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nd_pack_options {
    const char *tokenizer;
    const char *out;           /* directory; train_00000.h5, val_00000.h5, ... are written to it */
    const char *const *inputs; /* files, directories, or "-" for standard input */
    int input_count;
    const char *glob;        /* for directories; NULL takes every regular file */
    const char *jsonl_field; /* NULL: a file is one document; else each line is a JSON object and
                                  this field is the document */
    int64_t shard_tokens;    /* a shard is closed at the first document end past this */
    double val_fraction;     /* of documents, chosen by a hash of the document's bytes */
    bool progress;           /* draw a progress bar on standard error */
} nd_pack_options;

typedef struct nd_pack_result {
    int64_t documents, val_documents;
    int64_t tokens, val_tokens;
    int64_t bytes; /* of text */
    int shards;
} nd_pack_result;

/* Errors: ND_EDATA naming file, line and byte offset of text that cannot be packed; ND_EIO. Shards
 * finished before an error stay; the unfinished one is removed. */
nd_status nd_pack(const nd_pack_options *options, nd_pack_result *result);

#endif
