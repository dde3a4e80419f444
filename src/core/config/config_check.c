/* Checks between keys. */
#include "core/config/config.h"

static nd_status check_shape(const nd_config *c)
{
    ND_FAIL_IF(c->model.hidden_dim % c->model.num_heads != 0, ND_ECONFIG,
               "[model] num_heads = %lld does not divide hidden_dim = %lld",
               (long long)c->model.num_heads, (long long)c->model.hidden_dim);
    ND_FAIL_IF(c->model.num_heads % c->model.num_kv_heads != 0, ND_ECONFIG,
               "[model] num_kv_heads = %lld does not divide num_heads = %lld",
               (long long)c->model.num_kv_heads, (long long)c->model.num_heads);
    ND_FAIL_IF(c->model.hidden_dim / c->model.num_heads % 2 != 0, ND_ECONFIG,
               "[model] hidden_dim / num_heads = %lld is odd; rotary positions rotate pairs",
               (long long)(c->model.hidden_dim / c->model.num_heads));
    ND_FAIL_IF(nd_config_ffn_dim(c) < 1, ND_ECONFIG,
               "[model] ffn_mult * hidden_dim = %g rounds to 0",
               c->model.ffn_mult * (double)c->model.hidden_dim);
    ND_FAIL_IF(c->model.arch == ND_ARCH_BITNET && !c->model.tie_embeddings, ND_ECONFIG,
               "[model] tie_embeddings = false contradicts arch = bitnet, whose graph has no "
               "separate head; use arch = llama");
    const int64_t group = c->model.group_size;
    ND_FAIL_IF(
        group > 0 && (c->model.hidden_dim % group != 0 || nd_config_ffn_dim(c) % group != 0),
        ND_ECONFIG,
        "[model] group_size = %lld must divide hidden_dim = %lld and the feed-forward width %lld",
        (long long)group, (long long)c->model.hidden_dim, (long long)nd_config_ffn_dim(c));
    return ND_OK;
}

static nd_status check_collider(const nd_config *c)
{
    const bool named = c->training.collider_reference[0] != '\0';
    ND_FAIL_IF(nd_config_uses_reference(c) && !named, ND_ECONFIG,
               "[training] collider_rule = excess needs collider_reference = CHECKPOINT, the model "
               "whose losses are the reference");
    ND_FAIL_IF(named && c->training.collider_rule != ND_COLLIDER_EXCESS, ND_ECONFIG,
               "[training] collider_reference = %s is not used with collider_rule = %s; use "
               "collider_rule = excess, or leave the reference out",
               c->training.collider_reference,
               c->training.collider_rule == ND_COLLIDER_LOSS ? "loss" : "sample");
    ND_FAIL_IF(c->training.collider_from >= c->training.collider_until &&
                   c->training.collider_until > 0.0,
               ND_ECONFIG,
               "[training] collider_from = %g is not below collider_until = %g; tokens are "
               "filtered between the two, as parts of the run",
               c->training.collider_from, c->training.collider_until);
    return ND_OK;
}

static nd_status check_training(const nd_config *c)
{
    ND_FAIL_IF(c->training.seq_length > c->model.max_seq_len, ND_ECONFIG,
               "[training] seq_length = %lld is longer than [model] max_seq_len = %lld",
               (long long)c->training.seq_length, (long long)c->model.max_seq_len);
    const int64_t micro = c->training.micro_batch_size;
    ND_FAIL_IF(micro > 0 && c->training.batch_size % micro != 0, ND_ECONFIG,
               "[training] micro_batch_size = %lld does not divide batch_size = %lld",
               (long long)micro, (long long)c->training.batch_size);
    return ND_OK;
}

static nd_status check_optimizer(const nd_config *c)
{
    const int bits = nd_config_state_bits(c);
    ND_FAIL_IF(bits == 4 && c->training.optimizer_type != ND_OPTIMIZER_MUON, ND_ECONFIG,
               "[optimizer] state_bits = 4 is for the momentum of Muon, but [training] "
               "optimizer_type = adamw; use state_bits = 8");
    if (c->training.use_galore && c->optimizer.galore_residual > 0.0 &&
        c->training.optimizer_type != ND_OPTIMIZER_MUON)
        return ND_FAIL(ND_ECONFIG,
                       "[optimizer] galore_residual = %g is for Muon, but [training] "
                       "optimizer_type = adamw; use galore_residual = 0",
                       c->optimizer.galore_residual);
    return ND_OK;
}

static nd_status check_wire(const nd_config *c)
{
    char dtype[16];
    nd_config_value(c, "dist", "grad_comm_dtype", dtype, sizeof dtype);
    ND_FAIL_IF(c->dist.grad_comm_dtype != ND_GRADIENT_WIRE_FP32 &&
                   c->dist.deterministic == ND_DETERMINISTIC_WORLD,
               ND_ECONFIG,
               "[dist] grad_comm_dtype = %s contradicts deterministic = world: what is rounded "
               "between ranks depends on how many there are, so the bits do too; use "
               "deterministic = off, or grad_comm_dtype = fp32",
               dtype);
    return ND_OK;
}

