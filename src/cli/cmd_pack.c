#include "cli/args.h"
#include "cli/cli.h"
#include "data/pack/pack.h"

#include <limits.h>
#include <stdio.h>

enum { DEFAULT_SHARD_TOKENS = 100000000, LONG_WINDOW = 4096 };

static void print(const nd_pack_options *o, const nd_pack_result *r)
{
    printf("%s: %lld documents (%lld held out), %lld tokens (%lld held out), %.3f bytes a token, "
           "%d shards\n",
           o->out, (long long)r->documents, (long long)r->val_documents, (long long)r->tokens,
           (long long)r->val_tokens, (double)r->bytes / (double)r->tokens, r->shards);
    if (o->val_fraction > 0 && r->val_documents == 0)
        printf("%s: no document was held out; give a larger --val-fraction to evaluate on this "
               "text\n",
               o->out);
    else if (r->val_documents > 0 && r->longest_val <= LONG_WINDOW)
        printf("%s: the largest held-out shard has %lld tokens; with a seq_length of %lld or more "
               "nothing is evaluated, so give a larger --val-fraction for that\n",
               o->out, (long long)r->longest_val, (long long)r->longest_val);
}

static nd_status make_index(const char *directory)
{
    size_t shards;
    ND_TRY(nd_pack_index(directory, &shards));
    printf("%s: every checksum of %zu shard%s is good; index.json lists them\n", directory, shards,
           shards == 1 ? "" : "s");
    return ND_OK;
}

static nd_status pack(const nd_pack_options *o)
{
    static nd_pack_result result;
    const nd_status status = nd_pack(o, &result);
    char prefix[PATH_MAX];
    snprintf(prefix, sizeof prefix, "%.1000s: ", o->out);
    if (status == ND_OK)
        print(o, &result);
    nd_left_out_print(&result.left_out, prefix, status == ND_OK ? stdout : stderr);
    return status;
}

nd_status nd_cli_pack(int argc, char **argv)
{
    nd_pack_options o = {.shard_tokens = DEFAULT_SHARD_TOKENS, .val_fraction = 0.01};
    const char *index = NULL;
    bool quiet = false;
    nd_arg_rest inputs;
    const nd_arg args[] = {
        {"--tokenizer", ND_ARG_TEXT, &o.tokenizer, "FILE",
         "what `nanochat_dist tokenizer train` wrote"},
        {"--out", ND_ARG_TEXT, &o.out, "DIR", "where the shards go; created when missing"},
        {"--glob", ND_ARG_TEXT, &o.glob, "PATTERN",
         "which files of a directory, e.g. '*.rs' (all)"},
        {"--jsonl-field", ND_ARG_TEXT, &o.jsonl_field, "NAME",
         "inputs are JSON Lines; this field of each line is a document"},
        {"--skip-bad", ND_ARG_FLAG, &o.skip_bad, NULL,
         "count bad lines of JSON Lines instead of stopping at the first"},
        {"--binary", ND_ARG_FLAG, &o.binary, NULL,
         "also pack files that are not text, byte for byte"},
        {"--shard-tokens", ND_ARG_INT, &o.shard_tokens, "N",
         "close a shard at the first document end past N tokens (100M)"},
        {"--val-fraction", ND_ARG_DOUBLE, &o.val_fraction, "F",
         "fraction of documents held out, chosen by their content (0.01)"},
        {"--overwrite", ND_ARG_FLAG, &o.overwrite, NULL,
         "replace the shards that DIR already holds"},
        {"--index", ND_ARG_TEXT, &index, "DIR",
         "check the shards in DIR and write their index: for shards of an older version or of "
         "another program, or after adding some"},
        {"--quiet", ND_ARG_FLAG, &quiet, NULL, "show no progress"},
    };
    const nd_command command = {
        "nanochat_dist pack --tokenizer FILE --out DIR [options] INPUT...\n"
        "       nanochat_dist pack --index DIR",
        "Tokenizes text into HDF5 shards (train_00000.h5, val_00000.h5, ...), beside a copy of "
        "the\n"
        "tokenizer and an index of the shards, index.json. They appear in DIR when all are "
        "complete.\n"
        "INPUT is a file, a directory, or - for standard input; gzip and zstd are decompressed. A\n"
        "file is one document. Memory stays constant, whatever the inputs' size. Symbolic links "
        "are\n"
        "followed and each file is read once; hidden directories and files that are not text are\n"
        "left out, and counted at the end.",
        args, sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, &inputs);
    o.progress = !quiet;
    o.inputs = (const char *const *)inputs.items;
    o.input_count = inputs.count;
    ND_FAIL_IF(
        index && (o.tokenizer || o.out || inputs.count > 0), ND_ECONFIG,
        "--index DIR goes without --tokenizer, --out and inputs; see `nanochat_dist pack --help`");
    ND_FAIL_IF(!index && (!o.tokenizer || !o.out || inputs.count == 0), ND_ECONFIG,
               "pack: %s missing; see `nanochat_dist pack --help`",
               !o.tokenizer ? "--tokenizer is"
               : !o.out     ? "--out is"
                            : "the input is");
    return index ? make_index(index) : pack(&o);
}
