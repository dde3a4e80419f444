#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_hdf5.h"
#include "train/checkpoint/manifest.h"
#include "train/fault_points.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void nd_checkpoint_close(nd_checkpoint *c)
{
    for (int64_t i = 0; i < c->file_count; i++)
        free(c->files[i].path);
    free(c->tensors);
    free(c->files);
    nd_identity_destroy(&c->identity);
    memset(c, 0, sizeof *c);
}

static nd_status check_file(const nd_checkpoint *c, const nd_checkpoint_file *f, bool deep)
{
    char path[ND_CHECKPOINT_PATH_MAX + 40], hex[ND_SHA256_HEX_SIZE];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", c->directory, f->name);
    if (stat(path, &info) != 0 || (deep && access(path, R_OK) != 0)) {
        ND_FAIL_IF(errno == ENOENT || errno == ENOTDIR, ND_ECHECKPOINT,
                   "%s: %s, but the manifest lists it", path, strerror(errno));
        return ND_FAIL(ND_EIO, "%s: cannot be read: %s", path, strerror(errno));
    }
    ND_FAIL_IF(info.st_size != f->bytes, ND_ECHECKPOINT, "%s: damaged: %lld bytes, expected %lld",
               path, (long long)info.st_size, (long long)f->bytes);
    int64_t bytes;
    if (!deep || !f->sha256[0])
        return ND_OK;
    ND_TRY(nd_file_digest(path, &bytes, hex)); /* an unreadable file is not a damaged one */
    return ND_CHECK(strcmp(hex, f->sha256) == 0, ND_ECHECKPOINT,
                    "%s: damaged: its SHA-256 is %.12s..., expected %.12s...", path, hex,
                    f->sha256);
}

bool nd_checkpoint_lists(const nd_checkpoint *c, const char *name)
{
    for (int64_t i = 0; i < c->file_count; i++)
        if (strcmp(c->files[i].name, name) == 0)
            return true;
    return false;
}

