#include "cli/args.h"
#include "cli/cli.h"
#include "core/base/close.h"
#include "core/base/directory.h"
#include "data/data_directory.h"
#include "data/shards/shard_info.h"
#include "exchange/gguf_read.h"
#include "exchange/safetensors_read.h"
#include "train/checkpoint/checkpoint.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool directory_has(const char *directory, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", directory, name) < PATH_MAX &&
           access(path, F_OK) == 0;
}

/* A model for transformers, in one file or in several; *found: there is one. */
static nd_status print_safetensors(const char *directory, bool verify, bool *found)
{
    static const char suffix[] = ".safetensors";
    char path[PATH_MAX];
    ND_CLEANUP(nd_names_free) nd_names names = {0};
    ND_TRY(nd_directory_names(directory, &names));
    *found = false;
    for (int i = 0; i < names.count; i++) {
        const size_t length = strlen(names.list[i]);
        if (length < strlen(suffix) || strcmp(names.list[i] + length - strlen(suffix), suffix) != 0)
            continue;
        *found = true;
        ND_FAIL_IF(snprintf(path, sizeof path, "%s/%s", directory, names.list[i]) >= PATH_MAX,
                   ND_EDATA, "%.80s...: the path is too long", directory);
        ND_TRY(nd_safetensors_print(path, verify, stdout));
    }
    return ND_OK;
}

static nd_status print_directory(const char *path, bool verify)
{
    char directory[ND_CHECKPOINT_PATH_MAX];
    bool exported;
    nd_log warnings = {.terminal = stderr};
    const nd_status found = nd_checkpoint_resolve(path, &warnings, directory);
    if (found == ND_OK) {
        const nd_status status = nd_checkpoint_print(directory, verify, stdout);
        return status != ND_OK && nd_checkpoint_gone(directory) ? nd_checkpoint_fail_gone(directory)
                                                                : status;
    }
    const nd_error error = *nd_error_get();
    nd_error_clear();
    ND_TRY(print_safetensors(path, verify, &exported));
    if (exported)
        return ND_OK;
    nd_error_set(&error);
    if (directory_has(path, "config.ini") || directory_has(path, "checkpoints") ||
        directory_has(path, "manifest.json"))
        return found; /* a run or a checkpoint that cannot be read */
    nd_error_clear();
    return nd_data_directory_print(path, verify, stdout);
}

/* Recognises the format by the suffix, then by the first bytes; the default is a shard. */
static nd_status print_file(const char *path, bool verify)
{
    char first[9] = "";
    const char *suffix = strrchr(path, '.');
    ND_CLEANUP(nd_close_file) FILE *file = fopen(path, "rbe");
    if (file && fread(first, 1, 9, file) != 9)
        first[8] = '\0';
    if ((suffix && strcmp(suffix, ".gguf") == 0) || memcmp(first, "GGUF", 4) == 0)
        return nd_gguf_print(path, verify, stdout);
    if ((suffix && strcmp(suffix, ".safetensors") == 0) || first[8] == '{')
        return nd_safetensors_print(path, verify, stdout);
    return nd_shard_info_print(path, verify, stdout);
}

nd_status nd_cli_info(int argc, char **argv)
{
    bool verify = false;
    nd_arg_rest paths;
    const nd_arg args[] = {
        {"--verify", ND_ARG_FLAG, &verify, NULL, "read everything and check every checksum"}};
    const nd_command command = {
        "nanochat_dist info FILE|DIR... [--verify]",
        "Describes a data set, a shard, a checkpoint, a GGUF file or safetensors.", args, 1};
    ND_ARGS_PARSE(command, argc, argv, &paths);
    ND_FAIL_IF(paths.count == 0, ND_ECONFIG, "info needs a file or a directory (see --help)");
    for (int i = 0; i < paths.count; i++) {
        struct stat info;
        ND_FAIL_IF(stat(paths.items[i], &info) != 0, ND_EDATA, "%s: %s", paths.items[i],
                   strerror(errno));
        ND_FAIL_IF(!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode), ND_EDATA,
                   "%s: neither a regular file nor a directory", paths.items[i]);
        if (S_ISDIR(info.st_mode))
            ND_TRY(print_directory(paths.items[i], verify));
        else
            ND_TRY(print_file(paths.items[i], verify));
    }
    return ND_OK;
}
