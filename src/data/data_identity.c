#include "data/data_identity.h"

#include "data/shards/shard.h"

#include <inttypes.h>
#include <string.h>

static void write_shard(const nd_shard *s, const char *prefix, FILE *out)
{
    const char *slash = strrchr(s->path, '/');
    fprintf(out, "%sshard ", prefix);
    for (const char *at = slash ? slash + 1 : s->path; *at; at++)
        fprintf(out, *at > ' ' && *at < 127 ? "%c" : "%%%02x", (unsigned char)*at);
    fprintf(out,
            " = %" PRId64 " tokens in %" PRId64 " documents, %" PRId64
            " bytes of text, SHA-256 %s\n",
            s->n_tokens, s->n_documents, s->n_bytes, s->sha256);
}

static void write_shards(const nd_dataset *d, const char *prefix, FILE *out)
{
    const nd_shard *shard;
    for (int i = 0; (shard = nd_dataset_shard(d, i)) != NULL; i++)
        write_shard(shard, prefix, out);
}

void nd_data_identity_write(const nd_dataset *train, const nd_dataset *val, uint64_t order_seed,
                            FILE *out)
{
    const char *tokenizer = nd_dataset_tokenizer_sha256(train);
    fprintf(out, "seq_length = %" PRId64 "\nseed of the order = %" PRIu64 "\n",
            nd_dataset_seq_length(train), order_seed);
    if (!tokenizer[0]) {
        fprintf(out, "synthetic = %" PRId64 " sequences\n", nd_dataset_window_count(train));
        return;
    }
    fprintf(out, "tokenizer = %s\n", tokenizer);
    write_shards(train, "", out);
    if (val)
        write_shards(val, ND_DATA_HELD_OUT, out);
}