nd_status nd_checkpoint_open_manifest(const char *directory, nd_checkpoint *c)
{
    char path[ND_CHECKPOINT_PATH_MAX + 40];
    ND_AUTOFREE void *text = NULL;
    size_t size = 0;
    ND_FAIL_IF(strlen(directory) >= sizeof c->directory, ND_ECHECKPOINT,
               "%.80s...: the path is too long", directory);
    strcpy(c->directory, directory);
    snprintf(path, sizeof path, "%s/manifest.json", directory);
    if (access(path, R_OK) != 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
                   ? ND_FAIL(ND_ECHECKPOINT,
                             "%s: not a checkpoint: it has no readable manifest.json", directory)
                   : ND_FAIL(ND_EIO, "%s: cannot be read: %s", path, strerror(errno));
    ND_TRY(nd_read_whole_file(path, ND_EIO, &text, &size));
    return nd_manifest_parse(text, size, path, c);
}

static nd_status open_files(const char *directory, bool deep, nd_checkpoint *c)
{
    ND_TRY(nd_checkpoint_open_manifest(directory, c));
    for (int64_t i = 0; i < c->file_count; i++)
        ND_TRY(check_file(c, &c->files[i], deep));
    ND_FAIL_IF(!nd_checkpoint_lists(c, "config.ini"), ND_ECHECKPOINT,
               "%s/manifest.json: lists no config.ini", directory);
    for (int64_t i = 0; i < c->tensor_count; i++)
        ND_FAIL_IF(!nd_checkpoint_lists(c, c->tensors[i].file), ND_ECHECKPOINT,
                   "%s/manifest.json: tensor %s lies in %s, which is not listed", directory,
                   c->tensors[i].param, c->tensors[i].file);
    return ND_OK;
}

bool nd_checkpoint_gone(const char *directory)
{
    return directory[0] && access(directory, F_OK) != 0 && errno == ENOENT;
}

nd_status nd_checkpoint_fail_gone(const char *directory)
{
    nd_error_clear();
    return ND_FAIL(ND_ECHECKPOINT,
                   "%s: removed while it was read, as a run that trains removes what is older than "
                   "[logging] checkpoint_keep; name the run again, or a checkpoint that stays",
                   directory);
}

nd_status nd_checkpoint_open(const char *directory, bool deep, nd_checkpoint *c)
{
    memset(c, 0, sizeof *c);
    nd_fault_point_of(0, 0, "checkpoint_open");
    const nd_status status = open_files(directory, deep, c);
    if (status != ND_OK)
        nd_checkpoint_close(c);
    return status;
}

int64_t nd_checkpoint_find(const nd_checkpoint *c, const char *param, const char *part)
{
    for (int64_t i = 0; i < c->tensor_count; i++)
        if (strcmp(c->tensors[i].param, param) == 0 && strcmp(c->tensors[i].part, part) == 0)
            return i;
    return -1;
}

static void path_of(const nd_checkpoint *c, const char *file,
                    char path[ND_CHECKPOINT_PATH_MAX + 40])
{
    snprintf(path, ND_CHECKPOINT_PATH_MAX + 40, "%s/%s", c->directory, file);
    for (int64_t i = 0; i < c->file_count; i++)
        if (c->files[i].path && strcmp(c->files[i].name, file) == 0)
            snprintf(path, ND_CHECKPOINT_PATH_MAX + 40, "%s", c->files[i].path);
}

nd_status nd_checkpoint_read(const nd_checkpoint *c, int64_t index, void *values)
{
    const nd_checkpoint_tensor *t = &c->tensors[index];
    char path[ND_CHECKPOINT_PATH_MAX + 40], name[2 * ND_PARAM_NAME_MAX + 48];
    char hex[ND_SHA256_HEX_SIZE];
    path_of(c, t->file, path);
    nd_fault_point_of(0, index, "checkpoint_read");
    if (strcmp(t->part, "master") == 0)
        snprintf(name, sizeof name, "/masters/%s", t->param);
    else
        snprintf(name, sizeof name, "/optimizer/%s/%s", t->param, t->part);
    const nd_view view = nd_view_of(values, t->dtype, t->rows, t->cols);
    nd_checkpoint_h5 *file = NULL;
    ND_TRY(nd_checkpoint_h5_open(path, &file));
    const nd_status status = nd_checkpoint_h5_read(file, name, view);
    nd_checkpoint_h5_close(file);
    ND_TRY(status);
    const size_t size = nd_view_bytes(nd_as_const(view));
    const bool short_one = strlen(t->checksum) < ND_GMAC_HEX_SIZE;
    ND_TRY(short_one ? nd_gmac_hex(values, size, hex) : nd_sha256_hex(values, size, hex));
    return ND_CHECK(strcmp(hex, t->checksum) == 0, ND_ECHECKPOINT,
                    "%s: tensor %s (%s) is damaged: %s %.12s..., expected %.12s...", path, t->param,
                    t->part, short_one ? "GMAC" : "SHA-256", hex, t->checksum);
}

nd_status nd_checkpoint_open_on_all(nd_comm *comm, const char *directory, bool deep,
                                    nd_checkpoint *c)
{
    char first[ND_SHA256_HEX_SIZE];
    const nd_status opened = nd_checkpoint_open(directory, deep, c);
    nd_status status = nd_comm_agree(comm, opened);
    strcpy(first, c->state_sha256);
    ND_IF_OK(comm->ops.broadcast(comm, first, sizeof first, 0));
    ND_IF_OK(nd_comm_agree(
        comm, ND_CHECK(strcmp(first, c->state_sha256) == 0, ND_ECHECKPOINT,
                       "%s: its state is %.12s... here and %.12s... on rank 0: by this "
                       "path ranks reach different checkpoints; start them in one working "
                       "directory, on a shared file system",
                       directory, c->state_sha256, first)));
    if (status != ND_OK && opened == ND_OK)
        nd_checkpoint_close(c);
    return status;
}

nd_status nd_checkpoint_check_tensor(const nd_checkpoint *c, int64_t index)
{
    const nd_checkpoint_tensor *t = &c->tensors[index];
    ND_AUTOFREE void *values = malloc((size_t)(t->rows * t->cols) * nd_dtype_size(t->dtype));
    ND_FAIL_IF(!values, ND_ENOMEM, "no memory to verify %s", t->param);
    return nd_checkpoint_read(c, index, values);
}

nd_status nd_checkpoint_print(const char *directory, bool verify, FILE *out)
{
    ND_CLEANUP(nd_checkpoint_close) nd_checkpoint c = {0};
    ND_TRY(nd_checkpoint_open(directory, verify, &c));
    fprintf(out, "checkpoint %s\n  step %lld, %lld tokens, %lld restarts\n  state %s\n", directory,
            (long long)c.step, (long long)c.tokens, (long long)c.restarts, c.state_sha256);
    if (c.identity.run_id[0])
        fprintf(out, "  run %s, saved by nanochat_dist %s, commit %s, on host %s\n",
                c.identity.run_id, c.identity.version, c.identity.commit, c.identity.host);
    if (c.approximate[0])
        fprintf(out, "  approximate: %s\n", c.approximate);
    for (int64_t i = 0; i < c.file_count; i++)
        fprintf(out, "  file   %-18s %12lld bytes\n", c.files[i].name, (long long)c.files[i].bytes);
    for (int64_t i = 0; i < c.tensor_count; i++) {
        const nd_checkpoint_tensor *t = &c.tensors[i];
        if (verify)
            ND_TRY(nd_checkpoint_check_tensor(&c, i));
        fprintf(out, "  tensor %-28s %-22s %-4s [%lld, %lld]%s\n", t->param, t->part,
                nd_dtype_name(t->dtype), (long long)t->rows, (long long)t->cols,
                verify ? "  ok" : "");
    }
    if (verify)
        fprintf(out, "  all %lld tensors and %lld files have their checksums\n",
                (long long)c.tensor_count, (long long)c.file_count);
    return ND_OK;
}
