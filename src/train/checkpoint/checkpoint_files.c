#include "train/checkpoint/checkpoint_files.h"

#include "core/base/durable_file.h"
#include "train/checkpoint/manifest.h"

#include <stdlib.h>
#include <string.h>

nd_status nd_checkpoint_list_file(nd_checkpoint *c, const char *name, const void *bytes,
                                  size_t size)
{
    nd_checkpoint_file *f = &c->files[c->file_count++];
    snprintf(f->name, sizeof f->name, "%s", name);
    f->bytes = (int64_t)size;
    return nd_sha256_hex(bytes, size, f->sha256);
}

nd_status nd_checkpoint_add_file(nd_checkpoint *c, const char *directory, const char *name,
                                 const void *bytes, size_t size)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_checkpoint_join(path, directory, name));
    ND_TRY(nd_file_write_synced(path, bytes, size));
    return nd_checkpoint_list_file(c, name, bytes, size);
}

nd_status nd_checkpoint_config_text(const nd_checkpoint *c, const nd_config *config, char **text,
                                    size_t *size)
{
    *text = NULL;
    FILE *memory = open_memstream(text, size);
    ND_FAIL_IF(!memory, ND_ENOMEM, "no memory for the configuration's text");
    if (c->identity.run_id[0])
        nd_identity_write_comments(&c->identity, memory);
    const nd_status status = nd_config_write(config, memory);
    fclose(memory);
    return status;
}

nd_status nd_checkpoint_add_config(nd_checkpoint *c, const char *directory, const nd_config *config)
{
    ND_AUTOFREE char *text = NULL;
    size_t size = 0;
    ND_TRY(nd_checkpoint_config_text(c, config, &text, &size));
    return nd_checkpoint_add_file(c, directory, "config.ini", text, size);
}

static nd_status digest_state(nd_checkpoint *c)
{
    ND_AUTOFREE char *hashes = malloc(64 * (size_t)c->tensor_count + 1);
    ND_FAIL_IF(!hashes, ND_ENOMEM, "no memory for %lld checksums", (long long)c->tensor_count);
    for (int64_t i = 0; i < c->tensor_count; i++)
        memcpy(hashes + 64 * i, c->tensors[i].checksum, 64);
    return nd_sha256_hex(hashes, 64 * (size_t)c->tensor_count, c->state_sha256);
}

nd_status nd_checkpoint_manifest_text(nd_checkpoint *c, char **text)
{
    ND_TRY(digest_state(c));
    return nd_manifest_format(c, text);
}

nd_status nd_checkpoint_add_manifest(nd_checkpoint *c, const char *directory)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_AUTOFREE char *text = NULL;
    ND_TRY(nd_checkpoint_join(path, directory, "manifest.json"));
    ND_TRY(nd_checkpoint_manifest_text(c, &text));
    return nd_file_write_synced(path, text, strlen(text));
}
