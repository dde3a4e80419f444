#include "core/config/config_keys.h"

#include "core/base/edit_distance.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#define AT(member) offsetof(nd_config, member)

#define INT(section, name, low, high, def, help)                                                   \
    {                                                                                              \
#section, #name, ND_KEY_INT, AT(section.name), low, high, def, NULL, help                  \
    }
#define DOUBLE(section, name, low, high, def, help)                                                \
    {                                                                                              \
#section, #name, ND_KEY_DOUBLE, AT(section.name), low, high, def, NULL, help               \
    }
#define BOOL(section, name, def, help)                                                             \
    {                                                                                              \
#section, #name, ND_KEY_BOOL, AT(section.name), 0, 1, def, NULL, help                      \
    }
#define CHOICE(section, name, choices, def, help)                                                  \
    {                                                                                              \
#section, #name, ND_KEY_CHOICE, AT(section.name), 0, 0, def, choices, help                 \
    }
#define TEXT(section, name, def, help)                                                             \
    {                                                                                              \
#section, #name, ND_KEY_TEXT, AT(section.name), 0, 0, def, NULL, help                      \
    }

#define MAX_COUNT 9007199254740992.0

const nd_config_key nd_config_keys[] = {
    CHOICE(model, arch, "bitnet|llama", "bitnet",
           "graph: bitnet (sub-norms, rope on halves, tied head) or llama"),
    INT(model, hidden_dim, 1, 65536, "512", "width of the residual stream"),
    INT(model, num_layers, 1, 1024, "6", "transformer layers"),
    INT(model, num_heads, 1, 1024, "8", "query heads; divides hidden_dim"),
    INT(model, num_kv_heads, 1, 1024, "4", "key and value heads; divides num_heads"),
    DOUBLE(model, ffn_mult, 0.01, 64, "3.5", "feed-forward width as a multiple of hidden_dim"),
    INT(model, max_seq_len, 1, 1048576, "2048", "longest context the model is meant for"),
    INT(model, vocab_size, 2, 16777216, "32000",
        "tokens in the vocabulary: that of the tokenizer the data was packed with"),
    INT(model, group_size, 0, 65536, "0",
        "inputs that share one ternary scale; 0 is one scale per matrix"),
    BOOL(model, tie_embeddings, "true", "the head is the token embedding; bitnet needs it"),
    DOUBLE(model, rope_base, 1, 1e9, "10000", "base of the rotary angles"),

    INT(training, total_steps, 1, MAX_COUNT, "10000", "optimizer steps of the run"),
    INT(training, batch_size, 1, 1048576, "16", "sequences per step, over all ranks"),
    INT(training, micro_batch_size, 0, 1048576, "0",
        "sequences computed at once; 0 is the largest power of two that leaves at least 8 "
        "micro-batches, else 1"),
    INT(training, seq_length, 1, 1048576, "2048", "tokens per sequence"),
    DOUBLE(training, learning_rate, 0, 100, "0.02", "peak rate of the ternary matrices"),
    INT(training, warmup_steps, 0, MAX_COUNT, "1000", "steps of linear warm-up, from step 0"),
    DOUBLE(training, weight_decay, 0, 10, "0.01", "decoupled weight decay of the matrices"),
    DOUBLE(training, grad_clip, 0, 1e9, "1.0",
           "clip the global gradient norm to this; 0 is no clipping"),
    DOUBLE(training, entropy_weight, 0, 10, "0.0",
           "weight of the entropy of the predicted distribution, subtracted from the loss"),
    DOUBLE(training, label_smoothing, 0, 0.999, "0.0",
           "fraction of the target spread over all tokens"),
    DOUBLE(training, z_loss_weight, 0, 10, "0.0", "weight of the squared log-partition function"),
    CHOICE(training, optimizer_type, "muon|adamw", "muon", "optimizer of the ternary matrices"),
    DOUBLE(training, muon_momentum, 0, 0.99999, "0.95", "momentum of Muon"),
    CHOICE(training, schedule_type, "wsd|cosine|constant", "wsd", "learning-rate schedule"),
    DOUBLE(training, stable_ratio, 0, 1, "0.8", "wsd: fraction of the run before the decay"),
    DOUBLE(training, min_lr_ratio, 0, 1, "0.1", "final learning rate as a fraction of the peak"),
    INT(training, max_skipped_steps, 0, MAX_COUNT, "3",
        "consecutive skipped steps (non-finite values or a loss spike) before the run rolls back "
        "to its newest checkpoint and skips their data"),
    INT(training, max_rollbacks, 0, MAX_COUNT, "2",
        "rollbacks before the run ends with exit code 6"),
    DOUBLE(training, loss_spike_zscore, 0, 1e6, "0",
           "skip a step whose loss is this many standard deviations above the last 64; 0 is off"),
    BOOL(training, use_mtp, "false", "predict several tokens ahead"),
    CHOICE(training, mtp_form, "shared|sequential|separate", "shared",
           "what predicts the further tokens: shared, the same logits; sequential, one more layer "
           "each; separate, one head each"),
    INT(training, mtp_n_tokens, 2, 8, "4", "tokens predicted ahead, the next one included"),
    DOUBLE(training, mtp_weight, 0, 100, "0.2",
           "weight of the second token; each further one weighs half of the one before"),
    CHOICE(training, mtp_schedule, "constant|linear|thirds", "thirds",
           "weights over the run: constant; linear to 0; or all, half and none of the further "
           "tokens by thirds of the run"),
    DOUBLE(training, mtp_until, 0, 1, "1",
           "fraction of the run after which no further tokens are predicted"),
    BOOL(training, use_collider, "false",
         "Collider: run the backward pass on a part of the tokens"),
    CHOICE(
        training, collider_rule, "sample|loss|excess", "sample",
        "which tokens are kept: sample, drawn by gradient norm and weighted so that the expected "
        "gradient is that of all tokens; loss, those with the highest loss; excess, those with "
        "the highest loss above a reference model's"),
    TEXT(training, collider_reference, "", "excess: checkpoint of the reference model"),
    DOUBLE(training, collider_threshold, 0, 1, "0.3",
           "loss and excess: importance, the loss normalized over a micro-batch, below which a "
           "token may be filtered"),
    DOUBLE(training, collider_sparsity, 0, 0.999, "0.35",
           "fraction of a micro-batch that is filtered: exactly with sample, at most otherwise"),
    DOUBLE(training, collider_from, 0, 1, "0",
           "fraction of the run before which no tokens are filtered"),
    DOUBLE(training, collider_until, 0, 1, "0.6",
           "fraction of the run after which no tokens are filtered"),
    BOOL(training, use_async_loader, "true", "read batches ahead in worker threads"),
    INT(training, num_workers, 1, 256, "2", "reader threads per rank"),
    INT(training, prefetch_batches, 1, 4096, "8", "batches to read ahead"),
    BOOL(training, use_galore, "false",
         "project the gradients of matrices into a subspace and keep optimizer state there"),
    INT(training, galore_rank, 1, 65536, "256",
        "rank of the projection; matrices with a side up to it stay full rank"),
    INT(training, galore_update_freq, 1, MAX_COUNT, "200", "steps between new subspaces"),
    INT(training, seed, 0, MAX_COUNT, "1234", "seed of the initial weights and the sample order"),

    DOUBLE(optimizer, embedding_lr, 0, 100, "0.003", "peak AdamW rate of the token embedding"),
    DOUBLE(optimizer, head_lr, 0, 100, "0.003", "peak AdamW rate of an untied head"),
    DOUBLE(optimizer, norm_lr, 0, 100, "0.003", "peak AdamW rate of the norms"),
    DOUBLE(optimizer, adam_beta1, 0, 0.99999, "0.9", "AdamW first moment"),
    DOUBLE(optimizer, adam_beta2, 0, 0.999999, "0.95", "AdamW second moment"),
    DOUBLE(optimizer, adam_epsilon, 1e-30, 1, "1e-8", "AdamW epsilon"),
    CHOICE(optimizer, orthogonalization, "newton_schulz|polar_express", "newton_schulz",
           "Muon's iteration"),
    INT(optimizer, orthogonalization_steps, 1, 20, "5", "iterations of Muon's orthogonalization"),
    BOOL(optimizer, nesterov, "true", "Muon looks one momentum step ahead"),
    BOOL(optimizer, cautious_weight_decay, "true",
         "decay a weight only where the update also shrinks it"),
    CHOICE(optimizer, master_precision, "fp32|bf16", "fp32",
           "type of the master weights; bf16 rounds stochastically"),
    CHOICE(optimizer, state_bits, "32|8|4", "32",
           "bits of optimizer state; 4 is for Muon's momentum and keeps AdamW's moments in 8 bits. "
           "[training] use_8bit_optim = true|false, the E3 suite's name, means 8 or 32"),
    CHOICE(optimizer, galore_projector_bits, "auto|32|8", "auto",
           "bits of GaLore's projectors: auto is 32 where optimizer state is, else 8"),
    DOUBLE(optimizer, galore_scale, 0, 100, "1.0", "factor of GaLore's updates"),
    DOUBLE(optimizer, galore_residual, 0, 100, "0.0",
           "factor of the gradient outside the subspace, orthogonalized without momentum and added "
           "to GaLore's update; above 0 full gradients are sent to their owners"),

    CHOICE(data, dataset, "shards|synthetic", "shards", "where tokens come from"),
    TEXT(data, data_path, "", "directory of packed shards"),
    INT(data, n_samples, 1, MAX_COUNT, "4096", "synthetic: sequences in the data set"),
    INT(data, epochs, 0, MAX_COUNT, "0",
        "stop after this many passes over the data, or at total_steps if that is earlier; 0 is no "
        "limit"),

    CHOICE(hardware, target, "auto|cpu|cuda", "auto", "where to compute"),
    BOOL(hardware, gradient_checkpointing, "false",
         "keep each layer's input and attention output, and recompute the rest in the backward "
         "pass"),
    BOOL(hardware, recompute_attention, "false",
         "with gradient_checkpointing: recompute attention too, and keep each layer's input only"),
    BOOL(hardware, recompute_ffn, "false",
         "recompute the gate and up projections, about half of a layer's activations, and keep the "
         "rest (gradient_checkpointing recomputes them too)"),
    BOOL(hardware, pack_ternary_weights, "false",
         "store ternary weights in 2 bits and unpack a matrix for each product"),
    BOOL(hardware, cuda_graphs, "false",
         "on a GPU: record a micro-batch's ops once and replay them as one graph (not with "
         "use_collider or mtp_form = separate)"),
    CHOICE(hardware, attention_backend, "auto|cudnn|builtin", "auto",
           "attention in bf16 on a GPU: cudnn, builtin (this program's kernel), or auto: cuDNN's "
           "where it is installed and supports the shape"),
    CHOICE(hardware, precision, "fp32|bf16|auto", "auto",
           "type of activations and backward products; auto is bf16 where the machine multiplies "
           "it faster than fp32 (elsewhere bf16 saves memory and no time)"),
    CHOICE(
        hardware, backward_precision, "same|int8|auto", "auto",
        "type of the backward products of ternary weights: as precision, or int8 with a scale per "
        "token (input gradients) and per output and 1024 tokens (weight gradients); auto is int8 "
        "where its exact products are faster and group_size is 0"),
    INT(hardware, threads, 0, 4096, "0",
        "threads per rank; 0 divides the machine's cores evenly among its ranks, and takes fewer "
        "while other work makes that faster"),
    CHOICE(hardware, cpu_isa,
           "auto|generic|dotprod|avx2|avx2_vnni|avx512|avx512_vnni|avx512_bf16|amx", "auto",
           "highest instruction set the program and oneDNN use; auto is all that the CPU has"),

    CHOICE(dist, deterministic, "off|world", "world",
           "world: sum micro-batches in a fixed tree, the same bits on any number of ranks"),
    BOOL(dist, overlap_grad_reduce, "true",
         "gradient reduction overlaps the backward pass, and sending weights the update; in exact "
         "formats the result is the same to the bit"),
    INT(dist, group_ranks, 0, 1 << 20, "0",
        "consecutive ranks that form a group: it has one owner of each matrix, which sends codes "
        "to it alone, and groups hold equal copies; 0: chosen by the predicted step on several "
        "hosts, else all ranks"),
    CHOICE(dist, part_kib, "auto|16|32|64|128|256", "auto",
           "KiB of the parts in which long messages pass between ranks; auto: 256, or less where "
           "groups are chosen and the predicted step is shorter with it (NCCL has parts of its "
           "own)"),
    CHOICE(dist, grad_reduction, "owners|allreduce", "owners",
           "owners: each gradient is reduced to the rank that owns it; allreduce: NCCL's "
           "all-reduce (GPUs only, with deterministic = off and grad_comm_dtype = fp32)"),
    CHOICE(dist, grad_comm_dtype, "fp32|bf16|int8", "fp32",
           "type of gradients between ranks: fp32 is exact; bf16 and int8 (in blocks) round, "
           "with error feedback, and need deterministic = off"),
    CHOICE(dist, grad_compression, "off|on|auto", "auto",
           "send exact gradients between hosts in about 0.86 of their bytes, the same to the bit; "
           "auto: while the link is slower than 4 Gbit/s and computation does not hide it (not on "
           "GPUs)"),
    CHOICE(dist, weight_sync, "full|full_base3|delta", "full",
           "how ternary weights reach the other ranks after an update, always exact: all at 2 "
           "bits, all at five to a byte, or only those that changed"),
    CHOICE(dist, embedding_sync, "full|int8_delta", "full",
           "the same for the embedding and the head: full sends them whole in the type of "
           "activations; int8_delta sends their change, rounded to int8 with error feedback"),
    INT(dist, workers, 1, 4096, "1",
        "workers that train apart, each on its part of the batch, whatever the number of ranks"),
    INT(dist, sync_every, 1, MAX_COUNT, "1",
        "steps between synchronizations of workers: an outer step with their mean change"),
    DOUBLE(dist, outer_lr, 0, 100, "1", "rate of the outer Nesterov step"),
    DOUBLE(dist, outer_momentum, 0, 0.9999, "0.5", "momentum of the outer Nesterov step"),
    CHOICE(dist, outer_comm_dtype, "fp32|int8|int4", "fp32",
           "type of changes between workers: int8 and int4 round in blocks, with error feedback; "
           "the bits do not depend on the number of ranks"),
    CHOICE(dist, outer_state_bits, "32|8", "32", "bits of an element of the outer momentum"),
    DOUBLE(dist, timeout_seconds, 1, 86400, "600",
           "how long a rank waits for another before the job ends with exit code 5"),
    INT(dist, replica_check_interval, 0, MAX_COUNT, "100",
        "steps between comparisons of the ranks' weights; one more precedes each checkpoint; 0 is "
        "off"),

    TEXT(logging, run_dir, "runs/default", "where the run writes its files"),
    TEXT(logging, checkpoint_dir, "", "checkpoints; empty is <run_dir>/checkpoints"),
    INT(logging, log_interval, 1, MAX_COUNT, "10", "steps between progress lines"),
    INT(logging, eval_interval, 0, MAX_COUNT, "250",
        "steps between evaluations; 0 is only the end"),
    INT(logging, eval_samples, 0, MAX_COUNT, "64", "held-out sequences per evaluation; 0 is all"),
    INT(logging, checkpoint_interval, 0, MAX_COUNT, "500",
        "steps between checkpoints; 0 is only the end"),
    BOOL(logging, checkpoint_at_end, "true", "write a checkpoint after the last step"),
    BOOL(logging, checkpoint_async, "true", "write checkpoints in the background"),
    INT(logging, checkpoint_keep, 0, MAX_COUNT, "3", "newest checkpoints kept; 0 keeps all"),
    INT(logging, max_failed_saves, 1, MAX_COUNT, "3",
        "scheduled checkpoints that may fail in a row before the run ends"),
    INT(logging, snapshot_interval, 0, MAX_COUNT, "0",
        "steps between snapshots in memory, from which --resume auto resumes after a crash; 0 is "
        "off"),
    TEXT(logging, snapshot_dir, "",
         "where snapshots go, in memory: empty is /dev/shm/nanochat_dist-<user's number>"),
    INT(logging, snapshot_memory, 0, MAX_COUNT, "0",
        "MiB of each host's memory that snapshots may take; 0 is what the file system gives"),
    CHOICE(logging, snapshot_buddy, "other_host|always|off", "other_host",
           "which ranks keep a copy of another rank's part of a snapshot: other_host where there "
           "are several hosts, always also on one host, off none"),
    BOOL(logging, tensorboard, "true", "write TensorBoard event files"),
};
const int nd_config_key_count = sizeof nd_config_keys / sizeof nd_config_keys[0];

