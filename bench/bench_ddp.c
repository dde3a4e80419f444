/* Plain data-parallel training, to measure ours against: every rank keeps masters and optimizer
 * state of the whole model, all gradients are averaged over all ranks by MPI_Allreduce after the
 * backward pass, in buckets of 25 MiB, and every rank updates everything. Model, data and optimizer
 * are the program's own: a run that thinks it is alone, whose reduction goes over all ranks.
 *
 * Steps without any exchange, with gradients in fp32 and with gradients in bf16 (added by an
 * operation of MPI's user, rounded after each addition) take turns. The batch is a rank's share.
 * Projected gradients (GaLore) travel whole, as they do there: padded to the size of the matrix.
 * Under mpirun; rank 0 prints one JSON object of medians. */
#include "bench_run.h"
#include "timing.h"

#include "core/base/float_formats.h"
#include "train/step.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET_BYTES = 25 << 20, WARMUP = 2, STEPS_MOST = 1000 };

typedef enum exchange { EXCHANGE_NONE, EXCHANGE_FP32, EXCHANGE_BF16, EXCHANGE_COUNT } exchange;

typedef struct ddp {
    exchange how;
    nd_status (*alone)(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces, int64_t count);
    const nd_params *params;
    void *bucket; /* BUCKET_BYTES */
    MPI_Op sum_bf16;
    int size;
    double seconds; /* in exchanges, of the step at hand */
} ddp;

static void sum_bf16(void *in, void *inout, int *count, MPI_Datatype *type)
{
    const uint16_t *restrict from = in;
    uint16_t *restrict into = inout;
    (void)type;
    for (int i = 0; i < *count; i++)
        into[i] = nd_bf16_from_float(nd_bf16_to_float(into[i]) + nd_bf16_to_float(from[i]));
}

static void fill(const ddp *d, int64_t at, const float *values, int64_t count)
{
    uint16_t *half = (uint16_t *)d->bucket + at;
    if (d->how == EXCHANGE_FP32)
        memcpy((float *)d->bucket + at, values, (size_t)count * sizeof *values);
    for (int64_t i = 0; d->how == EXCHANGE_BF16 && i < count; i++)
        half[i] = nd_bf16_from_float(values[i]);
}

static void empty(const ddp *d, int64_t at, float *values, int64_t count)
{
    const float share = 1.0f / (float)d->size;
    const float *whole = (const float *)d->bucket + at;
    const uint16_t *half = (const uint16_t *)d->bucket + at;
    for (int64_t i = 0; i < count; i++)
        values[i] = share * (d->how == EXCHANGE_FP32 ? whole[i] : nd_bf16_to_float(half[i]));
}

static nd_status sum_bucket(const ddp *d, int64_t count)
{
    const bool whole = d->how == EXCHANGE_FP32;
    if (MPI_Allreduce(MPI_IN_PLACE, d->bucket, (int)count, whole ? MPI_FLOAT : MPI_UINT16_T,
                      whole ? MPI_SUM : d->sum_bf16, MPI_COMM_WORLD) != MPI_SUCCESS)
        return ND_FAIL(ND_EPEER, "MPI_Allreduce failed");
    return ND_OK;
}

/* What a piece has in the bucket: [from, from + count) of its elements, at place `at` there. */
typedef struct span {
    int64_t piece, from, count, at;
} span;

static nd_status flush(const ddp *d, const nd_comm_piece *pieces, const span *spans, int count)
{
    int64_t used = 0;
    for (int i = 0; i < count; i++) {
        const nd_comm_piece *p = &pieces[spans[i].piece];
        const int64_t there = p->count - spans[i].from; /* less where it is padded */
        if (there > 0)
            fill(d, spans[i].at, p->result + spans[i].from,
                 there < spans[i].count ? there : spans[i].count);
        used = spans[i].at + spans[i].count;
    }
    ND_TRY(sum_bucket(d, used));
    for (int i = 0; i < count; i++) {
        const nd_comm_piece *p = &pieces[spans[i].piece];
        const int64_t there = p->count - spans[i].from;
        if (there > 0)
            empty(d, spans[i].at, p->result + spans[i].from,
                  there < spans[i].count ? there : spans[i].count);
    }
    return ND_OK;
}

