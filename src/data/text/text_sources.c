#include "data/text/text_sources.h"

#include "data/data_directory.h"

#include <errno.h>
#include <fnmatch.h>
#include <fts.h>
#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct identity {
    dev_t device;
    ino_t inode;
} identity;

typedef struct walk {
    const nd_text_sources *sources;
    nd_text_visit visit;
    void *context;
    nd_left_out *left_out; /* never NULL */
    struct stat out;       /* output directory; st_ino 0: none */
    void *seen;            /* identities of the files visited so far: a tree of tsearch */
    int64_t files;
    bool standard_input; /* already read */
} walk;

static int compare_identities(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    const int order = (x->inode > y->inode) - (x->inode < y->inode);
    return order ? order : (x->device > y->device) - (x->device < y->device);
}

/* Records the file as visited; *before: it was already. */
static nd_status mark_visited(walk *w, const struct stat *info, bool *before)
{
    identity *file = malloc(sizeof *file);
    identity **place = NULL;
    if (file) {
        *file = (identity){info->st_dev, info->st_ino};
        place = tsearch(file, &w->seen, compare_identities);
    }
    *before = place && *place != file;
    if (!place || *before)
        free(file);
    return ND_CHECK(place, ND_ENOMEM, "no memory for the list of input files");
}

static nd_status visit_file(walk *w, const char *path, const struct stat *info, int named)
{
    const bool regular = S_ISREG(info->st_mode);
    bool before = false;
    if (regular)
        ND_TRY(mark_visited(w, info, &before));
    if (before) {
        nd_left_out_add(w->left_out, ND_LEFT_REPEATED, "%s", path);
        return ND_OK;
    }
    w->files++;
    return w->visit(w->context, path, regular ? (int64_t)info->st_size : -1, named);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool matches(const FTSENT *entry, const char *root, const char *glob)
{
    if (!glob)
        return true;
    if (!strchr(glob, '/'))
        return fnmatch(glob, entry->fts_name, 0) == 0;
    const char *inside = entry->fts_path + strlen(root);
    while (*inside == '/')
        inside++;
    return fnmatch(glob, inside, 0) == 0;
}

/* Whether pack writes this file of its output directory, whatever path or link leads there. */
static bool is_pack_output(const walk *w, const FTSENT *entry)
{
    const char *name = entry->fts_name;
    return entry->fts_level > 0 && w->out.st_ino != 0 &&
           entry->fts_parent->fts_ino == w->out.st_ino &&
           entry->fts_parent->fts_dev == w->out.st_dev &&
           (strcmp(name, ND_PACK_STAGING) == 0 || strcmp(name, ND_SHARD_INDEX_NAME) == 0 ||
            strcmp(name, "tokenizer.model") == 0 || nd_shard_name_matches(name, ""));
}

static nd_status visit_entry(walk *w, FTS *tree, FTSENT *entry, const char *root)
{
    if (entry->fts_info == FTS_DP)
        return ND_OK;
    if (is_pack_output(w, entry)) {
        if (strcmp(entry->fts_name, ND_PACK_STAGING) != 0) /* that of this pack is not counted */
            nd_left_out_add(w->left_out, ND_LEFT_OWN, "%s", entry->fts_path);
        fts_set(tree, entry, FTS_SKIP);
        return ND_OK;
    }
    switch (entry->fts_info) {
    case FTS_D:
        if (entry->fts_level > 0 && entry->fts_name[0] == '.') {
            nd_left_out_add(w->left_out, ND_LEFT_HIDDEN, "%s", entry->fts_path);
            fts_set(tree, entry, FTS_SKIP);
        }
        return ND_OK;
    case FTS_F:
        return matches(entry, root, w->sources->glob)
                   ? visit_file(w, entry->fts_path, entry->fts_statp, 0)
                   : ND_OK;
    case FTS_DC:
    case FTS_SLNONE:
        nd_left_out_add(w->left_out, ND_LEFT_LINK, "%s", entry->fts_path);
        return ND_OK;
    case FTS_DEFAULT:
        if (matches(entry, root, w->sources->glob))
            nd_left_out_add(w->left_out, ND_LEFT_SPECIAL, "%s", entry->fts_path);
        return ND_OK;
    default:
        return ND_FAIL(ND_EDATA, "%s: cannot read this: %s", entry->fts_path,
                       strerror(entry->fts_errno));
    }
}

static nd_status visit_directory(walk *w, const char *root)
{
    char *const roots[] = {(char *)root, NULL};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    ND_FAIL_IF(!tree, ND_EDATA, "%s: cannot read this directory: %s", root, strerror(errno));
    nd_status status = ND_OK;
    FTSENT *entry;
    errno = 0;
    while (status == ND_OK && (entry = fts_read(tree)) != NULL) {
        status = visit_entry(w, tree, entry, root);
        errno = 0;
    }
    if (status == ND_OK && errno != 0)
        status = ND_FAIL(ND_EDATA, "%s: cannot read this directory: %s", root, strerror(errno));
    fts_close(tree);
    return status;
}

static nd_status visit_inputs(walk *w)
{
    const nd_text_sources *s = w->sources;
    for (int i = 0; i < s->count; i++) {
        struct stat info;
        if (strcmp(s->inputs[i], "-") == 0) {
            if (w->standard_input) {
                nd_left_out_add(w->left_out, ND_LEFT_REPEATED, "(standard input)");
                continue;
            }
            w->standard_input = true;
            w->files++;
            ND_TRY(w->visit(w->context, s->inputs[i], -1, 1));
        } else if (stat(s->inputs[i], &info) != 0) {
            return ND_FAIL(ND_EDATA, "%s: cannot read this input: %s", s->inputs[i],
                           strerror(errno));
        } else if (S_ISDIR(info.st_mode)) {
            ND_TRY(visit_directory(w, s->inputs[i]));
        } else {
            ND_TRY(visit_file(w, s->inputs[i], &info, 1));
        }
    }
    return ND_OK;
}

nd_status nd_text_sources_visit(const nd_text_sources *sources, nd_text_visit visit, void *context,
                                nd_left_out *left_out)
{
    static _Thread_local nd_left_out ignored;
    const char *glob = sources->glob;
    walk w = {.sources = sources,
              .visit = visit,
              .context = context,
              .left_out = left_out ? left_out : &ignored};
    if (!sources->out || stat(sources->out, &w.out) != 0)
        w.out.st_ino = 0;
    nd_status status = visit_inputs(&w);
    tdestroy(w.seen, free);
    if (status == ND_OK && w.files == 0)
        status = ND_FAIL(ND_EDATA, "%s%s: no file here%s%s%s",
                         sources->count > 0 ? sources->inputs[0] : "(no input)",
                         sources->count > 1 ? " and the other inputs" : "",
                         glob ? " matches '" : "", glob ? glob : "", glob ? "'" : "");
    return status;
}

nd_status nd_text_sources_fail_empty(const nd_text_sources *sources, const char *use)
{
    const char *first = sources->inputs[0];
    if (sources->count > 1)
        return ND_FAIL(ND_EDATA, "%s and the other inputs hold no text to %s", first, use);
    if (strcmp(first, "-") == 0)
        return ND_FAIL(ND_EDATA, "(standard input): there is no text here to %s", use);
    return ND_FAIL(ND_EDATA, "%s: the files here hold no text to %s", first, use);
}
