#include "cli/args.h"
#include "cli/cli.h"
#include "cli/number_argument.h"
#include "data/pack.h"

#include <getopt.h>
#include <stdio.h>

enum { DEFAULT_SHARD_TOKENS = 100000000 };

static const char help[] =
    "usage: nanochat_dist pack --tokenizer FILE --out DIR [options] INPUT...\n\n"
    "Tokenizes text and writes it as HDF5 shards, train_00000.h5 and val_00000.h5 and on, with a\n"
    "copy of the tokenizer. INPUT is a file, a directory, or - for standard input. A file is one\n"
    "document. Memory stays constant, whatever the inputs' size.\n\n"
    "  --tokenizer FILE     the model `nanochat_dist tokenizer train` wrote\n"
    "  --out DIR            where the shards go; made when missing\n"
    "  --glob PATTERN       which files of a directory, e.g. '*.rs' (all)\n"
    "  --jsonl-field NAME   inputs are JSON Lines; this field of each line is a document\n"
    "  --shard-tokens N     close a shard at the first document end past N tokens (100M)\n"
    "  --val-fraction F     part of the documents held out, chosen by their content (0.01)\n"
    "  --overwrite          replace the shards that DIR already holds\n"
    "  --quiet              show no progress\n";

static nd_status parse(int argc, char **argv, nd_pack_options *o, bool *helped)
{
    static const struct option flags[] = {{"tokenizer", required_argument, NULL, 't'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"glob", required_argument, NULL, 'g'},
                                          {"jsonl-field", required_argument, NULL, 'j'},
                                          {"shard-tokens", required_argument, NULL, 's'},
                                          {"val-fraction", required_argument, NULL, 'v'},
                                          {"overwrite", no_argument, NULL, 'w'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    *helped = false;
    optind = 0;
    opterr = 0;
    uint64_t given = 0;
    for (int flag, at; (flag = getopt_long(argc, argv, ":", flags, &at)) != -1;) {
        if (flag != ':' && flag != '?' && flags[at].has_arg)
            ND_TRY(nd_args_once(&given, at, flags[at].name));
        switch (flag) {
        case 't':
            o->tokenizer = optarg;
            break;
        case 'o':
            o->out = optarg;
            break;
        case 'g':
            o->glob = optarg;
            break;
        case 'j':
            o->jsonl_field = optarg;
            break;
        case 's':
            ND_TRY(nd_cli_parse_integer("--shard-tokens", optarg, 1, INT64_C(1) << 40,
                                        &o->shard_tokens));
            break;
        case 'v':
            ND_TRY(nd_cli_parse_fraction("--val-fraction", optarg, &o->val_fraction));
            break;
        case 'w':
            o->overwrite = true;
            break;
        case 'q':
            o->progress = false;
            break;
        case 'h':
            fputs(help, stdout);
            *helped = true;
            return ND_OK;
        default:
            return ND_FAIL(ND_ECONFIG, "%s: %s; see `nanochat_dist pack --help`", argv[optind - 1],
                           flag == ':' ? "needs a value" : "no such option");
        }
    }
    o->inputs = (const char *const *)argv + optind;
    o->input_count = argc - optind;
    if (!o->tokenizer || !o->out || o->input_count == 0)
        return ND_FAIL(ND_ECONFIG, "pack: %s missing; see `nanochat_dist pack --help`",
                       !o->tokenizer ? "--tokenizer is"
                       : !o->out     ? "--out is"
                                     : "the input is");
    return ND_OK;
}

nd_status nd_cli_pack(int argc, char **argv)
{
    nd_pack_options options = {
        .shard_tokens = DEFAULT_SHARD_TOKENS, .val_fraction = 0.01, .progress = true};
    nd_pack_result result;
    bool helped;
    ND_TRY(parse(argc, argv, &options, &helped));
    if (helped)
        return ND_OK;
    ND_TRY(nd_pack(&options, &result));
    printf("%s: %lld documents (%lld held out), %lld tokens (%lld held out), %.3f bytes a token, "
           "%d shards\n",
           options.out, (long long)result.documents, (long long)result.val_documents,
           (long long)result.tokens, (long long)result.val_tokens,
           (double)result.bytes / (double)result.tokens, result.shards);
    if (options.val_fraction > 0 && result.val_documents == 0)
        printf("%s: no document was held out; give a larger --val-fraction to evaluate on this "
               "text\n",
               options.out);
    return ND_OK;
}
