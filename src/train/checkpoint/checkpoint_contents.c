/* What a checkpoint contains of each parameter, and which rank writes it. */
#include "train/checkpoint/checkpoint_parts.h"
#include "train/outer_step.h"

#include <string.h>

int nd_checkpoint_writer(const nd_run *run, int64_t unit, int64_t index)
{
    if (unit > 0)
        return nd_rounds_rank(run, unit - 1, index);
    return nd_ownership_saver(&run->own, index);
}

bool nd_checkpoint_writes(const nd_run *run, int64_t unit, int64_t index)
{
    return run->own.rows[index] ? nd_run_owned_rows(run, index).count > 0 &&
                                      nd_ownership_saves(&run->own, index, run->comm->rank)
                                : nd_checkpoint_writer(run, unit, index) == run->comm->rank;
}

static int worker_parts(const nd_run *run, int64_t unit, int64_t index,
                        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX])
{
    const int64_t carried = unit - 1 - run->rounds->first;
    char name[sizeof parts->name];
    if (carried < 0 || carried >= run->rounds->carried)
        return 0;
    const nd_run *w = &run->rounds->worker[carried];
    if (w->masters[index].rows == 0)
        return 0;
    parts[0] = (nd_optimizer_state){"master", w->masters[index]};
    int count = 1 + nd_optimizer_states(w->optimizer, index, parts + 1);
    count += nd_outer_worker_states(run, (int)carried, index, parts + count);
    for (int p = 0; p < count; p++) {
        strcpy(name, parts[p].name);
        snprintf(parts[p].name, sizeof parts[p].name, "w%d.%.25s", (int)(unit - 1), name);
    }
    return count;
}

int nd_checkpoint_parts(const nd_run *run, int64_t unit, int64_t index,
                        nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX])
{
    if (unit > 0)
        return worker_parts(run, unit, index, parts);
    if (run->masters[index].rows == 0)
        return 0;
    parts[0] = (nd_optimizer_state){"master", run->masters[index]};
    return 1 + (run->rounds ? nd_outer_states(run, index, parts + 1)
                            : nd_optimizer_states(run->optimizer, index, parts + 1));
}

nd_status nd_save_write_values(nd_checkpoint_h5 *file, bool durable, const char *param,
                               const nd_optimizer_state *part, const void *host,
                               nd_written_tensor *written)
{
    const nd_cview values = nd_cview_of(host, part->view.dtype, part->view.rows, part->view.cols);
    char name[2 * ND_PARAM_NAME_MAX + 32];
    if (strcmp(part->name, "master") == 0)
        snprintf(name, sizeof name, "/masters/%s", param);
    else
        snprintf(name, sizeof name, "/optimizer/%s/%.31s", param, part->name);
    ND_TRY(durable ? nd_sha256_hex(host, nd_view_bytes(values), written->checksum)
                   : nd_gmac_hex(host, nd_view_bytes(values), written->checksum));
    ND_TRY(nd_checkpoint_h5_write(file, name, values));
    snprintf(written->part, sizeof written->part, "%.31s", part->name);
    written->dtype = (int)values.dtype;
    written->rows = values.rows;
    written->cols = values.cols;
    return ND_OK;
}

nd_checkpoint_tensor *nd_save_list_tensor(nd_save *s, int64_t index, const nd_written_tensor *w,
                                          int rank)
{
    nd_checkpoint_tensor *t = &s->c.tensors[s->c.tensor_count++];
    *t = (nd_checkpoint_tensor){.dtype = (nd_dtype)w->dtype, .rows = w->rows, .cols = w->cols};
    strcpy(t->param, s->run->model->params.list[index].name);
    strcpy(t->part, w->part);
    strcpy(t->checksum, w->checksum);
    snprintf(t->file, sizeof t->file, "rank_%04d.h5", rank);
    return t;
}

size_t nd_checkpoint_row_at(const nd_param *param, nd_view part, int64_t row)
{
    int64_t element = row * part.cols;
    if (row == param->rows)
        element = nd_view_count(nd_as_const(part));
    else if (part.rows != param->rows) /* a scale for each block */
        element = row * param->cols / ND_STATE_DYNAMIC_BLOCK;
    return (size_t)element * nd_dtype_size(part.dtype);
}

nd_status nd_checkpoint_whole_parts(const nd_run *run, int64_t index,
                                    nd_optimizer_state parts[ND_CHECKPOINT_PARTS_MAX], int *count)
{
    const nd_param *param = &run->model->params.list[index];
    const nd_dtype type =
        run->config.optimizer.master_precision == ND_PRECISION_BF16 ? ND_BF16 : ND_F32;
    parts[0] = (nd_optimizer_state){"master", nd_view_of(NULL, type, param->rows, param->cols)};
    ND_TRY(nd_optimizer_whole_states(run->optimizer, index, parts + 1, count));
    ++*count;
    return ND_OK;
}
