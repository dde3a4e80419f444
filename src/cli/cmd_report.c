#include "cli/args.h"
#include "cli/cli.h"
#include "core/base/build_info.h"
#include "core/base/program_files.h"
#include "core/config/config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The report is a Python script (src/train/report/report.py) that replaces this process. */
nd_status nd_cli_report(int argc, char **argv)
{
    static const char *const places[] = {"/../share/nanochat_dist/report/",
                                         "/../../src/train/report/"};
    const char *directory = NULL, *claims = NULL;
    char script[ND_CONFIG_TEXT_MAX], claims_path[ND_CONFIG_TEXT_MAX] = "";
    nd_arg_rest paths;
    const nd_arg args[] = {{"--out", ND_ARG_TEXT, &directory, "DIR",
                            "where REPORT.md, its pictures and their data go"},
                           {"--claims", ND_ARG_TEXT, &claims, "FILE",
                            "claims to set beside what the runs measured: a path, or a name among "
                            "the installed configurations (claims.ini: the E3 suite's)"}};
    const nd_command command = {"nanochat_dist report RUN... --out DIR [--claims FILE]",
                                "Tables and pictures of runs, and claims beside what was measured. "
                                "Needs python3.",
                                args, sizeof args / sizeof *args};
    ND_ARGS_PARSE(command, argc, argv, &paths);
    ND_FAIL_IF(paths.count == 0, ND_ECONFIG, "report needs the directories of runs (see --help)");
    ND_FAIL_IF(!directory || !directory[0], ND_ECONFIG, "report needs --out DIR (see --help)");
    if (claims)
        ND_TRY(nd_config_find(claims, "claims", claims_path, sizeof claims_path));
    ND_TRY(nd_program_file_find(places, sizeof places / sizeof *places, "report.py",
                                "the program's report script", script, sizeof script));
    const char *const first[] = {"python3",          "-B",      "-X",       "utf8", script,
                                 nd_build_version(), directory, claims_path};
    const char *arguments[8 + paths.count + 1];
    memcpy(arguments, first, sizeof first);
    memcpy(arguments + 8, paths.items, (size_t)paths.count * sizeof *paths.items);
    arguments[8 + paths.count] = NULL;
    execvp(arguments[0], (char *const *)arguments);
    return ND_FAIL(errno == ENOENT ? ND_ECONFIG : ND_EIO,
                   "report needs python3, which cannot be started: %s; install it "
                   "(launch/install_deps.sh --report), or copy the runs to a machine that has it",
                   strerror(errno));
}
