#include "train/plan/plan.h"

#include "core/model/mtp.h"
#include "dist/reduction/gradient_wire.h"
#include "optim/mtp_schedule.h"
#include "train/approximations.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/plan/memory_advice.h"
#include "train/plan/operations.h"
#include "train/run/run_memory.h"
#include "train/snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

static const double gib = 1024.0 * 1024.0 * 1024.0;

static int64_t active_heads(const nd_config *config, nd_model_config *model, int64_t step)
{
    nd_mtp_weights(config, step, model->loss.offset_weight);
    return nd_mtp_active_heads(model);
}

static void count_operations(const nd_config *config, nd_model_config model, nd_plan *plan)
{
    const double tokens = (double)plan->tokens_per_step;
    const int64_t last = config->training.total_steps - 1;
    plan->flops_per_step = tokens * nd_model_operations(model, nd_mtp_active_heads(&model), 1.0);
    for (int64_t step = 0; step <= last;) {
        const int64_t heads = active_heads(config, &model, step);
        int64_t same = step, other = last + 1; /* the number of heads never grows */
        while (other - same > 1) {
            const int64_t middle = same + (other - same) / 2;
            *(active_heads(config, &model, middle) == heads ? &same : &other) = middle;
        }
        plan->flops_per_run +=
            tokens * nd_model_operations(model, heads, 1.0) * (double)(other - step);
        step = other;
    }
}

/* [hardware] cpu_isa may name another machine's; auto means this one. */
static bool has_slow_bf16(const nd_run *run)
{
    const nd_cpu_isa isa = (nd_cpu_isa)run->config.hardware.cpu_isa;
    const bool fast =
        isa == ND_CPU_ISA_AUTO ? run->backend->traits.fast_bf16 : isa >= ND_CPU_ISA_AVX512_BF16;
    return run->config.hardware.target != ND_TARGET_CUDA &&
           run->config.hardware.precision == ND_PRECISION_BF16 && !fast;
}

/* All memory of a rank: its categories, loader, and workspace where measured. */
static size_t rank_bytes(const nd_plan *plan, int rank)
{
    size_t total = plan->loader + plan->workspace;
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        total += plan->bytes[rank][i];
    return total;
}

static void add_rank(const nd_run *run, int rank, nd_plan *plan)
{
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        plan->bytes[rank][i] = run->arenas[i].used;
    if (rank_bytes(plan, rank) > rank_bytes(plan, plan->fullest))
        plan->fullest = rank;
    const size_t copy = nd_save_copy_bytes(run);
    plan->saved_copy = copy > plan->saved_copy ? copy : plan->saved_copy;
    const size_t snapshot = nd_snapshot_share_bytes(run);
    plan->snapshot = snapshot > plan->snapshot ? snapshot : plan->snapshot;
    plan->snapshots += snapshot;
}

/* What is the same on all ranks. */
static void add_common(const nd_run *run, const nd_config *config, nd_plan *plan)
{
    const nd_loader_options loader = nd_run_loader_options(run);
    const nd_params *params = &run->model->params;
    plan->loader = nd_loader_planned_bytes(&loader, config->training.seq_length);
    plan->parameters = nd_params_total(params);
    plan->parameters_ternary = nd_params_ternary(params);
    plan->tokens_per_step = config->training.batch_size * config->training.seq_length;
    count_operations(config, run->model->config, plan);
    plan->wire = nd_wire_bytes_of(run);
    plan->slow_bf16 = has_slow_bf16(run);
}

static nd_status plan_rank(const nd_config *config, int rank, nd_backend *backend, nd_plan *plan)
{
    nd_comm comm = {.rank = rank, .size = plan->ranks, .local_size = 1};
    nd_run run = {.config = *config, .comm = &comm, .backend = backend};
    nd_status status = nd_run_prepare(&run);
    ND_IF_OK(nd_run_memory_measure(&run));
    if (status == ND_OK)
        add_rank(&run, rank, plan);
    if (status == ND_OK && rank == 0)
        add_common(&run, config, plan);
    backend->log = NULL;
    run.backend = NULL; /* of all ranks */
    nd_run_destroy(&run);
    return status;
}

nd_status nd_plan_create(const nd_config *config, int ranks, nd_plan *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->ranks = ranks;
    plan->bytes = calloc((size_t)ranks, sizeof *plan->bytes);
    ND_FAIL_IF(!plan->bytes, ND_ENOMEM, "no memory for a plan of %d ranks", ranks);
    /* A plan needs no device. */
    nd_backend *backend;
    const nd_cpu_backend_options options = {.threads = 1};
    ND_TRY(nd_cpu_backend_create(&options, &backend));
    nd_status status = ND_OK;
    for (int rank = 0; rank < ranks; rank++)
        ND_IF_OK(plan_rank(config, rank, backend, plan));
    nd_backend_destroy(backend);
    return status;
}

void nd_plan_destroy(nd_plan *plan)
{
    free(plan->bytes);
    memset(plan, 0, sizeof *plan);
}

