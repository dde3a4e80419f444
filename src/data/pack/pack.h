/* Packing: text in, HDF5 shards of tokens out, in constant memory: a document is tokenized in
 * parts, cut where that does not change its tokens.
 *
 * A shard is one HDF5 file (docs/formats.md): /tokens (uint16 when the vocabulary fits, else
 * uint32; 1-D, chunked, fletcher32), /doc_offsets (uint64, start of each document in /tokens, then
 * the length), attributes format_version, vocab_size, tokenizer_sha256, n_tokens, n_bytes, split.
 * Each document is followed by EOS. The data set appears in its directory whole, with an index of
 * its shards, or not at all (pack_staging.h). The same input gives the same bytes. */
#pragma once

#include "core/base/error.h"
#include "data/text/left_out.h"

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
    double val_fraction;     /* of documents, chosen by a hash of the document's first MiB */
    bool skip_bad;           /* bad lines of JSON Lines are counted and skipped */
    bool binary;             /* files that are not text are packed as they are */
    bool overwrite;          /* replace the shards that `out` already holds */
    bool progress;           /* on standard error: a bar on a terminal, plain lines elsewhere */
} nd_pack_options;

typedef struct nd_pack_result {
    int64_t documents, val_documents;
    int64_t tokens, val_tokens;
    int64_t bytes;       /* of text */
    int64_t longest_val; /* tokens of the largest held-out shard: a longer window fits none */
    int shards;
    nd_left_out left_out; /* filled in also when packing fails */
} nd_pack_result;

/* Packs the inputs, skipping empty documents, and copies the tokenizer to out/tokenizer.model.
 * After an error `out` holds the data set that it held before, or none. Errors: ND_EDATA naming
 * file, line and byte offset of text that cannot be packed, or when `out` holds shards of another
 * tokenizer; ND_ECONFIG when it holds shards and overwrite is not set; ND_EIO. */
nd_status nd_pack(const nd_pack_options *options, nd_pack_result *result);

/* Writes the index of the shards in `out`, after reading them and checking every checksum: for
 * shards of older versions or other programs. Finishes an interrupted pack first. *shards receives
 * their number. Errors: ND_EDATA naming the shard that is damaged or has another tokenizer;
 * ND_EIO. */
nd_status nd_pack_index(const char *out, size_t *shards);
