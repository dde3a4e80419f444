#!/usr/bin/env bash
# Held-out loss with optimizer state in 32, 8 and 4 bits at equal tokens, over several seeds: the
# table of docs/state_codecs.md, on standard output. About 80 s a run on two cores.
#
#   bench/bench_state.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...']
#                        [--formats 'B B ...'] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/bench_state); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds, --formats  default: '1 2 3' and '32 8 4'
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/bench_state binary=build/release/nanochat_dist seeds='1 2 3' formats='32 8 4'
options 'data-path out binary seeds formats' "$@"
need_shards
mkdir -p "$out"
vocab=$(vocabulary "$data_path")

for seed in $seeds; do
    for bits in $formats; do
        run=bits${bits}_seed$seed
        keys "model.vocab_size=$vocab" "training.seed=$seed" "optimizer.state_bits=$bits"
        once "$run" "$binary" train --config "$root/bench/small.ini" --run-dir "$out/$run" \
            --data-path "$data_path" "${set[@]}" "${more[@]}"
    done
done

losses_head state 'against 32 bits'
for bits in $formats; do losses "$bits bits" "bits$bits" "bits${formats%% *}"; done