static void print_wire(const nd_plan *plan, const nd_config *config, FILE *out)
{
    static const char *const weights[] = {"full", "full_base3", "delta (about)"};
    static const char *const dense[] = {"full", "int8_delta"};
    const nd_wire_bytes *w = &plan->wire;
    const double mb = 1e6, parameters = (double)plan->parameters, all = nd_wire_bytes_sum(w);
    char approximate[128];
    nd_wire_approximations(config, plan->ranks, approximate, sizeof approximate);
    fprintf(out, "wire a step (MB)  sent by all ranks\n");
    fprintf(out, "  gradients    %10.3f  %s\n", w->gradients / mb,
            nd_gradient_wire_name((nd_gradient_wire)config->dist.grad_comm_dtype));
    fprintf(out, "  sketches     %10.3f\n", w->sketches / mb);
    fprintf(out, "  codes        %10.3f  %s\n", w->codes / mb, weights[config->dist.weight_sync]);
    fprintf(out, "  dense        %10.3f  %s\n", w->dense / mb, dense[config->dist.embedding_sync]);
    fprintf(out, "  projectors   %10.3f\n", w->projectors / mb);
    fprintf(out, "  reports      %10.3f\n", w->reports / mb);
    if (nd_config_has_rounds(config))
        fprintf(out, "  outer step   %10.3f  of %lld workers, every %lld steps\n", w->outer / mb,
                (long long)config->dist.workers, (long long)config->dist.sync_every);
    fprintf(out,
            "  sum          %10.3f  %.3f bytes a parameter, %.3f of them a rank (an all-reduce of "
            "bf16 gradients in a ring: %.3f a rank)\n",
            all / mb, all / parameters, all / parameters / plan->ranks,
            4.0 * (plan->ranks - 1) / plan->ranks);
    if (approximate[0])
        fprintf(out, "  approximate: %s\n", approximate);
}

/* A host holds its ranks' snapshots and, with copies, as much from another host. */
static void print_snapshots(const nd_plan *plan, const nd_config *config, FILE *out)
{
    static const char *const copies[] = {"twice that with several hosts, for copies", "with copies",
                                         "no copies"};
    const double mib = 1024.0 * 1024.0;
    /* one rank has no other to keep its copy */
    const int buddy =
        plan->ranks == 1 ? ND_SNAPSHOT_BUDDY_OFF : (int)config->logging.snapshot_buddy;
    const bool always = buddy == ND_SNAPSHOT_BUDDY_ALWAYS;
    if (config->logging.snapshot_interval == 0)
        return;
    fprintf(out, "snapshots (MiB)  %.1f of the fullest rank, %.1f of all, %s; in %s\n",
            (double)plan->snapshot * (always ? 2.0 : 1.0) / mib,
            (double)plan->snapshots * (always ? 2.0 : 1.0) / mib, copies[buddy],
            config->logging.snapshot_dir[0] ? config->logging.snapshot_dir : "/dev/shm");
    if (config->logging.snapshot_memory > 0)
        fprintf(out, "  of which a host may hold %lld ([logging] snapshot_memory)\n",
                (long long)config->logging.snapshot_memory);
    fprintf(out, "\n");
}

void nd_plan_print(const nd_plan *plan, const nd_config *config, size_t device_memory, FILE *out)
{
    const double mib = 1024.0 * 1024.0;
    const double parameters = (double)plan->parameters;
    fprintf(out, "%.2fM parameters, %.2fM of them ternary; %lld tokens a step on %d rank%s\n\n",
            parameters * 1e-6, (double)plan->parameters_ternary * 1e-6,
            (long long)plan->tokens_per_step, plan->ranks, plan->ranks == 1 ? "" : "s");
    fprintf(out, "memory (MiB)     rank 0   fullest (rank %d)\n", plan->fullest);
    for (int i = 0; i < ND_MEMORY_COUNT; i++)
        fprintf(out, "  %-12s %9.1f %9.1f\n", nd_memory_category_name((nd_memory_category)i),
                (double)plan->bytes[0][i] / mib, (double)plan->bytes[plan->fullest][i] / mib);
    fprintf(out, "  %-12s %9.1f %9.1f\n", "loader", (double)plan->loader / mib,
            (double)plan->loader / mib);
    if (plan->workspace > 0)
        fprintf(out, "  %-12s %9.1f %9.1f\n", "workspace", (double)plan->workspace / mib,
                (double)plan->workspace / mib);
    fprintf(out, "  %-12s %9.1f %9.1f\n", "sum", (double)rank_bytes(plan, 0) / mib,
            (double)rank_bytes(plan, plan->fullest) / mib);
    fprintf(out, "  beside these: the program with its libraries%s\n",
            plan->workspace > 0 ? "" : ", and the backend's workspace (--workspace measures it)");
    if (config->logging.checkpoint_async)
        fprintf(out,
                "  on a GPU also %.1f MiB of the host's memory, a copy of masters and state while "
                "a checkpoint is written\n",
                (double)plan->saved_copy / mib);
    fprintf(out, "\n");
    print_snapshots(plan, config, out);
    print_wire(plan, config, out);
    fprintf(out, "arithmetic       %.3g FLOP a step, %.3g over the run\n", plan->flops_per_step,
            plan->flops_per_run);
    if (plan->slow_bf16)
        fprintf(out, "precision        bf16 saves memory here, not time: the CPU has no bf16 "
                     "products that are faster than fp32's; precision = auto takes fp32\n");
    if (device_memory == 0)
        return;
    const double need = (double)rank_bytes(plan, plan->fullest);
    const bool fits = need <= (double)device_memory;
    fprintf(out, "\n%.2f GiB of %.2f GiB: %s\n", need / gib, (double)device_memory / gib,
            fits ? "fits" : "does not fit; what would help:");
    if (!fits)
        nd_memory_advise(config, plan->bytes[plan->fullest], out);
}
