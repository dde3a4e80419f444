#include "data/pack/packer.h"

#include "core/base/rng.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const split_names[ND_SPLIT_COUNT] = {"train", "val"};

nd_status nd_packer_open(const nd_pack_options *options, const nd_tokenizer *tokenizer,
                         const nd_pack_staging *staging, nd_pack_result *result, nd_packer *packer)
{
    *packer = (nd_packer){
        .options = options, .tokenizer = tokenizer, .staging = staging, .result = result};
    packer->held = malloc(2 * (size_t)ND_PACK_PART_BYTES);
    return ND_CHECK(packer->held, ND_ENOMEM, "no memory to pack with");
}

/* FNV-1a and the finaliser of splitmix64, scaled to [0, 1). */
static double split_hash(const char *text, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (double)(nd_rng_mix(hash) >> 11) * 0x1p-53;
}

static nd_status shard_path(const nd_packer *p, nd_split split, char path[PATH_MAX])
{
    const int length = snprintf(path, PATH_MAX, "%s/%s_%05d.h5", p->staging->path,
                                split_names[split], p->next_shard[split]);
    return ND_CHECK(length < PATH_MAX, ND_EIO, "%s: this path is too long", p->staging->path);
}

/* Finishes the open shard of a split and adds it to the index. */
static nd_status finish_shard(nd_packer *p, nd_split split)
{
    char path[PATH_MAX];
    nd_shard_writer *writer = p->writers[split];
    ND_TRY(nd_pack_staging_confirm(p->staging));
    const int64_t tokens = nd_shard_writer_tokens(writer);
    p->writers[split] = NULL;
    ND_TRY(nd_shard_writer_finish(writer));
    ND_TRY(shard_path(p, split, path));
    ND_TRY(nd_shard_index_add(&p->index, path));
    p->next_shard[split]++;
    p->result->shards++;
    if (split == ND_SPLIT_VAL && tokens > p->result->longest_val)
        p->result->longest_val = tokens;
    return ND_OK;
}

static nd_status document_writer(nd_packer *p, nd_shard_writer **writer)
{
    if (!p->split_known) {
        const size_t bytes =
            p->held_bytes < ND_PACK_PART_BYTES ? p->held_bytes : ND_PACK_PART_BYTES;
        p->split =
            split_hash(p->held, bytes) < p->options->val_fraction ? ND_SPLIT_VAL : ND_SPLIT_TRAIN;
        p->split_known = true;
    }
    if (!p->writers[p->split]) {
        char path[PATH_MAX];
        ND_TRY(nd_pack_staging_confirm(p->staging));
        ND_TRY(shard_path(p, p->split, path));
        ND_TRY(nd_shard_writer_open(path, nd_tokenizer_vocab_size(p->tokenizer),
                                    nd_tokenizer_sha256(p->tokenizer), split_names[p->split],
                                    &p->writers[p->split]));
    }
    *writer = p->writers[p->split];
    return ND_OK;
}

static void count_tokens(nd_packer *p, size_t count)
{
    p->result->tokens += (int64_t)count;
    if (p->split == ND_SPLIT_VAL)
        p->result->val_tokens += (int64_t)count;
}

/* Tokenizes and writes the first `bytes` of the held text. */
static nd_status tokenize(nd_packer *p, size_t bytes)
{
    nd_shard_writer *writer;
    ND_AUTOFREE int32_t *ids = NULL;
    size_t count;
    ND_TRY(document_writer(p, &writer));
    ND_TRY(nd_tokenizer_encode(p->tokenizer, p->held, bytes, &ids, &count));
    ND_TRY(nd_shard_writer_add(writer, ids, count));
    count_tokens(p, count);
    p->document_bytes += (int64_t)bytes;
    p->held_bytes -= bytes;
    memmove(p->held, p->held + bytes, p->held_bytes);
    return ND_OK;
}

/* The cut for text without a safe place: before its last character. */
static size_t forced_cut(const char *text, size_t bytes)
{
    size_t cut = bytes - 1;
    while (cut > bytes - 4 && ((unsigned char)text[cut] & 0xc0) == 0x80)
        cut--;
    return cut;
}

nd_status nd_packer_text(nd_packer *packer, const char *text, size_t bytes)
{
    const size_t capacity = 2 * (size_t)ND_PACK_PART_BYTES;
    while (bytes > 0) {
        const size_t free_bytes = capacity - packer->held_bytes;
        const size_t part = bytes < free_bytes ? bytes : free_bytes;
        memcpy(packer->held + packer->held_bytes, text, part);
        packer->held_bytes += part;
        text += part;
        bytes -= part;
        if (packer->held_bytes == capacity) {
            const size_t safe = nd_tokenizer_safe_cut(packer->tokenizer, packer->held, capacity);
            ND_TRY(tokenize(packer, safe > 0 ? safe : forced_cut(packer->held, capacity)));
        }
    }
    return ND_OK;
}

nd_status nd_packer_end_document(nd_packer *packer)
{
    if (packer->held_bytes == 0 && packer->document_bytes == 0)
        return ND_OK;
    const int32_t eos = nd_tokenizer_eos(packer->tokenizer);
    nd_shard_writer *writer;
    if (packer->held_bytes > 0)
        ND_TRY(tokenize(packer, packer->held_bytes));
    ND_TRY(document_writer(packer, &writer));
    ND_TRY(nd_shard_writer_add(writer, &eos, 1));
    ND_TRY(nd_shard_writer_end_document(writer, packer->document_bytes));
    count_tokens(packer, 1);
    packer->result->documents++;
    packer->result->val_documents += packer->split == ND_SPLIT_VAL;
    packer->result->bytes += packer->document_bytes;
    packer->document_bytes = 0;
    packer->split_known = false;
    return nd_shard_writer_tokens(writer) >= packer->options->shard_tokens
               ? finish_shard(packer, packer->split)
               : ND_OK;
}

nd_status nd_packer_finish(nd_packer *packer)
{
    for (int split = 0; split < ND_SPLIT_COUNT; split++)
        if (packer->writers[split])
            ND_TRY(finish_shard(packer, (nd_split)split));
    return ND_OK;
}

void nd_packer_close(nd_packer *packer)
{
    for (int split = 0; split < ND_SPLIT_COUNT; split++)
        nd_shard_writer_discard(packer->writers[split]);
    nd_shard_index_free(&packer->index);
    free(packer->held);
    *packer = (nd_packer){0};
}
