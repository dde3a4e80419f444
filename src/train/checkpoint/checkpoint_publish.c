#include "core/base/directory.h"
#include "core/base/durable_file.h"
#include "train/checkpoint/checkpoint_files.h"
#include "train/checkpoint/checkpoint_parts.h"
#include "train/fault_points.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

nd_status nd_save_collect(nd_save *s)
{
    const nd_run *run = s->run;
    const int64_t params = run->model->params.count, units = nd_checkpoint_units(run);
    nd_checkpoint *c = &s->c;
    c->tensors = calloc((size_t)(params * units * ND_CHECKPOINT_PARTS_MAX + nd_save_slices_max(s)),
                        sizeof *c->tensors);
    c->files = calloc((size_t)run->comm->size + 2, sizeof *c->files);
    ND_FAIL_IF(!c->tensors || !c->files, ND_ENOMEM, "no memory for a manifest of %lld tensors",
               (long long)params);
    for (int64_t at = 0; at < params * units; at++) {
        const int owner = nd_checkpoint_writer(run, at % units, at / units);
        for (int p = 0; p < ND_CHECKPOINT_PARTS_MAX; p++) {
            const nd_written_tensor *w = &nd_save_row(s, at % units, at / units)[p];
            if (!w->part[0] || (run->own.rows[at / units] && !s->durable))
                continue;
            nd_save_list_tensor(s, at / units, w, owner);
        }
    }
    ND_TRY(nd_save_collect_slices(s));
    for (int r = 0; r < run->comm->size; r++) {
        nd_checkpoint_file *f = &c->files[c->file_count++];
        snprintf(f->name, sizeof f->name, "rank_%04d.h5", r);
        f->bytes = s->summaries[r].bytes;
        strcpy(f->sha256, s->summaries[r].sha256);
    }
    return ND_OK;
}

void nd_save_note(nd_save *s, const char *format, ...)
{
    const size_t used = strlen(s->notes);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(s->notes + used, sizeof s->notes - used, format, arguments);
    va_end(arguments);
    snprintf(s->notes + strlen(s->notes), sizeof s->notes - strlen(s->notes), "\n");
}

/* For file systems that cannot exchange two names: renames the earlier one first. After a crash in
 * between nd_checkpoint_recover restores it; `latest` does not name this step meanwhile. */
static nd_status replace(const nd_save *s)
{
    char earlier[ND_CHECKPOINT_PATH_MAX];
    int64_t latest;
    bool foreign;
    ND_TRY(nd_checkpoint_step_path(earlier, s->parent, ND_CHECKPOINT_REPLACED, s->c.step));
    ND_TRY(nd_directory_remove(earlier));
    ND_TRY(nd_checkpoint_latest_read(s->parent, &latest, &foreign));
    if (latest == s->c.step)
        ND_TRY(nd_checkpoint_latest_write(s->parent, -1, NULL));
    ND_TRY(nd_rename_new(s->final, earlier, NULL));
    nd_fault_point_of(0, s->c.step, "save_replace");
    if (nd_rename_new(s->temporary, s->final, NULL) != ND_OK) {
        nd_rename_new(earlier, s->final, NULL);
        return ND_EIO;
    }
    return nd_directory_remove(earlier);
}

/* Renames the directory `temporary` to `final`. If that exists (the same step, saved before a
 * restart), exchanges the two atomically, so that `final` is complete at any moment. */
static nd_status rename_to_final(nd_save *s)
{
    char name[ND_CHECKPOINT_NAME_MAX];
    bool taken, directory;
    nd_checkpoint_inspection standing = {.own = false};
    ND_TRY(nd_path_exists(s->final, &taken));
    ND_TRY(nd_path_is_directory(s->final, &directory));
    if (directory)
        ND_TRY(nd_checkpoint_inspect(s->parent, s->c.step, &standing));
    ND_FAIL_IF(taken && !directory, ND_ECHECKPOINT,
               "%s is in the way: this program did not write it; move it elsewhere", s->final);
    if (standing.own) {
        if (renameat2(AT_FDCWD, s->temporary, AT_FDCWD, s->final, RENAME_EXCHANGE) == 0)
            return nd_directory_remove(s->temporary);
        if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP)
            return replace(s);
        return ND_FAIL(ND_ECHECKPOINT, "cannot rename %s to %s: %s", s->temporary, s->final,
                       strerror(errno));
    }
    if (taken) { /* damaged, or the user added files */
        ND_TRY(nd_checkpoint_supersede_one(s->parent, s->c.step, name));
        nd_save_note(s, "moved   what stood at %s, damaged or not of this program, to %s", s->final,
                     name);
    }
    return nd_rename_new(s->temporary, s->final, NULL);
}

nd_status nd_save_publish(nd_save *s)
{
    nd_fault_point_of(0, s->c.step, "save_config");
    ND_TRY(nd_save_join_rows(s));
    ND_TRY(nd_save_collect(s));
    ND_TRY(nd_checkpoint_add_config(&s->c, s->temporary, &s->run->config));
    if (s->run->data.tokenizer)
        ND_TRY(nd_checkpoint_add_file(&s->c, s->temporary, "tokenizer.model",
                                      s->run->data.tokenizer, s->run->data.tokenizer_bytes));
    ND_TRY(nd_checkpoint_add_manifest(&s->c, s->temporary));
    ND_TRY(nd_path_sync(s->temporary));
    nd_fault_point_of(0, s->c.step, "save_rename");
    ND_TRY(rename_to_final(s));
    ND_TRY(nd_path_sync(s->parent));
    nd_fault_point_of(0, s->c.step, "save_link");
    ND_TRY(nd_checkpoint_latest_write(s->parent, s->c.step, &s->unlinked));
    nd_fault_point_of(0, s->c.step, "save_remove");
    return ND_OK;
}