const nd_config_key *nd_config_key_find(const char *section, const char *name)
{
    for (int i = 0; i < nd_config_key_count; i++)
        if (strcasecmp(nd_config_keys[i].section, section) == 0 &&
            strcasecmp(nd_config_keys[i].name, name) == 0)
            return &nd_config_keys[i];
    return NULL;
}

const nd_config_key *nd_config_key_nearest(const char *section, const char *name)
{
    const nd_config_key *best = NULL;
    int best_distance = 0;
    for (int i = 0; i < nd_config_key_count; i++) {
        const nd_config_key *key = &nd_config_keys[i];
        const int edits = nd_name_distance(name, key->name);
        const int distance = 2 * edits + (strcasecmp(section, key->section) != 0);
        if (edits >= 0 && (!best || distance < best_distance)) {
            best = key;
            best_distance = distance;
        }
    }
    return best;
}

int nd_config_choice_index(const char *choices, const char *value)
{
    const size_t length = strlen(value);
    int index = 0;
    for (const char *at = choices; at; index++) {
        const char *end = strchr(at, '|');
        const size_t size = end ? (size_t)(end - at) : strlen(at);
        if (size == length && strncasecmp(at, value, size) == 0)
            return index;
        at = end ? end + 1 : NULL;
    }
    return -1;
}

void nd_config_choice_name(const char *choices, int index, char *text, size_t size)
{
    const char *at = choices;
    for (; index > 0; index--)
        at = strchr(at, '|') + 1;
    snprintf(text, size, "%.*s", (int)strcspn(at, "|"), at);
}

bool nd_config_parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0)
            return *value = true, true;
        if (strcasecmp(text, no[i]) == 0)
            return *value = false, true;
    }
    return false;
}
