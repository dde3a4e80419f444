#include "data/text_sources.h"

#include <errno.h>
#include <fnmatch.h>
#include <fts.h>
#include <string.h>
#include <sys/stat.h>

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int matches(const FTSENT *entry, const char *root, const char *glob)
{
    if (!glob)
        return 1;
    if (!strchr(glob, '/'))
        return fnmatch(glob, entry->fts_name, 0) == 0;
    const char *inside = entry->fts_path + strlen(root);
    while (*inside == '/')
        inside++;
    return fnmatch(glob, inside, 0) == 0;
}

static nd_status visit_directory(const char *root, const char *glob, nd_text_visit visit,
                                 void *context)
{
    char *const roots[] = {(char *)root, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    if (!tree)
        return ND_FAIL(ND_EDATA, "%s: cannot read this directory: %s", root, strerror(errno));
    nd_status status = ND_OK;
    FTSENT *entry;
    errno = 0;
    while (status == ND_OK && (entry = fts_read(tree)) != NULL) {
        if (entry->fts_info == FTS_F && matches(entry, root, glob))
            status = visit(context, entry->fts_path, (int64_t)entry->fts_statp->st_size);
        else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR ||
                 entry->fts_info == FTS_NS)
            status = ND_FAIL(ND_EDATA, "%s: cannot read this: %s", entry->fts_path,
                             strerror(entry->fts_errno));
        errno = 0;
    }
    if (status == ND_OK && errno != 0)
        status = ND_FAIL(ND_EDATA, "%s: cannot read this directory: %s", root, strerror(errno));
    fts_close(tree);
    return status;
}

nd_status nd_text_sources_visit(const char *const *inputs, int count, const char *glob,
                                nd_text_visit visit, void *context)
{
    for (int i = 0; i < count; i++) {
        struct stat info;
        if (strcmp(inputs[i], "-") == 0) {
            ND_TRY(visit(context, inputs[i], -1));
        } else if (stat(inputs[i], &info) != 0) {
            return ND_FAIL(ND_EDATA, "%s: cannot read this input: %s", inputs[i], strerror(errno));
        } else if (S_ISDIR(info.st_mode)) {
            ND_TRY(visit_directory(inputs[i], glob, visit, context));
        } else {
            ND_TRY(visit(context, inputs[i], S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1));
        }
    }
    return ND_OK;
}

static nd_status add(void *context, const char *path, int64_t bytes)
{
    (void)path;
    nd_text_total *total = context;
    total->files++;
    if (bytes < 0)
        total->has_stdin = 1;
    else
        total->bytes += bytes;
    return ND_OK;
}

nd_status nd_text_sources_total(const char *const *inputs, int count, const char *glob,
                                nd_text_total *total)
{
    *total = (nd_text_total){0};
    ND_TRY(nd_text_sources_visit(inputs, count, glob, add, total));
    if (total->files == 0)
        return ND_FAIL(ND_EDATA, "%s%s: no file here%s%s%s", count > 0 ? inputs[0] : "(no input)",
                       count > 1 ? " and the other inputs" : "", glob ? " matches '" : "",
                       glob ? glob : "", glob ? "'" : "");
    return ND_OK;
}
