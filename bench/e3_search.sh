#!/usr/bin/env bash
# The search behind configs/e3/small: the baseline and each configuration with other rates, momentum
# and keys, and their held-out loss at equal tokens: the tables of docs/e3/search.md, on standard
# output. 4 layers of 128, 400 steps of 4096 tokens, one thread: two minutes of CPU time a run.
#
#   bench/e3_search.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...'] [--width N]
#                      [--recipes 'R R ...'] [-- MORE ARGUMENTS OF train]
#
#   --data-path DIR  packed shards whose held-out documents recipes are chosen by (data/e3/choose)
#   --out DIR        where runs go (default: runs/e3_search); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds N ...    default: 1
#   --width N        default: 128; GaLore's rank scales with it
#   --recipes R ...  NAME:LEARNING_RATE:MOMENTUM:EMBEDDING_LR[:KEY=VALUE[,KEY=VALUE...]], NAME one of
#                    configs/e3/small; the first is what the others are compared with
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/e3_search binary=build/release/nanochat_dist seeds=1 width=128
recipes='baseline:0.01:0.85:0.01 baseline:0.02:0.95:0.003 baseline:0.02:0.85:0.003 baseline:0.04:0.85:0.003
    baseline:0.02:0.7:0.003 baseline:0.02:0.85:0.01 baseline:0.02:0.85:0.02 baseline:0.01:0.85:0.02
    mtp_only:0.01:0.85:0.01 mtp_block:0.01:0.85:0.01 muon_8bit:0.01:0.85:0.01 muon_4bit:0.01:0.85:0.01
    galore2:0.01:0.85:0.01 full:0.01:0.85:0.01
    full:0.01:0.85:0.01:optimizer.galore_residual=1,training.collider_until=0.6
    full:0.01:0.85:0.01:optimizer.galore_residual=1 full:0.01:0.85:0.01:optimizer.galore_residual=2
    full:0.01:0.85:0.01:optimizer.galore_residual=5'
options 'data-path out binary seeds width recipes' "$@"
need_shards
mkdir -p "$out"
export OMP_NUM_THREADS=1

# train_one RUN SEED RECIPE
train_one() {
    local name rate momentum embedding extra rank
    IFS=: read -r name rate momentum embedding extra <<<"$3"
    rank=$(sed -n 's/^galore_rank *= *//p' "$root/configs/e3/small/$name.ini")
    keys "model.hidden_dim=$width" "training.seed=$2" "training.learning_rate=$rate" \
        "training.muon_momentum=$momentum" "optimizer.embedding_lr=$embedding" hardware.threads=1 \
        logging.eval_interval=100 logging.eval_samples=256 logging.checkpoint_at_end=false \
        logging.tensorboard=false ${rank:+training.galore_rank=$((rank * width / 256))} ${extra//,/ }
    "$binary" --config "$root/configs/e3/small/$name.ini" --data-path "$data_path" --run-dir "$out/$1" \
        --resume none "${set[@]}" "${more[@]}"
}

first=''
losses_head recipe 'against the first'
for recipe in $recipes; do
    run=$(tr -c 'a-zA-Z0-9.\n' _ <<<"$recipe")
    first=${first:-$run}
    for seed in $seeds; do once "${run}_seed$seed" train_one "${run}_seed$seed" "$seed" "$recipe"; done
    losses "$recipe" "$run" "$first"
done