/* Pieces are the gradients in the order of parameters. */
static nd_status exchange_all(const ddp *d, const nd_comm_piece *pieces)
{
    const int64_t capacity = BUCKET_BYTES / (d->how == EXCHANGE_FP32 ? 4 : 2);
    span spans[d->params->count + 1];
    int count = 0;
    int64_t used = 0;
    for (int64_t i = 0; i < d->params->count; i++) {
        const int64_t all = d->params->list[i].rows * d->params->list[i].cols;
        for (int64_t from = 0, some; from < all; from += some) {
            some = all - from < capacity - used ? all - from : capacity - used;
            spans[count++] = (span){i, from, some, used};
            used += some;
            if (used < capacity)
                continue;
            ND_TRY(flush(d, pieces, spans, count));
            used = count = 0;
        }
    }
    return count > 0 ? flush(d, pieces, spans, count) : ND_OK;
}

static nd_status reduce_over_all(nd_comm *comm, nd_comm_split split, nd_comm_piece *pieces,
                                 int64_t count)
{
    ddp *d = comm->context;
    ND_TRY(d->alone(comm, split, pieces, count));
    const double start = MPI_Wtime();
    if (d->how != EXCHANGE_NONE &&
        count == d->params->count) /* else a sketch, which is not exchanged */
        ND_TRY(exchange_all(d, pieces));
    d->seconds += MPI_Wtime() - start;
    return ND_OK;
}

static nd_status take_turns(nd_run *run, ddp *d, int64_t steps)
{
    static double times[EXCHANGE_COUNT][STEPS_MOST], exchanges[EXCHANGE_COUNT][STEPS_MOST];
    nd_step_result result;
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int64_t i = -WARMUP; i < steps; i++)
        for (int how = 0; how < EXCHANGE_COUNT; how++) {
            d->how = (exchange)how;
            d->seconds = 0.0;
            MPI_Barrier(MPI_COMM_WORLD);
            const double start = MPI_Wtime();
            ND_TRY(nd_step_run(run, false, &result));
            double mine[2] = {MPI_Wtime() - start, d->seconds}, longest[2];
            MPI_Allreduce(mine, longest, 2, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
            if (i >= 0) {
                times[how][i] = longest[0];
                exchanges[how][i] = longest[1];
            }
        }
    const double parameters = (double)nd_params_total(d->params);
    if (rank == 0)
        printf("{\"ranks\": %d, \"parameters\": %.0f, \"compute_ms\": %.4f, \"fp32_ms\": %.4f, "
               "\"fp32_allreduce_ms\": %.4f, \"fp32_bytes\": %.0f, \"bf16_ms\": %.4f, "
               "\"bf16_allreduce_ms\": %.4f, \"bf16_bytes\": %.0f}\n",
               d->size, parameters, 1e3 * median(times[EXCHANGE_NONE], (int)steps),
               1e3 * median(times[EXCHANGE_FP32], (int)steps),
               1e3 * median(exchanges[EXCHANGE_FP32], (int)steps),
               2.0 * (d->size - 1) * 4.0 * parameters,
               1e3 * median(times[EXCHANGE_BF16], (int)steps),
               1e3 * median(exchanges[EXCHANGE_BF16], (int)steps),
               2.0 * (d->size - 1) * 2.0 * parameters);
    return ND_OK;
}

static nd_status measure(nd_run *run, int64_t steps)
{
    ddp d = {.alone = run->comm->ops.reduce_to_owners,
             .params = &run->model->params,
             .bucket = malloc(BUCKET_BYTES)};
    ND_FAIL_IF(!d.bucket, ND_ENOMEM, "no memory for a bucket of gradients");
    if (nd_gradient_reducer_immediate(run->reducer)) {
        free(d.bucket);
        return ND_FAIL(ND_ECONFIG, "layers are updated during the backward pass; set "
                                   "training.grad_clip above 0");
    }
    setenv("OMPI_MCA_btl_tcp_links", "2", 0); /* as nd_comm_create_mpi does */
    MPI_Init(NULL, NULL);
    MPI_Comm_size(MPI_COMM_WORLD, &d.size);
    MPI_Op_create(sum_bf16, 1, &d.sum_bf16);
    run->comm->context = &d;
    run->comm->ops.reduce_to_owners = reduce_over_all;
    const nd_status status = take_turns(run, &d, steps);
    if (status != ND_OK) {
        fprintf(stderr, "bench_ddp: %s\n", nd_error_get()->message);
        MPI_Abort(MPI_COMM_WORLD, nd_error_exit_code(status));
    }
    run->comm->ops.reduce_to_owners = d.alone;
    run->comm->context = NULL;
    MPI_Op_free(&d.sum_bf16);
    MPI_Finalize();
    free(d.bucket);
    return status;
}

int main(int argc, char **argv)
{
    const bench_program program = {
        .name = "mpirun -np N bench_ddp",
        .summary = "Plain data-parallel training with all-reduced gradients, beside ours.",
        .count = "--steps",
        .count_most = STEPS_MOST,
        .measure = measure,
    };
    return bench_main(&program, argc, argv);
}
