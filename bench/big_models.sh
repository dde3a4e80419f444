#!/usr/bin/env bash
# Real training steps of the 3B and 7B models with every system on, on this machine, and what memory
# they took: each category planned and measured, and the peak of the resident set beside its limit.
#
#   bench/big_models.sh [--steps N] [--tokens N] [MODEL...]
#
#   --steps N   optimizer steps of each model (1)
#   --tokens N  tokens a step, one sequence (256)
#   MODEL       medium_3b, 7b (both)
#
# The batch is small because a step of a real one takes a CPU an hour; memory hardly depends on it
# with gradient checkpointing. 24 GiB are needed for 7b, and several minutes a model on two cores.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
program=$root/build/release/nanochat_dist
steps=1 tokens=256
options 'steps tokens MODEL...' "$@"
models=("${operands[@]}")
for model in "${models[@]}"; do
    case $model in medium_3b | 7b) ;; *) usage "unknown argument '$model'" ;; esac
done
[ ${#models[@]} -gt 0 ] || models=(medium_3b 7b)
[ -x "$program" ] || fail 'build first: cmake --preset release && cmake --build --preset release'
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

category() { # file, category: MiB in the last step of metrics.jsonl
    tail -n 1 "$1" | grep -o "\"$2\":[0-9]*" | tail -n 1 | awk -F: '{ printf "%.0f", $2 / 1048576 }'
}

for model in "${models[@]}"; do
    limit=20.0 limit_of='20 GiB'
    [ "$model" = 7b ] || { limit=11.73; limit_of='12.6 GB, the claim of the E3 suite'; }
    keys training.seq_length="$tokens" training.batch_size=1 training.micro_batch_size=1 \
        training.grad_clip=0
    run=$directory/$model
    "$program" plan --config "$model.ini" --ranks 1 "${set[@]}" >"$directory/plan"
    started=$SECONDS
    "$program" --config "$model.ini" --dataset synthetic --n-samples 8 --total-steps "$steps" \
        --run-dir "$run" --resume none "${set[@]}" --set training.num_workers=1 \
        --set logging.checkpoint_at_end=false --set logging.checkpoint_interval=0 \
        --set logging.eval_samples=1 --set logging.tensorboard=false >"$directory/output" ||
        { cat "$directory/output"; exit 1; }
    printf '\n### %s: %s\n\n' "$model" "$(sed -n 1p "$directory/plan")"
    tail -n 1 "$run/metrics.jsonl" | sed 's/.*"loss":\([0-9.]*\).*"grad_norm":\([0-9.]*\).*/loss \1, gradient norm \2/'
    grep -o '"step_ms":[0-9.]*' "$run/metrics.jsonl" | awk -F: '{ printf "step %d: %.0f s\n", NR, $2 / 1000 }'
    printf 'in all %d s, initial weights included\n\n' $((SECONDS - started))
    printf '| MiB | planned | measured |\n|---|---|---|\n'
    for name in codes masters gradients optimizer activations workspace wire loader; do
        planned=$(awk -v name="$name" '$1 == name { printf "%.0f", $2; exit }' "$directory/plan")
        printf '| %s | %s | %s |\n' "$name" "${planned:--}" "$(category "$run/metrics.jsonl" "$name")"
    done
    awk -v peak="$(category "$run/metrics.jsonl" peak)" -v limit="$limit" -v of="$limit_of" 'BEGIN {
        printf "| **peak of the resident set** | | **%.0f (%.2f GiB, %.2f GB)** |\n\n", peak, peak / 1024,
            peak / 1024 * 1.073741824
        printf "%s %s\n", peak / 1024 <= limit ? "within" : "OVER", of }'
done
