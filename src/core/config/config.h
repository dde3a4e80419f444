/* The configuration of a run.
 *
 * One table (config_keys.c) declares every key: section, name, type, range, default and one line of
 * help. Reading INI files, --set, --help, docs/config.md and the saved effective config all come
 * from that table. */
#pragma once

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { ND_CONFIG_TEXT_MAX = 1024 };
typedef char nd_config_text[ND_CONFIG_TEXT_MAX];

typedef enum nd_arch { ND_ARCH_BITNET, ND_ARCH_LLAMA } nd_arch;
typedef enum nd_optimizer_type { ND_OPTIMIZER_MUON, ND_OPTIMIZER_ADAMW } nd_optimizer_type;
typedef enum nd_schedule_choice {
    ND_SCHEDULE_CHOICE_WSD,
    ND_SCHEDULE_CHOICE_COSINE,
    ND_SCHEDULE_CHOICE_CONSTANT
} nd_schedule_choice;
typedef enum nd_orthogonalization {
    ND_ORTHOGONALIZATION_NEWTON_SCHULZ,
    ND_ORTHOGONALIZATION_POLAR_EXPRESS
} nd_orthogonalization;
typedef enum nd_mtp_schedule { ND_MTP_CONSTANT, ND_MTP_LINEAR, ND_MTP_THIRDS } nd_mtp_schedule;
typedef enum nd_mtp_form { ND_MTP_SHARED, ND_MTP_SEQUENTIAL, ND_MTP_SEPARATE } nd_mtp_form;
typedef enum nd_collider_rule {
    ND_COLLIDER_SAMPLE,
    ND_COLLIDER_LOSS,
    ND_COLLIDER_EXCESS
} nd_collider_rule;
typedef enum nd_snapshot_buddy_choice {
    ND_SNAPSHOT_BUDDY_OTHER_HOST,
    ND_SNAPSHOT_BUDDY_ALWAYS,
    ND_SNAPSHOT_BUDDY_OFF
} nd_snapshot_buddy_choice;
typedef enum nd_state_bits_choice {
    ND_STATE_BITS_32,
    ND_STATE_BITS_8,
    ND_STATE_BITS_4
} nd_state_bits_choice;
typedef enum nd_projector_bits_choice {
    ND_PROJECTOR_BITS_AUTO,
    ND_PROJECTOR_BITS_32,
    ND_PROJECTOR_BITS_8
} nd_projector_bits_choice;
/* In the order of nd_cuda_attention. */
typedef enum nd_attention_choice {
    ND_ATTENTION_AUTO,
    ND_ATTENTION_CUDNN,
    ND_ATTENTION_BUILTIN
} nd_attention_choice;
typedef enum nd_precision {
    ND_PRECISION_FP32,
    ND_PRECISION_BF16,
    ND_PRECISION_AUTO /* until a backend is known */
} nd_precision;
typedef enum nd_backward_precision {
    ND_BACKWARD_SAME,
    ND_BACKWARD_INT8,
    ND_BACKWARD_AUTO
} nd_backward_precision;
typedef enum nd_dataset_choice { ND_DATASET_SHARDS, ND_DATASET_SYNTHETIC } nd_dataset_choice;
typedef enum nd_target { ND_TARGET_AUTO, ND_TARGET_CPU, ND_TARGET_CUDA } nd_target;
typedef enum nd_deterministic { ND_DETERMINISTIC_OFF, ND_DETERMINISTIC_WORLD } nd_deterministic;
typedef enum nd_reduction { ND_REDUCTION_OWNERS, ND_REDUCTION_ALLREDUCE } nd_reduction;
/* The codec of gradients between ranks. */
typedef enum nd_gradient_wire {
    ND_GRADIENT_WIRE_FP32,
    ND_GRADIENT_WIRE_BF16,
    ND_GRADIENT_WIRE_INT8,
    ND_GRADIENT_WIRE_INT4
} nd_gradient_wire;
typedef enum nd_outer_comm_dtype {
    ND_OUTER_COMM_FP32,
    ND_OUTER_COMM_INT8,
    ND_OUTER_COMM_INT4
} nd_outer_comm_dtype;
typedef enum nd_outer_bits_choice { ND_OUTER_BITS_32, ND_OUTER_BITS_8 } nd_outer_bits_choice;
typedef enum nd_grad_compression {
    ND_GRAD_COMPRESSION_OFF,
    ND_GRAD_COMPRESSION_ON,
    ND_GRAD_COMPRESSION_AUTO
} nd_grad_compression;
typedef enum nd_weight_sync {
    ND_WEIGHT_SYNC_FULL,
    ND_WEIGHT_SYNC_FULL_BASE3,
    ND_WEIGHT_SYNC_DELTA
} nd_weight_sync;
typedef enum nd_embedding_sync {
    ND_EMBEDDING_SYNC_FULL,
    ND_EMBEDDING_SYNC_INT8_DELTA
} nd_embedding_sync;

