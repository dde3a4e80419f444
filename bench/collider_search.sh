#!/usr/bin/env bash
# What Collider costs in held-out loss and saves in time, by rule and recipe: a table for each batch
# size on standard output. Three layers of 128 (bench/small.ini), one thread. The held-out documents
# are split in two: recipes are chosen by the first half ("chosen") and reported by the second.
#
#   bench/collider_search.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...']
#                            [--batches 'N N ...'] [--recipes 'R R ...'] [-- MORE ARGUMENTS OF train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/collider_search); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds N ...    default: 1 2 3
#   --batches N ...  tokens a step, multiples of 2048 (default: 4096 16384); 400 steps of up to 4096 tokens,
#                    150 of more
#   --recipes R ...  RULE, RULE:SPARSITY or RULE:SPARSITY:UNTIL, and RULE:SPARSITY:UNTIL:STEPS with
#                    STEPS times as many steps; default: loss sample sample:0.35:0.6 sample:0.35:0.6:1.1
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/collider_search binary=build/release/nanochat_dist seeds='1 2 3'
batches='4096 16384' recipes='loss sample sample:0.35:0.6 sample:0.35:0.6:1.1'
options 'data-path out binary seeds batches recipes' "$@"
need_shards
mkdir -p "$out"
length=128
export OMP_NUM_THREADS=1

# held_out RUN SAMPLES: tokens and loss of the run's last checkpoint.
held_out() {
    "$binary" eval --checkpoint "$out/$1" --data-path "$data_path" --samples "$2" --threads 1 --json |
        sed 's/.*"val_loss":\([0-9.]*\).*"tokens":\([0-9]*\).*/\2 \1/'
}

# train_one RUN BATCH SEED RECIPE: leaves "chosen reported seconds" of it in $out/RUN/result.
train_one() {
    local rule sparsity until steps_factor steps all half TIMEFORMAT=%U
    IFS=: read -r rule sparsity until steps_factor <<<"$4"
    steps=$(awk -v s="$([ "$2" -le 4096 ] && echo 400 || echo 150)" \
        -v f="${steps_factor:-1}" 'BEGIN { printf "%d", s * f + 0.5 }')
    local pairs=("model.num_layers=3" "model.vocab_size=$(vocabulary "$data_path")"
        "training.batch_size=$(($2 / length))" training.micro_batch_size=16
        "training.warmup_steps=$((steps / 10))" "training.seed=$3" hardware.threads=1
        training.collider_threshold=1)
    [ "$rule" = none ] || pairs+=(training.use_collider=true "training.collider_rule=$rule"
        "training.collider_sparsity=${sparsity:-0.35}" "training.collider_until=${until:-1}")
    keys "${pairs[@]}"
    mkdir -p "$out/$1"
    { time "$binary" --config "$root/bench/small.ini" --data-path "$data_path" --run-dir "$out/$1" \
        --resume none --set training.total_steps="$steps" "${set[@]}" "${more[@]}" 2>&3; } 3>&2 2>"$out/$1.seconds"
    all=$(held_out "$1" 0) half=$(held_out "$1" "$((${all% *} / length / 2))")
    echo "$all $half $(cat "$out/$1.seconds")" |
        awk '{ printf "%.4f %.4f %.0f\n", $4, ($1 * $2 - $3 * $4) / ($1 - $3), $5 }' >"$out/$1/result"
}

for batch in $batches; do
    printf '\n%d tokens a step\n\n' "$batch"
    echo '| recipe | seed | chosen | | reported | | CPU time |'
    echo '|---|---|---|---|---|---|---|'
    for recipe in none $recipes; do
        for seed in $seeds; do
            run=${batch}_${recipe//:/_}_seed$seed
            once "$run" train_one "$run" "$batch" "$seed" "$recipe"
            cat "$out/$run/result" "$out/${batch}_none_seed$seed/result" | tr '\n' ' ' |
                awk -v name="$recipe" -v seed="$seed" '{
                    printf "| %s | %d | %.4f | %+.2f %% | %.4f | %+.2f %% | %.2f |\n",
                    name, seed, $1, 100 * ($1 / $4 - 1), $2, 100 * ($2 / $5 - 1), $3 / $6 }'
        done
    done
done
