#!/usr/bin/env bash
# What checkpoints cost a run: the table of docs/distributed.md, on standard output. Trains the same
# steps with checkpoints that are waited for and with those written beside training, in turn,
# several times. In a run of one checkpoint every --interval steps, the last half of the steps
# between two has nothing to do with either; what the first half takes longer than their median,
# together with what the loop spends on saving, is the cost of a checkpoint.
#
#   bench/bench_saves.sh [--out DIR] [--binary FILE] [--ranks N] [--rounds N] [--interval N] [--saves N]
#                        [-- MORE ARGUMENTS OF nanochat_dist train]
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

out=runs/bench_saves binary=build/release/nanochat_dist ranks=1 rounds=3 interval=8 saves=4
options 'out binary ranks rounds interval saves' "$@"
mkdir -p "$out"

# 30 million parameters: 120 MB of masters, 240 MB of moments, and steps that are as short as may be
cat >"$out/config.ini" <<END
[model]
hidden_dim = 512
num_layers = 8
num_heads = 8
num_kv_heads = 4
ffn_mult = 3.5
max_seq_len = 128
vocab_size = 8192
[training]
batch_size = 4
micro_batch_size = 2
seq_length = 128
optimizer_type = adamw
learning_rate = 0.001
[data]
dataset = synthetic
n_samples = 512
[logging]
eval_interval = 0
tensorboard = false
checkpoint_at_end = false
checkpoint_keep = 2
END

run() { # run NAME ASYNC ARGUMENTS...
    local launch=()
    [ "$ranks" -gt 1 ] && launch=(mpirun --oversubscribe -np "$ranks")
    "${launch[@]}" "$binary" --config "$out/config.ini" --run-dir "$out/$1" --resume none \
        --set training.total_steps=$(((saves + 1) * interval)) \
        --set logging.checkpoint_interval="$interval" --set logging.checkpoint_async="$2" \
        "${@:3}" >"$out/$1.log" 2>&1
}

# prints: median step ms without saving, ms that a checkpoint costs, the part of it the loop waited
# for
costs() {
    awk -v interval="$interval" '
        function value(key) {
            match($0, "\"" key "\":[^,}]*")
            return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0
        }
        {
            step = value("step")
            if (step <= interval) next
            place = (step - 1) % interval
            ms[step] = value("step_ms")
            waited += value("save_ms")
            last = step
            if (place >= interval / 2) quiet[++n] = ms[step]
        }
        END {
            for (i = 1; i <= n; i++)
                for (j = i + 1; j <= n; j++)
                    if (quiet[j] < quiet[i]) { t = quiet[i]; quiet[i] = quiet[j]; quiet[j] = t }
            median = n % 2 ? quiet[(n + 1) / 2] : (quiet[n / 2] + quiet[n / 2 + 1]) / 2
            for (step = interval + 1; step <= last; step++)
                if ((step - 1) % interval < interval / 2) { more += ms[step] - median }
            saves = (last - interval) / interval
            printf "%.1f %.1f %.1f\n", median, (more + waited) / saves, waited / saves
        }' "$1/metrics.jsonl"
}

median_of() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

for mode in false true; do : >"$out/$mode.costs"; done
for round in $(seq "$rounds"); do
    for mode in false true; do
        run "$mode" "$mode" "${more[@]}"
        costs "$out/$mode" >>"$out/$mode.costs"
    done
done
size=$(du -smL "$out/true/checkpoints/latest" | cut -f 1)
echo "| checkpoint_async | ranks | MB | step, ms | a checkpoint costs, ms | of it the loop waits, ms |" \
    "of an interval of 500 steps |"
echo "|---|---|---|---|---|---|---|"
for mode in false true; do
    step=$(cut -d ' ' -f 1 "$out/$mode.costs" | median_of)
    cost=$(cut -d ' ' -f 2 "$out/$mode.costs" | median_of)
    wait=$(cut -d ' ' -f 3 "$out/$mode.costs" | median_of)
    part=$(awk "BEGIN {printf \"%.2f %%\", 100 * $cost / (500 * $step)}")
    echo "| $mode | $ranks | $size | $step | $cost | $wait | $part |"
done
