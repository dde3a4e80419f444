#include "cli/args.h"
#include "cli/cli.h"
#include "cli/number_argument.h"
#include "data/tokenizer.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INPUTS = 256, MAX_VOCAB = 1 << 20, READ_BYTES = 1 << 16, DEFAULT_VOCAB = 32000 };

static const char general_help[] =
    "usage: nanochat_dist tokenizer train|encode|decode [options]\n\n"
    "  train    learn a tokenizer (SentencePiece BPE with byte fallback) from text\n"
    "  encode   text to tokens, one decimal number a token\n"
    "  decode   tokens to text, byte for byte what was encoded\n\n"
    "`nanochat_dist tokenizer train --help` and so on print the options of each.\n";

static const char train_help[] =
    "usage: nanochat_dist tokenizer train --input PATH --output FILE [options]\n\n"
    "  --input PATH      a file or directory; may be given more than once\n"
    "  --output FILE     the model to write\n"
    "  --glob PATTERN    which files of a directory, e.g. '*.rs' (all)\n"
    "  --vocab-size N    number of pieces, 259 of them bytes and marks (32000)\n"
    "  --max-bytes N     use at most this much text, taken evenly from the inputs (32M; 0: all)\n"
    "  --binary          also learn from files that are not text\n"
    "  --threads N       threads for the parts that can use them (2)\n"
    "  --seed N          chooses the parts of the inputs (1)\n";

static const char encode_help[] =
    "usage: nanochat_dist tokenizer encode --model FILE [FILE]\n\n"
    "Prints the tokens of FILE, or of standard input, separated by spaces.\n\n"
    "  --model FILE      the tokenizer\n";

static const char decode_help[] =
    "usage: nanochat_dist tokenizer decode --model FILE [FILE]\n\n"
    "Reads tokens, decimal numbers separated by white space, from FILE or standard input, and\n"
    "writes the text they stand for.\n\n"
    "  --model FILE      the tokenizer\n";

static const struct option flags[] = {{"input", required_argument, NULL, 'i'},
                                      {"output", required_argument, NULL, 'o'},
                                      {"glob", required_argument, NULL, 'g'},
                                      {"vocab-size", required_argument, NULL, 'v'},
                                      {"max-bytes", required_argument, NULL, 'b'},
                                      {"threads", required_argument, NULL, 't'},
                                      {"seed", required_argument, NULL, 's'},
                                      {"binary", no_argument, NULL, 'y'},
                                      {"model", required_argument, NULL, 'm'},
                                      {"help", no_argument, NULL, 'h'},
                                      {0}};

typedef struct arguments {
    nd_tokenizer_train_options train;
    nd_left_out left_out;
    const char *inputs[MAX_INPUTS];
    const char *model, *file;
    bool help;
} arguments;

static nd_status parse_flag(arguments *a, int flag, const char *action, const char *word)
{
    static const char *const allowed[][2] = {
        {"train", "iogvbtsyh"}, {"encode", "mh"}, {"decode", "mh"}};
    int64_t number;
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        if (strcmp(action, allowed[i][0]) == 0 && flag != ':' && !strchr(allowed[i][1], flag))
            flag = '?';
    }
    switch (flag) {
    case 'i':
        if (a->train.input_count == MAX_INPUTS)
            return ND_FAIL(ND_ECONFIG, "--input given more than %d times; give directories",
                           MAX_INPUTS);
        a->inputs[a->train.input_count++] = optarg;
        return ND_OK;
    case 'o':
        a->train.output = optarg;
        return ND_OK;
    case 'g':
        a->train.glob = optarg;
        return ND_OK;
    case 'v':
        ND_TRY(nd_cli_parse_integer("--vocab-size", optarg, 260, MAX_VOCAB, &number));
        a->train.vocab_size = (int)number;
        return ND_OK;
    case 'b':
        return nd_cli_parse_integer("--max-bytes", optarg, 0, INT64_C(1) << 40,
                                    &a->train.max_bytes);
    case 't':
        ND_TRY(nd_cli_parse_integer("--threads", optarg, 1, 1024, &number));
        a->train.threads = (int)number;
        return ND_OK;
    case 's':
        ND_TRY(nd_cli_parse_integer("--seed", optarg, 0, INT64_C(1) << 53, &number));
        a->train.seed = (uint64_t)number;
        return ND_OK;
    case 'y':
        a->train.binary = true;
        return ND_OK;
    case 'm':
        a->model = optarg;
        return ND_OK;
    case 'h':
        a->help = true;
        return ND_OK;
    default:
        return ND_FAIL(ND_ECONFIG, "%s: %s; see `nanochat_dist tokenizer %s --help`", word,
                       flag == ':' ? "needs a value" : "no such option", action);
    }
}

static nd_status parse(int argc, char **argv, const char *action, arguments *a)
{
    optind = 0;
    opterr = 0;
    char word[32];
    uint64_t given = 0;
    for (int flag, at; (flag = getopt_long(argc, argv, ":", flags, &at)) != -1;) {
        if (flag == ':' || flag == '?')
            snprintf(word, sizeof word, "%s", argv[optind - 1]);
        else
            snprintf(word, sizeof word, "--%s", flags[at].name);
        ND_TRY(parse_flag(a, flag, action, word));
        if (flag != 'i' && flag != 'h')
            ND_TRY(nd_args_once(&given, at, flags[at].name));
    }
    const bool takes_file = strcmp(action, "train") != 0;
    if (argc - optind > (takes_file ? 1 : 0))
        return ND_FAIL(ND_ECONFIG,
                       "'%s' is one argument too many; see `nanochat_dist tokenizer %s "
                       "--help`",
                       argv[optind + takes_file], action);
    a->file = argc > optind ? argv[optind] : "-";
    return ND_OK;
}

