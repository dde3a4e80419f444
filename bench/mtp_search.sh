#!/usr/bin/env bash
# Which recipe of multi-token prediction needs the fewest tokens to the held-out loss of the
# baseline: trains the baseline and each recipe with the same seeds at the small size and prints a
# table.
#
#   bench/mtp_search.sh [--seeds N] [--steps N] [--fewer P] [--out DIR] [--jobs N] [--data-path DIR]
#                       [--configuration FILE] [RECIPE...] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --seeds N        seeds 1..N (3)
#   --steps N        optimizer steps of each run (400)
#   --fewer P        the recipes, not the baseline, train P percent fewer steps, with a decay of their own: where
#                    the change of the loss is then not above 0, P percent of the tokens are saved (0)
#   --out DIR        where the runs go (mtp_search); finished ones are not run again
#   --jobs N         runs beside each other, each with one thread (the number of cores)
#   --data-path DIR  packed shards (data/quickstart/shards)
#   --configuration FILE  what recipes change: by default the small baseline with the suite's rates and momentum;
#                    configs/e3/small/baseline.ini has those that suit so short a run (docs/e3/search.md)
#   RECIPE           names from the list in this script (all)
#
# What follows -- comes after the script's own keys, and so wins.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
program=$root/build/release/nanochat_dist
seeds=3 steps=400 fewer=0 out=mtp_search data_path=$root/data/quickstart/shards
jobs=$(cores)
configuration=$root/configs/e3/small/suite/baseline.ini

# name, form, tokens ahead, weight, schedule
recipes='
suite        shared     4 0.2 constant
thirds       shared     4 0.2 thirds
thirds_half  shared     3 0.5 thirds
linear       shared     2 0.3 linear
thirds_light shared     4 0.1 thirds
blocks       sequential 4 0.5 thirds
blocks_heavy sequential 4 1.0 thirds
block        sequential 2 0.3 thirds
block_heavy  sequential 2 1.0 thirds
block_linear sequential 2 0.3 linear
heads        separate   4 0.5 thirds
separate     separate   2 0.3 linear
'
options 'seeds steps fewer out jobs data-path configuration RECIPE...' "$@"
for recipe in "${operands[@]}"; do
    grep -q "^$recipe " <<<"$recipes" || usage "no recipe '$recipe'"
done
mapfile -t all < <(awk 'NF { print $1 }' <<<"$recipes")
wanted=("${operands[@]}")
[ ${#wanted[@]} -gt 0 ] || wanted=("${all[@]}")
mkdir -p "$out"

# A recipe's runs of another length have another name.
suffix=''
[ "$fewer" = 0 ] || suffix=_$fewer

train() { # name, seed, its steps, keys...
    local run=$out/$1_$2 length=$3
    shift 3
    [ -e "$run/done" ] && return
    keys "training.total_steps=$length" "training.warmup_steps=$((steps / 10))" "${@/#/training.}"
    OMP_NUM_THREADS=1 "$program" --config "$configuration" --data-path "$data_path" \
        --run-dir "$run" --resume none --set hardware.threads=1 --set logging.checkpoint_interval=0 \
        --set logging.eval_interval=20 --set logging.eval_samples=256 --set logging.tensorboard=false \
        --set logging.checkpoint_at_end=false "${set[@]}" "${more[@]}" >"$run.log" 2>&1 && touch "$run/done"
}
beside() { # waits until fewer than --jobs runs are under way
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
}
for ((seed = 1; seed <= seeds; seed++)); do
    beside
    train baseline "$seed" "$steps" seed="$seed" &
    for recipe in "${wanted[@]}"; do
        read -r _ form ahead weight schedule < <(grep "^$recipe " <<<"$recipes")
        beside
        train "$recipe$suffix" "$seed" $((steps * (100 - fewer) / 100)) seed="$seed" use_mtp=true \
            mtp_form="$form" mtp_n_tokens="$ahead" mtp_weight="$weight" mtp_schedule="$schedule" &
    done
done
wait

curve() { # tokens and val_loss of a run
    sed -n 's/.*"tokens":\([0-9]*\),.*"val_loss":\([0-9.]*\).*/\1 \2/p' "$1/metrics.jsonl"
}
compare() { # run, baseline: final loss, its change, tokens to the baseline's final loss
    awk 'NR == FNR { target = $2; tokens = $1; next }
        !reached && $2 <= target { reached = FNR == 1 ? $1 : last + ($1 - last) * (before - target) / (before - $2) }
        { last = $1; before = $2 }
        END { printf "%.4f %+.2f%% %s", before, 100 * (before / target - 1),
              reached ? sprintf("%+.1f%%", 100 * (reached / tokens - 1)) : "never" }' <(curve "$2") <(curve "$1")
}
printf '\n| recipe | form | ahead | weight | schedule | seed | held-out loss | change | %s |\n' \
    'tokens to the loss of the baseline'
echo '|---|---|---|---|---|---|---|---|---|'
for ((seed = 1; seed <= seeds; seed++)); do
    printf '| baseline | | | | | %d | %s | | |\n' "$seed" \
        "$(curve "$out/baseline_$seed" | awk '{ v = $2 } END { printf "%.4f", v }')"
    for recipe in "${wanted[@]}"; do
        run=$out/$recipe${suffix}_$seed
        if [ ! -e "$run/done" ]; then
            printf '| %s | | | | | %d | failed: %s | | |\n' "$recipe" "$seed" "$run.log"
            continue
        fi
        read -r _ form ahead weight schedule < <(grep "^$recipe " <<<"$recipes")
        read -r loss change tokens < <(compare "$run" "$out/baseline_$seed"; echo)
        printf '| %s | %s | %s | %s | %s | %d | %s | %s | %s |\n' \
            "$recipe" "$form" "$ahead" "$weight" "$schedule" "$seed" "$loss" "$change" "$tokens"
    done
done
