#include "cli/args.h"
#include "cli/cli.h"
#include "cli/config_arguments.h"
#include "train/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "24GiB", "24G", "512MiB", or bytes. */
static nd_status parse_bytes(const char *text, size_t *bytes)
{
    static const struct {
        const char *suffix;
        double factor;
    } units[] = {{"", 1.0},     {"K", 0x1p10},   {"KiB", 0x1p10}, {"M", 0x1p20},  {"MiB", 0x1p20},
                 {"G", 0x1p30}, {"GiB", 0x1p30}, {"T", 0x1p40},   {"TiB", 0x1p40}};
    char *end;
    const double value = strtod(text, &end);
    for (size_t i = 0; end != text && value > 0.0 && i < sizeof units / sizeof units[0]; i++)
        if (strcasecmp(end, units[i].suffix) == 0 && value * units[i].factor < 0x1p62) {
            *bytes = (size_t)(value * units[i].factor);
            return ND_OK;
        }
    return ND_FAIL(ND_ECONFIG, "--device-memory: '%.40s' is not a size such as 24GiB", text);
}

nd_status nd_cli_plan(int argc, char **argv)
{
    nd_config_arguments source = {0};
    const char *memory = NULL;
    bool workspace = false;
    int64_t ranks = 1;
    const nd_arg args[] = {
        {"--config", ND_ARG_TEXT, &source.config, "FILE",
         "a path, or the name of an installed config"},
        {"--set", ND_ARG_APPEND, &source.set, "SECTION.KEY=VALUE", "sets one key; may be repeated"},
        {"--ranks", ND_ARG_INT, &ranks, "N", "number of ranks (1)"},
        {"--workspace", ND_ARG_FLAG, &workspace, NULL,
         "also measure the backend's workspace, by a step of one layer on this machine"},
        {"--device-memory", ND_ARG_TEXT, &memory, "SIZE", "say whether it fits, e.g. 24GiB"},
    };
    const nd_command command = {"nanochat_dist plan --config FILE --ranks N [options]",
                                "Memory by category, wire bytes and FLOPs of a run, before it "
                                "starts.",
                                args, sizeof args / sizeof args[0]};
    bool helped;
    size_t bytes = 0;
    ND_TRY(nd_args_parse(&command, argc, argv, NULL, &helped));
    if (helped)
        return ND_OK;
    if (ranks < 1 || ranks > 1000000)
        return ND_FAIL(ND_ECONFIG, "--ranks: %lld is not from 1 to 1000000", (long long)ranks);
    if (memory)
        ND_TRY(parse_bytes(memory, &bytes));
    nd_config *config = calloc(1, sizeof *config);
    nd_plan plan = {0};
    nd_status status = config ? ND_OK : ND_FAIL(ND_ENOMEM, "no memory for the configuration");
    ND_TRY_GOTO(status, done);
    ND_TRY_GOTO(nd_config_arguments_load(&source, config), done);
    ND_TRY_GOTO(nd_config_check_model(config), done);
    ND_TRY_GOTO(nd_plan_create(config, (int)ranks, &plan), done);
    if (workspace)
        ND_TRY_GOTO(nd_plan_measure_workspace(config, &plan), done);
    nd_plan_print(&plan, config, bytes, stdout);
done:
    nd_plan_destroy(&plan);
    free(config);
    return status;
}