typedef struct nd_config {
    struct {
        int arch; /* nd_arch; enumerations are stored as int, for the table */
        int64_t hidden_dim, num_layers, num_heads, num_kv_heads;
        double ffn_mult;
        int64_t max_seq_len, vocab_size, group_size;
        bool tie_embeddings;
        double rope_base;
    } model;
    struct {
        int64_t total_steps, batch_size, micro_batch_size, seq_length;
        double learning_rate;
        int64_t warmup_steps;
        double weight_decay, grad_clip, entropy_weight, label_smoothing, z_loss_weight;
        int optimizer_type;
        double muon_momentum;
        int schedule_type;
        double stable_ratio, min_lr_ratio;
        bool use_mtp;
        int64_t mtp_n_tokens;
        double mtp_weight, mtp_until;
        int mtp_schedule, mtp_form;
        bool use_collider;
        int collider_rule;
        double collider_threshold, collider_sparsity, collider_from, collider_until;
        nd_config_text collider_reference;
        bool use_async_loader;
        int64_t num_workers, prefetch_batches;
        bool use_galore;
        int64_t galore_rank, galore_update_freq;
        int64_t max_skipped_steps, max_rollbacks;
        double loss_spike_zscore;
        int64_t seed;
    } training;
    struct {
        double embedding_lr, head_lr, norm_lr; /* AdamW groups */
        double adam_beta1, adam_beta2, adam_epsilon;
        int orthogonalization;
        int64_t orthogonalization_steps;
        bool nesterov, cautious_weight_decay;
        int master_precision;
        int state_bits;            /* nd_state_bits_choice */
        int galore_projector_bits; /* nd_projector_bits_choice */
        double galore_scale, galore_residual;
    } optimizer;
    struct {
        int dataset;
        nd_config_text data_path;
        int64_t n_samples, epochs;
    } data;
    struct {
        int target;
        bool gradient_checkpointing, recompute_attention, recompute_ffn, pack_ternary_weights;
        bool cuda_graphs;
        int attention_backend; /* nd_attention_choice */
        int precision, backward_precision;
        int64_t threads;
        int cpu_isa; /* nd_cpu_isa */
    } hardware;
    struct {
        int deterministic;
        bool overlap_grad_reduce;
        int64_t group_ranks; /* 0: chosen if there are several hosts, else all */
        int part_kib;        /* 0: auto; nd_config_part_bytes */
        int grad_reduction, grad_comm_dtype, weight_sync, embedding_sync;
        int64_t workers, sync_every;
        double outer_lr, outer_momentum;
        int outer_comm_dtype, outer_state_bits; /* nd_outer_comm_dtype, nd_outer_bits_choice */
        int grad_compression;                   /* nd_grad_compression */
        double timeout_seconds;
        int64_t replica_check_interval;
    } dist;
    struct {
        nd_config_text run_dir, checkpoint_dir;
        int64_t log_interval, eval_interval, eval_samples, checkpoint_interval, checkpoint_keep,
            max_failed_saves;
        nd_config_text snapshot_dir;
        int64_t snapshot_interval, snapshot_memory;
        int snapshot_buddy; /* nd_snapshot_buddy_choice */
        bool checkpoint_at_end, checkpoint_async, tensorboard;
    } logging;
    nd_config_text old_names; /* old names of keys that were read, for one line of warning */
} nd_config;

