#!/usr/bin/env bash
# Held-out loss with optimizer state in 32, 8 and 4 bits at equal tokens, over several seeds: the table
# of docs/state_codecs.md, on standard output. About 80 s a run on two cores.
#
#   bench/bench_state.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...']
#                        [--formats 'B B ...'] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/bench_state); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds, --formats  default: '1 2 3' and '32 8 4'
set -euo pipefail

data='' out=runs/bench_state binary=build/release/nanochat_dist seeds='1 2 3' formats='32 8 4'
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --)
        shift
        break
        ;;
    --data-path) data=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --binary) binary=$2 && shift 2 ;;
    --seeds) seeds=$2 && shift 2 ;;
    --formats) formats=$2 && shift 2 ;;
    *)
        echo "bench_state: unknown option '$1' (see --help)" >&2
        exit 2
        ;;
    esac
done
[ -n "$data" ] || { echo "bench_state: --data-path is needed (see --help)" >&2; exit 2; }
vocab=$("$binary" info "$(find "$data" -name '*.h5' | sort | head -n 1)" |
    sed -n 's/^vocab_size *//p' | head -n 1)
mkdir -p "$out"

cat >"$out/config.ini" <<END
[model]
hidden_dim = 128
num_layers = 4
num_heads = 4
num_kv_heads = 2
ffn_mult = 3
max_seq_len = 128
vocab_size = $vocab
[training]
total_steps = 300
batch_size = 16
micro_batch_size = 4
seq_length = 128
learning_rate = 0.02
warmup_steps = 30
stable_ratio = 0.6
min_lr_ratio = 0.0
[logging]
log_interval = 100
eval_interval = 0
eval_samples = 512
checkpoint_interval = 0
tensorboard = false
END

for seed in $seeds; do
    for bits in $formats; do
        run=$out/bits${bits}_seed$seed
        [ ! -f "$run/done" ] || continue
        rm -rf "$run"
        "$binary" train --config "$out/config.ini" --run-dir "$run" --data-path "$data" \
            --set "training.seed=$seed" --set "optimizer.state_bits=$bits" "$@" >&2
        touch "$run/done"
    done
done

value() { # run, key: of the last step
    tail -n 1 "$out/$1/metrics.jsonl" | sed -n "s/.*\"$2\":\([0-9.e+-]*\).*/\1/p"
}
echo "| state | $(for s in $seeds; do printf 'seed %s | ' "$s"; done)mean | against 32 bits |"
echo "|---|$(for s in $seeds mean gap; do printf '%s' '---|'; done)"
first=${formats%% *}
for bits in $formats; do
    for seed in $seeds; do
        echo "$(value "bits${bits}_seed$seed" val_loss) $(value "bits${first}_seed$seed" val_loss)"
    done | awk -v bits="$bits" '
        { row = row sprintf(" %.4f |", $1); mean += $1 / 1; base += $2 / 1 }
        END { printf "| %s bits |%s %.4f | %+.2f %% |\n", bits, row, mean / NR, 100 * (mean / base - 1) }'
done
