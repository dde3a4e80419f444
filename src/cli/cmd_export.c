#include "cli/args.h"
#include "cli/cli.h"
#include "exchange/export.h"

#include <string.h>

typedef struct export_arguments {
    const char *checkpoint, *format, *type, *out;
} export_arguments;

/* Index of `type` among the format's types, the first when it is NULL. */
static nd_status find_type(const char *format, const char *type, const char *const *types,
                           size_t count, size_t *chosen)
{
    *chosen = 0;
    for (size_t i = 0; type && i < count; i++) {
        if (strcmp(type, types[i]) == 0) {
            *chosen = i;
            return ND_OK;
        }
    }
    if (!type)
        return ND_OK;
    char list[128] = "";
    for (size_t i = 0; i < count; i++) {
        strcat(list, i ? ", " : "");
        strcat(list, types[i]);
    }
    return ND_FAIL(ND_ECONFIG, "--type '%.40s': --format %s takes %s", type, format, list);
}

/* `directory` [ND_CHECKPOINT_PATH_MAX] is then that of the checkpoint. */
static nd_status export_once(const export_arguments *a, char *directory)
{
    static const char *const gguf_types[] = {"tq2_0", "tq1_0", "q2_0", "f16", "f32"};
    static const char *const tensor_types[] = {"bf16", "f32"};
    const bool gguf = strcmp(a->format, "gguf") == 0;
    size_t type;
    nd_source s;
    ND_FAIL_IF(!gguf && strcmp(a->format, "safetensors") != 0, ND_ECONFIG,
               "--format '%.40s' is neither gguf nor safetensors", a->format);
    if (gguf)
        ND_TRY(find_type("gguf", a->type, gguf_types, 5, &type));
    else
        ND_TRY(find_type("safetensors", a->type, tensor_types, 2, &type));
    const nd_status opened = nd_source_open(a->checkpoint, &s);
    strcpy(directory, s.directory);
    ND_TRY(opened);
    const nd_status status = gguf ? nd_export_gguf(&s, (nd_gguf_export_type)type, a->out)
                                  : nd_export_safetensors(&s, type == 0, a->out);
    if (status == ND_OK)
        printf("exported %s to %s (%s, %s)\n", s.directory, a->out, a->format,
               gguf ? gguf_types[type] : tensor_types[type]);
    nd_source_close(&s);
    return status;
}

static nd_status export(const export_arguments *a)
{
    char directory[ND_CHECKPOINT_PATH_MAX] = "";
    for (int attempt = 0; attempt < 2; attempt++) {
        nd_error_clear();
        const nd_status status = export_once(a, directory);
        if (status == ND_OK || !nd_checkpoint_gone(directory))
            return status;
    }
    return nd_checkpoint_fail_gone(directory);
}

nd_status nd_cli_export(int argc, char **argv)
{
    export_arguments a = {.format = "gguf"};
    const nd_arg args[] = {
        {"--checkpoint", ND_ARG_TEXT, &a.checkpoint, "DIR", "a checkpoint, or a run's directory"},
        {"--format", ND_ARG_TEXT, &a.format, "gguf|safetensors",
         "a file for llama.cpp (the default) or a directory for transformers"},
        {"--type", ND_ARG_TEXT, &a.type, "tq2_0|tq1_0|q2_0|f16|f32|bf16",
         "type of the projections; gguf: tq2_0 (the default), tq1_0, q2_0, f16, f32; safetensors: "
         "bf16 (the default), f32"},
        {"--out", ND_ARG_TEXT, &a.out, "PATH", "the file or directory to write"},
    };
    const nd_command command = {
        "nanochat_dist export --checkpoint DIR --out PATH [--format FORMAT] [--type TYPE]",
        "Writes a checkpoint's model for llama.cpp or transformers.", args,
        sizeof args / sizeof args[0]};
    ND_ARGS_PARSE(command, argc, argv, NULL);
    ND_FAIL_IF(!a.checkpoint || !a.out, ND_ECONFIG,
               "export needs --checkpoint DIR and --out PATH (see --help)");
    return export(&a);
}