/* Every key at its default. */
void nd_config_defaults(nd_config *config);

/* Reads the keys in an INI file into `config`; other keys stay. Errors: ND_ECONFIG naming file,
 * line, key, value, what is allowed and the nearest known key; duplicates, unknown sections and
 * over-long lines are errors. */
nd_status nd_config_read_file(nd_config *config, const char *path);

/* Makes one assignment, given as "section.key=value" or as its three parts; messages name its
 * `origin`, such as "--set". Errors: ND_ECONFIG as above. */
nd_status nd_config_set(nd_config *config, const char *assignment, const char *origin);
nd_status nd_config_set_key(nd_config *config, const char *section, const char *key,
                            const char *value, const char *origin);

/* Checks that the keys do not contradict each other and that this build supports them. Errors:
 * ND_ECONFIG naming the keys, their values, and what would be accepted. */
nd_status nd_config_check(const nd_config *config);

/* The subset of these checks that needs neither data nor a device, for `plan`. */
nd_status nd_config_check_model(const nd_config *config);

/* Resets the keys that describe the machine of the run that wrote this configuration, for commands
 * that use its model elsewhere. */
void nd_config_leave_machine(nd_config *config);

/* The whole effective configuration as INI text that nd_config_read_file reads back. */
nd_status nd_config_write(const nd_config *config, FILE *out);

/* Writes the value of [section] key, which must be one, to `text` as it is written in a file. */
void nd_config_value(const nd_config *config, const char *section, const char *key, char *text,
                     size_t size);

/* Writes a line such as "training.batch_size was 16, is 32" for each differing key of [model],
 * [training], [optimizer] and [data], and of the keys of [dist] that affect results. Returns the
 * number of lines. */
int nd_config_write_differences(const nd_config *before, const nd_config *now, FILE *out);

/* Writes keys as lines "section.key = value", except those listed in `without`, which ends with
 * NULL. */
void nd_config_write_facts(const nd_config *config, const char *const *without, FILE *out);

/* Writes docs/config.md: a table of all keys. */
void nd_config_write_markdown(FILE *out);

/* Writes one line per key, for --help. */
void nd_config_write_help(FILE *out);

/* Resolves `name`, with or without ".ini", to `path`: `name` itself when it is a readable file,
 * otherwise the file of that name among the configurations installed with the program or in the
 * checkout it was built from. `what` is what messages call it ("config"). Errors: ND_ECONFIG naming
 * the places that were tried. */
nd_status nd_config_find(const char *name, const char *what, char *path, size_t size);

/* Width of the feed-forward layer: ffn_mult * hidden_dim, rounded to the nearest integer. */
int64_t nd_config_ffn_dim(const nd_config *config);

/* Bytes of [dist] part_kib; 0: auto. */
size_t nd_config_part_bytes(const nd_config *config);

/* Whether Collider compares losses with a reference model's. */
bool nd_config_uses_reference(const nd_config *config);

/* Whether Collider filters tokens in `step`, counted from 0. */
bool nd_config_filters(const nd_config *config, int64_t step);

/* Whether the run has rounds of rare synchronization: workers or sync_every is above 1. */
bool nd_config_has_rounds(const nd_config *config);

/* Sequences computed at once: micro_batch_size, or when it is 0 the largest power of two that
 * divides a worker's part of the batch into at least eight micro-batches (1 if none does). The same
 * for any number of ranks. */
int64_t nd_config_micro_batch(const nd_config *config);

/* Bits of an element of optimizer state, 32, 8 or 4. */
int nd_config_state_bits(const nd_config *config);

/* Bits of an element of GaLore's projectors, 32 or 8. */
int nd_config_projector_bits(const nd_config *config);
