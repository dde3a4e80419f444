/* Writes documents to shards: the part of packing independent of the text's source. */
#pragma once

#include "data/pack/pack.h"
#include "data/pack/pack_staging.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_writer.h"
#include "data/tokenizer/tokenizer.h"

/* Text is tokenized in parts of about this many bytes, and a hash of as many bytes from its start
 * decides a document's split. */
enum { ND_PACK_PART_BYTES = 1 << 20 };

typedef enum nd_split { ND_SPLIT_TRAIN, ND_SPLIT_VAL, ND_SPLIT_COUNT } nd_split;

typedef struct nd_packer {
    const nd_pack_options *options;
    const nd_tokenizer *tokenizer;
    const nd_pack_staging *staging;           /* where shards are written */
    nd_shard_index index;                     /* of the finished shards */
    nd_shard_writer *writers[ND_SPLIT_COUNT]; /* NULL between shards */
    int next_shard[ND_SPLIT_COUNT];
    nd_split split; /* of the open document, once known */
    bool split_known;
    int64_t document_bytes; /* tokenized bytes of the open document */
    char *held;             /* [2 * ND_PACK_PART_BYTES] text not tokenized yet */
    size_t held_bytes;
    nd_pack_result *result;
} nd_packer;

/* Counts into `result`. All pointers must outlive the packer. Errors: ND_ENOMEM. */
nd_status nd_packer_open(const nd_pack_options *options, const nd_tokenizer *tokenizer,
                         const nd_pack_staging *staging, nd_pack_result *result, nd_packer *packer);
/* Adds text to the open document. Errors: those of the tokenizer and the shard writer. */
nd_status nd_packer_text(nd_packer *packer, const char *text, size_t bytes);
/* Writes the rest of the document and closes it; the next text opens another. Errors: as above. */
nd_status nd_packer_end_document(nd_packer *packer);
/* Finishes the open shards. */
nd_status nd_packer_finish(nd_packer *packer);
/* Removes shards that are not finished and frees all. */
void nd_packer_close(nd_packer *packer);
