#!/usr/bin/env bash
# Held-out loss with rounded gradients and a rounded change of the embedding between ranks, at equal
# tokens and over several seeds: a table on standard output. int8_delta is int8 with embedding_sync
# = int8_delta; full_* has every system of the E3 suite, with GaLore of rank 32.
#
#   bench/bench_wire_loss.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...']
#                            [--formats 'F F ...'] [--ranks N] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/bench_wire_loss); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds, --formats  default: '1 2 3' and 'fp32 bf16 int8 int8_delta full_fp32 full_int8
#                       full_int8_delta'
#   --ranks N        default: 2
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/bench_wire_loss binary=build/release/nanochat_dist seeds='1 2 3' ranks=2
formats='fp32 bf16 int8 int8_delta full_fp32 full_int8 full_int8_delta'
options 'data-path out binary seeds formats ranks' "$@"
need_shards
mkdir -p "$out"

common=("model.vocab_size=$(vocabulary "$data_path")" model.num_layers=2 training.total_steps=200
    training.batch_size=8 training.warmup_steps=20 dist.deterministic=off hardware.threads=1)
full=(training.use_galore=true training.galore_rank=32 training.galore_update_freq=8
    training.use_8bit_optim=true training.use_collider=true training.use_mtp=true
    training.mtp_n_tokens=4 training.entropy_weight=0.01 hardware.gradient_checkpointing=true)

for seed in $seeds; do
    for format in $formats; do
        run=${format}_seed$seed
        wire=${format#full_}
        of_format=("training.seed=$seed" "dist.grad_comm_dtype=${wire%_delta}")
        case $format in full_*) of_format+=("${full[@]}") ;; esac
        case $format in *_delta) of_format+=(dist.embedding_sync=int8_delta) ;; esac
        keys "${common[@]}" "${of_format[@]}"
        once "$run" mpirun --oversubscribe -np "$ranks" "$binary" --config "$root/bench/small.ini" \
            --data-path "$data_path" --run-dir "$out/$run" --resume none "${set[@]}" "${more[@]}"
    done
done

losses_head format
for format in $formats; do losses "$format" "$format"; done