/* The number of workers affects results, so the check must not depend on the number of ranks. */
static nd_status check_workers(const nd_config *c)
{
    const int64_t workers = c->dist.workers, batch = c->training.batch_size;
    const int64_t micro = nd_config_micro_batch(c);
    ND_FAIL_IF(batch % workers != 0 || batch / workers % micro != 0, ND_ECONFIG,
               "[training] batch_size = %lld in micro-batches of %lld cannot be shared "
               "evenly by [dist] workers = %lld; choose a batch_size that is a multiple of %lld, "
               "or fewer workers",
               (long long)batch, (long long)micro, (long long)workers,
               (long long)(workers * micro));
    ND_FAIL_IF(nd_config_has_rounds(c) && c->dist.group_ranks > 0, ND_ECONFIG,
               "[dist] group_ranks = %lld contradicts workers = %lld with sync_every = %lld: the "
               "ranks of a worker are one group; use group_ranks = 0",
               (long long)c->dist.group_ranks, (long long)workers, (long long)c->dist.sync_every);
    return ND_OK;
}

/* The choices differ only in which ranks add. */
static nd_status check_reduction(const nd_config *c)
{
    char dtype[16];
    nd_config_value(c, "dist", "grad_comm_dtype", dtype, sizeof dtype);
    if (c->dist.grad_reduction == ND_REDUCTION_OWNERS)
        return ND_OK;
    ND_FAIL_IF(c->dist.deterministic == ND_DETERMINISTIC_WORLD, ND_ECONFIG,
               "[dist] grad_reduction = allreduce contradicts deterministic = world: NCCL adds in "
               "an order that depends on how many ranks there are; use deterministic = off, or "
               "grad_reduction = owners");
    return ND_CHECK(
        c->dist.grad_comm_dtype == ND_GRADIENT_WIRE_FP32, ND_ECONFIG,
        "[dist] grad_reduction = allreduce contradicts grad_comm_dtype = %s: NCCL adds fp32, "
        "without error feedback; use grad_comm_dtype = fp32, or grad_reduction = owners",
        dtype);
}

/* What needs a GPU, by the target or, if `here`, by what this build has. */
static nd_status check_devices(const nd_config *c, bool here)
{
    const bool on_cpu = c->hardware.target == ND_TARGET_CPU;
    const bool no_nccl = here && !ND_HAVE_NCCL, no_cudnn = here && !ND_HAVE_CUDNN;
    ND_FAIL_IF(c->dist.grad_reduction == ND_REDUCTION_ALLREDUCE && (on_cpu || no_nccl), ND_ECONFIG,
               "[dist] grad_reduction = allreduce is NCCL's and needs GPUs, but %s: between CPUs "
               "every rank would send and receive each gradient twice for a sum that only its "
               "owner needs; use grad_reduction = owners",
               no_nccl ? "this build has no NCCL" : "[hardware] target = cpu");
    ND_FAIL_IF(c->hardware.attention_backend == ND_ATTENTION_CUDNN && (on_cpu || no_cudnn),
               ND_ECONFIG,
               "[hardware] attention_backend = cudnn needs a GPU and a build with cuDNN, but %s; "
               "use attention_backend = auto",
               on_cpu ? "[hardware] target = cpu" : "this build has no cuDNN");
    return ND_CHECK(
        !here || c->hardware.target != ND_TARGET_CUDA || ND_HAVE_CUDA, ND_ECONFIG,
        "[hardware] target = cuda: this build has no CUDA backend; use target = cpu or auto");
}

static nd_status check_hardware(const nd_config *c)
{
    ND_FAIL_IF(
        c->hardware.backward_precision == ND_BACKWARD_INT8 && c->model.group_size > 0, ND_ECONFIG,
        "[hardware] backward_precision = int8 contradicts [model] group_size = %lld: its exact "
        "sums need one scale a matrix; use group_size = 0 or backward_precision = same",
        (long long)c->model.group_size);
    ND_FAIL_IF(c->hardware.cuda_graphs && c->hardware.target == ND_TARGET_CPU, ND_ECONFIG,
               "[hardware] cuda_graphs = true contradicts target = cpu, where ops are run as they "
               "are called; use cuda_graphs = false");
    return ND_CHECK(c->hardware.attention_backend != ND_ATTENTION_CUDNN ||
                        c->hardware.precision != ND_PRECISION_FP32,
                    ND_ECONFIG,
                    "[hardware] attention_backend = cudnn contradicts precision = fp32: cuDNN's "
                    "attention computes in bf16; use attention_backend = auto or precision = bf16");
}

static nd_status check_keys(const nd_config *c, bool here)
{
    ND_TRY(check_shape(c));
    ND_FAIL_IF(c->data.dataset == ND_DATASET_SYNTHETIC && c->model.vocab_size < 4, ND_ECONFIG,
               "[model] vocab_size = %lld: synthetic data needs 4 or more",
               (long long)c->model.vocab_size);
    ND_TRY(check_training(c));
    ND_TRY(check_collider(c));
    ND_TRY(check_wire(c));
    ND_TRY(check_workers(c));
    ND_TRY(check_reduction(c));
    ND_TRY(check_devices(c, here));
    ND_TRY(check_hardware(c));
    return check_optimizer(c);
}

nd_status nd_config_check_model(const nd_config *c)
{
    return check_keys(c, false);
}

nd_status nd_config_check(const nd_config *c)
{
    ND_TRY(check_keys(c, true));
    ND_FAIL_IF(
        c->data.dataset == ND_DATASET_SHARDS && c->data.data_path[0] == '\0', ND_ECONFIG,
        "[data] data_path is empty; name a directory of packed shards, or use dataset = synthetic");
    return ND_CHECK(c->logging.run_dir[0] != '\0', ND_ECONFIG,
                    "[logging] run_dir is empty; name a directory for what the run leaves");
}
