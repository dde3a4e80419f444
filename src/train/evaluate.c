#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>

static nd_status evaluate_part(nd_model *model, const nd_dataset *dataset, int64_t first,
                               int64_t windows, double *nll)
{
    const int64_t micro = model->config.micro_batch, width = model->config.seq_length + 1;
    const int64_t count = windows - first < micro ? windows - first : micro;
    ND_AUTOFREE int32_t *tokens = malloc((size_t)(micro * width) * sizeof *tokens);
    ND_FAIL_IF(!tokens, ND_ENOMEM, "no memory for %lld sequences", (long long)micro);
    nd_loss loss;
    for (int64_t i = 0; i < micro; i++) /* the rest repeats a valid window */
        ND_TRY(nd_dataset_read_window(dataset, i < count ? first + i : first, tokens + i * width));
    ND_TRY(nd_model_evaluate(model, tokens, count, &loss));
    *nll = loss.nll;
    return ND_OK;
}

nd_status nd_evaluate(nd_model *model, const nd_dataset *dataset, nd_comm *comm, int64_t samples,
                      nd_evaluation *out)
{
    const int64_t available = nd_dataset_window_count(dataset);
    const int64_t windows = samples > 0 && samples < available ? samples : available;
    const int64_t micro = model->config.micro_batch;
    const int64_t parts = (windows + micro - 1) / micro;
    const int64_t share = (parts + comm->size - 1) / comm->size;
    ND_FAIL_IF(windows == 0, ND_EDATA, "the held-out split is shorter than a window of %lld tokens",
               (long long)model->config.seq_length + 1);
    ND_AUTOFREE double *all = calloc((size_t)(share * (comm->size + 1)), sizeof *all);
    ND_FAIL_IF(!all, ND_ENOMEM, "no memory for %lld losses", (long long)parts);
    double *mine = all + share * comm->size;
    nd_status status = ND_OK;
    for (int64_t j = 0; j < share && status == ND_OK; j++) {
        const int64_t part = share * comm->rank + j;
        if (part < parts)
            status = evaluate_part(model, dataset, part * micro, windows, &mine[j]);
    }
    ND_TRY(nd_comm_agree(comm, status));
    ND_TRY(comm->ops.allgather(comm, all, mine, (size_t)share * sizeof *mine));
    double nll = 0.0;
    for (int64_t j = 0; j < share * comm->size; j++)
        nll += all[j];
    out->sequences = windows;
    out->tokens = windows * model->config.seq_length;
    out->loss = nll / (double)out->tokens;
    const double bytes = (double)nd_dataset_text_bytes(dataset);
    const double tokens = (double)nd_dataset_token_count(dataset);
    out->bits_per_byte = bytes > 0.0 ? out->loss / log(2.0) * tokens / bytes : 0.0;
    return ND_OK;
}
