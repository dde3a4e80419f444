#!/usr/bin/env bash
# Held-out loss and bytes of optimizer state with projected gradients against full-rank Muon at
# equal tokens: the table of docs/galore.md, on standard output. About a minute a run and core of
# this size.
#
#   bench/bench_galore.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...']
#                         [--width N] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/bench_galore); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds, --width  default: '1 2 3' and 128; the rank is a quarter of the width
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/bench_galore binary=build/release/nanochat_dist seeds='1 2 3' width=128
options 'data-path out binary seeds width' "$@"
need_shards
mkdir -p "$out"

common=("model.vocab_size=$(vocabulary "$data_path")" "model.hidden_dim=$width" model.ffn_mult=3.5
    model.max_seq_len=256 training.micro_batch_size=8 training.entropy_weight=0.01
    training.stable_ratio=0.8 training.min_lr_ratio=0.1 "training.galore_rank=$((width / 4))"
    training.galore_update_freq=10 logging.eval_samples=256)
full=()
galore=(training.use_galore=true)
residual=("${galore[@]}" optimizer.galore_residual=1)
residual8=("${residual[@]}" training.use_8bit_optim=true)

for seed in $seeds; do
    for variant in full galore residual residual8; do
        run=${variant}_seed$seed
        declare -n of_variant=$variant
        keys "${common[@]}" "training.seed=$seed" "${of_variant[@]}"
        once "$run" "$binary" train --config "$root/bench/small.ini" --run-dir "$out/$run" \
            --data-path "$data_path" "${set[@]}" "${more[@]}"
    done
done

losses_head variant 'against full' 'optimizer, bytes'
for variant in full galore residual residual8; do losses "$variant" "$variant" full optimizer; done
