#include "cli/cli.h"
#include "core/base/build_info.h"
#include "train/run/libraries.h"

#include <string.h>

bool nd_cli_is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

bool nd_cli_is_version(const char *word)
{
    return strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0;
}

void nd_cli_print_version(FILE *out)
{
    char options[256], libraries[384];
    nd_build_options(options, sizeof options);
    nd_program_libraries(libraries, sizeof libraries);
    fprintf(out, "nanochat_dist %s\ncommit     %s\nbuild      %s\nlibraries  %s\n",
            nd_build_version(), nd_build_commit(), options, libraries);
}
