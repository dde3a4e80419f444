#include "cli/args.h"
#include "cli/cli.h"
#include "cli/number_argument.h"
#include "data/pack.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>

enum { DEFAULT_SHARD_TOKENS = 100000000, LONG_WINDOW = 4096 };

static const char help[] =
    "usage: nanochat_dist pack --tokenizer FILE --out DIR [options] INPUT...\n"
    "       nanochat_dist pack --index DIR\n\n"
    "Tokenizes text into HDF5 shards (train_00000.h5, val_00000.h5, ...), beside a copy of the\n"
    "tokenizer and an index of the shards, index.json. They appear in DIR when all are complete.\n"
    "INPUT is a file, a directory, or - for standard input; gzip and zstd are\n"
    "decompressed. A file is one document. Memory stays constant, whatever the inputs' size.\n"
    "Symbolic links are followed and each file is read once; hidden directories and files that "
    "are\n"
    "not text are left out, and counted at the end.\n\n"
    "  --tokenizer FILE     the model `nanochat_dist tokenizer train` wrote\n"
    "  --out DIR            where the shards go; created when missing\n"
    "  --glob PATTERN       which files of a directory, e.g. '*.rs' (all)\n"
    "  --jsonl-field NAME   inputs are JSON Lines; this field of each line is a document\n"
    "  --skip-bad           count bad lines of JSON Lines instead of stopping at the first\n"
    "  --binary             also pack files that are not text, byte for byte\n"
    "  --shard-tokens N     close a shard at the first document end past N tokens (100M)\n"
    "  --val-fraction F     fraction of documents held out, chosen by their content (0.01)\n"
    "  --overwrite          replace the shards that DIR already holds\n"
    "  --index DIR          check the shards in DIR and write their index: for shards of an older\n"
    "                       version or of another program, or after adding some\n"
    "  --quiet              show no progress\n";

typedef struct arguments {
    nd_pack_options pack;
    const char *index; /* NULL: pack */
    bool help;
} arguments;

static const struct option flags[] = {{"tokenizer", required_argument, NULL, 't'},
                                      {"out", required_argument, NULL, 'o'},
                                      {"glob", required_argument, NULL, 'g'},
                                      {"jsonl-field", required_argument, NULL, 'j'},
                                      {"shard-tokens", required_argument, NULL, 's'},
                                      {"val-fraction", required_argument, NULL, 'v'},
                                      {"skip-bad", no_argument, NULL, 'b'},
                                      {"binary", no_argument, NULL, 'y'},
                                      {"index", required_argument, NULL, 'i'},
                                      {"overwrite", no_argument, NULL, 'w'},
                                      {"quiet", no_argument, NULL, 'q'},
                                      {"help", no_argument, NULL, 'h'},
                                      {0}};

static nd_status take_flag(arguments *a, int flag, const char *word)
{
    nd_pack_options *o = &a->pack;
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
        ND_TRY(
            nd_cli_parse_integer("--shard-tokens", optarg, 1, INT64_C(1) << 40, &o->shard_tokens));
        break;
    case 'v':
        ND_TRY(nd_cli_parse_fraction("--val-fraction", optarg, &o->val_fraction));
        break;
    case 'b':
        o->skip_bad = true;
        break;
    case 'y':
        o->binary = true;
        break;
    case 'i':
        a->index = optarg;
        break;
    case 'w':
        o->overwrite = true;
        break;
    case 'q':
        o->progress = false;
        break;
    case 'h':
        a->help = true;
        break;
    default:
        return ND_FAIL(ND_ECONFIG, "%s: %s; see `nanochat_dist pack --help`", word,
                       flag == ':' ? "needs a value" : "no such option");
    }
    return ND_OK;
}

static nd_status parse(int argc, char **argv, arguments *a)
{
    nd_pack_options *o = &a->pack;
    optind = 0;
    opterr = 0;
    uint64_t given = 0;
    for (int flag, at; !a->help && (flag = getopt_long(argc, argv, ":", flags, &at)) != -1;) {
        if (flag != ':' && flag != '?' && flags[at].has_arg)
            ND_TRY(nd_args_once(&given, at, flags[at].name));
        ND_TRY(take_flag(a, flag, argv[optind - 1]));
    }
    o->inputs = (const char *const *)argv + optind;
    o->input_count = argc - optind;
    if (!a->help && a->index && (o->tokenizer || o->out || o->input_count > 0))
        return ND_FAIL(ND_ECONFIG, "--index DIR goes without --tokenizer, --out and inputs; see "
                                   "`nanochat_dist pack --help`");
    if (!a->help && !a->index && (!o->tokenizer || !o->out || o->input_count == 0))
        return ND_FAIL(ND_ECONFIG, "pack: %s missing; see `nanochat_dist pack --help`",
                       !o->tokenizer ? "--tokenizer is"
                       : !o->out     ? "--out is"
                                     : "the input is");
    return ND_OK;
}

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

nd_status nd_cli_pack(int argc, char **argv)
{
    arguments a = {
        .pack = {.shard_tokens = DEFAULT_SHARD_TOKENS, .val_fraction = 0.01, .progress = true}};
    static nd_pack_result result;
    ND_TRY(parse(argc, argv, &a));
    if (a.help) {
        fputs(help, stdout);
        return ND_OK;
    }
    if (a.index)
        return make_index(a.index);
    const nd_status status = nd_pack(&a.pack, &result);
    char prefix[PATH_MAX];
    snprintf(prefix, sizeof prefix, "%.1000s: ", a.pack.out);
    if (status == ND_OK)
        print(&a.pack, &result);
    nd_left_out_print(&result.left_out, prefix, status == ND_OK ? stdout : stderr);
    return status;
}
