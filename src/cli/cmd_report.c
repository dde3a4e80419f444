#include "cli/args.h"
#include "cli/cli.h"
#include "train/report/report.h"

nd_status nd_cli_report(int argc, char **argv)
{
    const char *directory = NULL;
    bool helped;
    nd_arg_list paths = {.count = 0};
    const nd_arg args[] = {{"--out", ND_ARG_TEXT, &directory, "DIR",
                            "where REPORT.md, its pictures and their data go"}};
    const nd_command command = {
        "nanochat_dist report RUN... --out DIR",
        "Compares runs in tables and pictures; checks the claims of the E3 suite when its five are "
        "among them.",
        args, 1};
    nd_report report = {0};
    nd_status status = ND_OK;
    ND_TRY(nd_args_parse(&command, argc, argv, &paths, &helped));
    if (helped)
        return ND_OK;
    if (paths.count == 0)
        return ND_FAIL(ND_ECONFIG, "report needs the directories of runs (see --help)");
    if (!directory || !directory[0])
        return ND_FAIL(ND_ECONFIG, "report needs --out DIR (see --help)");
    ND_TRY_GOTO(nd_report_read(paths.items, paths.count, &report), done);
    ND_TRY_GOTO(nd_report_write(&report, directory), done);
    printf("%s/REPORT.md: %d run%s\n", directory, report.count, report.count == 1 ? "" : "s");
done:
    nd_report_destroy(&report);
    return status;
}
