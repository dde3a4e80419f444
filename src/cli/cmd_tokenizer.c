#include "cli/args.h"
#include "cli/cli.h"
#include "data/tokenizer/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VOCAB = 1 << 20, READ_BYTES = 1 << 16, DEFAULT_VOCAB = 32000 };

static nd_status train(const nd_tokenizer_train_options *options)
{
    static nd_left_out left_out;
    nd_tokenizer *tokenizer;
    const nd_status status = nd_tokenizer_train(options, &left_out);
    nd_left_out_print(&left_out, "", status == ND_OK ? stdout : stderr);
    ND_TRY(status);
    ND_TRY(nd_tokenizer_open(options->output, &tokenizer));
    printf("%s: %d pieces, SHA-256 %s\n", options->output, nd_tokenizer_vocab_size(tokenizer),
           nd_tokenizer_sha256(tokenizer));
    nd_tokenizer_close(tokenizer);
    return ND_OK;
}

static nd_status run_train(int argc, char **argv)
{
    nd_tokenizer_train_options o = {.max_bytes = 32000000};
    nd_arg_list inputs = {.count = 0};
    int64_t vocab_size = DEFAULT_VOCAB, threads = 2, seed = 1;
    const nd_arg args[] = {
        {"--input", ND_ARG_APPEND, &inputs, "PATH",
         "a file or directory; may be given more than once"},
        {"--output", ND_ARG_TEXT, &o.output, "FILE", "the model to write"},
        {"--glob", ND_ARG_TEXT, &o.glob, "PATTERN",
         "which files of a directory, e.g. '*.rs' (all)"},
        {"--jsonl-field", ND_ARG_TEXT, &o.jsonl_field, "NAME",
         "inputs are JSON Lines; learn from this field of each line"},
        {"--skip-bad", ND_ARG_FLAG, &o.skip_bad, NULL,
         "count bad lines of JSON Lines instead of stopping at the first"},
        {"--vocab-size", ND_ARG_INT, &vocab_size, "N",
         "number of pieces, 259 of them bytes and marks (32000)"},
        {"--max-bytes", ND_ARG_INT, &o.max_bytes, "N",
         "use at most this much text, taken evenly from the inputs (32M; 0: all)"},
        {"--binary", ND_ARG_FLAG, &o.binary, NULL, "also learn from files that are not text"},
        {"--threads", ND_ARG_INT, &threads, "N", "threads for the parts that can use them (2)"},
        {"--seed", ND_ARG_INT, &seed, "N", "chooses the parts of the inputs (1)"},
    };
    const nd_command command = {
        "nanochat_dist tokenizer train --input PATH --output FILE [options]",
        "Learns a tokenizer (SentencePiece BPE with byte fallback) from text.", args,
        sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_TRY(nd_args_check_range("--vocab-size", vocab_size, 260, MAX_VOCAB));
    ND_TRY(nd_args_check_range("--threads", threads, 1, 1024));
    ND_FAIL_IF(inputs.count == 0 || !o.output, ND_ECONFIG,
               "%s is missing; see `nanochat_dist tokenizer train --help`",
               o.output ? "--input" : "--output");
    o.inputs = inputs.items;
    o.input_count = inputs.count;
    o.vocab_size = (int)vocab_size;
    o.threads = (int)threads;
    o.seed = (uint64_t)seed;
    return train(&o);
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

/* Encodes in parts, cut where that does not change the tokens. */
static nd_status encode_stream(const nd_tokenizer *tokenizer, FILE *file, const char *name)
{
    size_t capacity = 16 * (size_t)READ_BYTES, held = 0, got;
    char *text = malloc(capacity);
    ND_FAIL_IF(!text, ND_ENOMEM, "%s: no memory to read it", name);
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
    ND_IF_OK(print_tokens(tokenizer, text, held));
    free(text);
    putchar('\n');
    return status;
}

static nd_status decode_stream(const nd_tokenizer *tokenizer, FILE *file, const char *name)
{
    long long position = 0, read = 0;
    char word[32];
    int before = 0, after = 0; /* bytes of this call before and after the word */
    while (fscanf(file, " %n%31s%n", &before, word, &after) == 1) {
        ND_FAIL_IF(strlen(word) != (size_t)(after - before), ND_EDATA,
                   "%s: byte %lld is NUL; expected numbers in text", name,
                   read + before + (long long)strlen(word));
        read += after;
        ND_AUTOFREE char *text = NULL;
        char *end;
        size_t bytes;
        const long number = strtol(word, &end, 10);
        ND_FAIL_IF(*end != '\0' || number < 0 || number >= nd_tokenizer_vocab_size(tokenizer),
                   ND_EDATA, "%s: token %lld is '%s'; expected a number from 0 to %d", name,
                   position, word, nd_tokenizer_vocab_size(tokenizer) - 1);
        const int32_t id = (int32_t)number;
        ND_TRY(nd_tokenizer_decode(tokenizer, &id, 1, &text, &bytes));
        if (fwrite(text, 1, bytes, stdout) != bytes)
            return nd_cli_flush_output();
        position++;
    }
    return ND_CHECK(!ferror(file), ND_EDATA, "%s: cannot read this file: %s", name,
                    strerror(errno));
}

static nd_status convert_file(const char *model, const char *path,
                              nd_status (*code)(const nd_tokenizer *, FILE *, const char *))
{
    nd_tokenizer *tokenizer;
    ND_TRY(nd_tokenizer_open(model, &tokenizer));
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    nd_status status =
        ND_CHECK(file, ND_EDATA, "%s: cannot open this file: %s", path, strerror(errno));
    if (status == ND_OK) {
        status = code(tokenizer, file, file == stdin ? "(standard input)" : path);
        if (file != stdin)
            fclose(file);
    }
    nd_tokenizer_close(tokenizer);
    return status;
}

static nd_status run_conversion(int argc, char **argv)
{
    const bool encode = strcmp(argv[0], "encode") == 0;
    const char *model = NULL;
    nd_arg_rest files;
    const nd_arg args[] = {{"--model", ND_ARG_TEXT, &model, "FILE", "the tokenizer"}};
    const nd_command commands[] = {
        {"nanochat_dist tokenizer decode --model FILE [FILE]",
         "Reads tokens, decimal numbers separated by white space, from FILE or standard input,\n"
         "and writes the text they stand for.",
         args, 1},
        {"nanochat_dist tokenizer encode --model FILE [FILE]",
         "Prints the tokens of FILE, or of standard input, separated by spaces.", args, 1}};
    ND_ARGS_PARSE(commands[encode], argc, argv, &files);
    ND_FAIL_IF(!model, ND_ECONFIG, "--model is missing; see `nanochat_dist tokenizer %s --help`",
               argv[0]);
    ND_FAIL_IF(files.count > 1, ND_ECONFIG, "'%s' is one argument too many (see --help)",
               files.items[1]);
    return convert_file(model, files.count > 0 ? files.items[0] : "-",
                        encode ? encode_stream : decode_stream);
}

nd_status nd_cli_tokenizer(int argc, char **argv)
{
    const char *action = argc > 1 ? argv[1] : "";
    if (strcmp(action, "train") == 0)
        return run_train(argc - 1, argv + 1);
    if (strcmp(action, "encode") == 0 || strcmp(action, "decode") == 0)
        return run_conversion(argc - 1, argv + 1);
    if (nd_cli_is_version(action)) {
        nd_cli_print_version(stdout);
        return ND_OK;
    }
    ND_FAIL_IF(!nd_cli_is_help(action), ND_ECONFIG,
               "tokenizer: '%s' is not an action; expected train, encode or decode", action);
    fputs("usage: nanochat_dist tokenizer train|encode|decode [options]\n\n"
          "  train    learn a tokenizer (SentencePiece BPE with byte fallback) from text\n"
          "  encode   text to tokens, one decimal number a token\n"
          "  decode   tokens to text, byte for byte what was encoded\n\n"
          "`nanochat_dist tokenizer train --help` and so on print the options of each.\n",
          stdout);
    return ND_OK;
}
