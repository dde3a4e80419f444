#include "cli/cli.h"
#include "core/base/build_info.h"
#include "train/libraries.h"

void nd_cli_print_version(FILE *out)
{
    char options[256], libraries[384];
    nd_build_options(options, sizeof options);
    nd_program_libraries(libraries, sizeof libraries);
    fprintf(out, "nanochat_dist %s\ncommit     %s\nbuild      %s\nlibraries  %s\n",
            nd_build_version(), nd_build_commit(), options, libraries);
}