static nd_status run_train(arguments *a)
{
    if (a->train.input_count == 0 || !a->train.output)
        return ND_FAIL(ND_ECONFIG, "%s is missing; see `nanochat_dist tokenizer train --help`",
                       a->train.output ? "--input" : "--output");
    a->train.inputs = a->inputs;
    const nd_status status = nd_tokenizer_train(&a->train, &a->left_out);
    nd_left_out_print(&a->left_out, "", status == ND_OK ? stdout : stderr);
    ND_TRY(status);
    nd_tokenizer *tokenizer;
    ND_TRY(nd_tokenizer_open(a->train.output, &tokenizer));
    printf("%s: %d pieces, SHA-256 %s\n", a->train.output, nd_tokenizer_vocab_size(tokenizer),
           nd_tokenizer_sha256(tokenizer));
    nd_tokenizer_close(tokenizer);
    return ND_OK;
}

static nd_status open_input(const char *path, FILE **file)
{
    *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    return *file ? ND_OK
                 : ND_FAIL(ND_EDATA, "%s: cannot open this file: %s", path, strerror(errno));
}

static nd_status print_tokens(const nd_tokenizer *tokenizer, const char *text, size_t bytes)
{
    int32_t *ids;
    size_t count;
    ND_TRY(nd_tokenizer_encode(tokenizer, text, bytes, &ids, &count));
    for (size_t i = 0; i < count; i++)
        printf("%d%c", ids[i], i % 32 == 31 ? '\n' : ' ');
    free(ids);
    return nd_cli_flush_output();
}

/* A piece of the text at a time, cut where that changes no token. */
static nd_status encode_stream(const nd_tokenizer *tokenizer, FILE *file, const char *name)
{
    size_t capacity = 16 * (size_t)READ_BYTES, held = 0, got;
    char *text = malloc(capacity);
    if (!text)
        return ND_FAIL(ND_ENOMEM, "%s: no memory to read it", name);
    nd_status status = ND_OK;
    while (status == ND_OK && (got = fread(text + held, 1, capacity - held, file)) > 0) {
        held += got;
        if (held < capacity)
            continue;
        const size_t cut = nd_tokenizer_safe_cut(tokenizer, text, held);
        if (cut == 0) {
            char *larger = realloc(text, capacity *= 2);
            if (larger)
                text = larger;
            else
                status = ND_FAIL(ND_ENOMEM, "%s: no memory for %zu bytes of text", name, capacity);
            continue;
        }
        status = print_tokens(tokenizer, text, cut);
        memmove(text, text + cut, held - cut);
        held -= cut;
    }
    if (status == ND_OK && ferror(file))
        status = ND_FAIL(ND_EDATA, "%s: cannot read this file: %s", name, strerror(errno));
    if (status == ND_OK)
        status = print_tokens(tokenizer, text, held);
    free(text);
    putchar('\n');
    return status;
}

static nd_status decode_stream(const nd_tokenizer *tokenizer, FILE *file, const char *name)
{
    long long position = 0;
    char word[32];
    int got;
    while ((got = fscanf(file, "%31s", word)) == 1) {
        char *end, *text;
        size_t bytes;
        const long number = strtol(word, &end, 10);
        if (*end != '\0' || number < 0 || number >= nd_tokenizer_vocab_size(tokenizer))
            return ND_FAIL(ND_EDATA, "%s: token %lld is '%s'; expected a number from 0 to %d", name,
                           position, word, nd_tokenizer_vocab_size(tokenizer) - 1);
        const int32_t id = (int32_t)number;
        ND_TRY(nd_tokenizer_decode(tokenizer, &id, 1, &text, &bytes));
        const bool written = fwrite(text, 1, bytes, stdout) == bytes;
        free(text);
        if (!written)
            return nd_cli_flush_output();
        position++;
    }
    if (ferror(file))
        return ND_FAIL(ND_EDATA, "%s: cannot read this file: %s", name, strerror(errno));
    return ND_OK;
}

static nd_status run_coder(const arguments *a,
                           nd_status (*code)(const nd_tokenizer *, FILE *, const char *))
{
    FILE *file;
    nd_tokenizer *tokenizer;
    if (!a->model)
        return ND_FAIL(ND_ECONFIG, "--model is missing; see `nanochat_dist tokenizer --help`");
    ND_TRY(nd_tokenizer_open(a->model, &tokenizer));
    nd_status status = open_input(a->file, &file);
    if (status == ND_OK) {
        status = code(tokenizer, file, file == stdin ? "(standard input)" : a->file);
        if (file != stdin)
            fclose(file);
    }
    nd_tokenizer_close(tokenizer);
    return status;
}

nd_status nd_cli_tokenizer(int argc, char **argv)
{
    const char *action = argc > 1 ? argv[1] : "";
    const char *help = strcmp(action, "train") == 0    ? train_help
                       : strcmp(action, "encode") == 0 ? encode_help
                       : strcmp(action, "decode") == 0 ? decode_help
                                                       : NULL;
    if (!help && strcmp(action, "--help") == 0) {
        fputs(general_help, stdout);
        return ND_OK;
    }
    if (!help)
        return ND_FAIL(ND_ECONFIG, "tokenizer: '%s' is no action; expected train, encode or decode",
                       action);
    static arguments a;
    a = (arguments){
        .train = {.vocab_size = DEFAULT_VOCAB, .max_bytes = 32000000, .threads = 2, .seed = 1}};
    ND_TRY(parse(argc - 1, argv + 1, action, &a));
    if (a.help) {
        fputs(help, stdout);
        return ND_OK;
    }
    if (help == train_help)
        return run_train(&a);
    return run_coder(&a, help == encode_help ? encode_stream : decode_stream);
}
