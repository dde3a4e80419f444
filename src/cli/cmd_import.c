#include "cli/args.h"
#include "cli/cli.h"
#include "exchange/import.h"

#include <string.h>

nd_status nd_cli_import(int argc, char **argv)
{
    const char *format = "safetensors";
    nd_import_options o = {.data_path = "data"};
    const nd_arg args[] = {
        {"--format", ND_ARG_TEXT, &format, "safetensors", "what to read (safetensors)"},
        {"--from", ND_ARG_TEXT, &o.from, "DIR",
         "a directory with config.json and model.safetensors, or its shards and their index"},
        {"--out", ND_ARG_TEXT, &o.run, "DIR",
         "the run's directory; the checkpoint is DIR/checkpoints/step_00000000"},
        {"--data-path", ND_ARG_TEXT, &o.data_path, "DIR",
         "packed shards, for the checkpoint's configuration (data)"},
    };
    const nd_command command = {
        "nanochat_dist import --from DIR --out DIR [--data-path DIR]",
        "Turns a llama or bitnet model in safetensors into a checkpoint of step 0.", args,
        sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(!o.from || !o.run, ND_ECONFIG, "import needs --from DIR and --out DIR (see --help)");
    ND_FAIL_IF(strcmp(format, "safetensors") != 0, ND_ECONFIG,
               "--format '%.40s': import reads safetensors", format);
    return nd_import_safetensors(&o, stdout);
}
