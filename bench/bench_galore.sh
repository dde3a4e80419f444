#!/usr/bin/env bash
# Held-out loss and bytes of optimizer state with projected gradients against full-rank Muon at equal
# tokens: the table of docs/galore.md, on standard output. About a minute a run and core of this size.
#
#   bench/bench_galore.sh --data-path DIR [--out DIR] [--binary FILE] [--seeds 'N N ...']
#                         [--width N] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards with a held-out part; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/bench_galore); a finished run is not repeated
#   --binary FILE    default: build/release/nanochat_dist
#   --seeds, --width  default: '1 2 3' and 128; the rank is a quarter of the width
set -euo pipefail

data='' out=runs/bench_galore binary=build/release/nanochat_dist seeds='1 2 3' width=128
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
    --width) width=$2 && shift 2 ;;
    *)
        echo "bench_galore: unknown option '$1' (see --help)" >&2
        exit 2
        ;;
    esac
done
[ -n "$data" ] || { echo "bench_galore: --data-path is needed (see --help)" >&2; exit 2; }
vocab=$("$binary" info "$(find "$data" -name '*.h5' | sort | head -n 1)" |
    sed -n 's/^vocab_size *//p' | head -n 1)
mkdir -p "$out"

cat >"$out/config.ini" <<END
[model]
hidden_dim = $width
num_layers = 4
num_heads = 4
num_kv_heads = 2
ffn_mult = 3.5
max_seq_len = 256
vocab_size = $vocab
[training]
total_steps = 300
batch_size = 16
micro_batch_size = 8
seq_length = 128
learning_rate = 0.02
warmup_steps = 30
entropy_weight = 0.01
stable_ratio = 0.8
min_lr_ratio = 0.1
galore_rank = $((width / 4))
galore_update_freq = 10
[logging]
log_interval = 100
eval_interval = 0
eval_samples = 256
checkpoint_interval = 0
tensorboard = false
END

variants='full galore rest rest8'
keys() {
    case $1 in
    full) ;;
    galore) echo --set training.use_galore=true ;;
    rest) echo --set training.use_galore=true --set optimizer.galore_residual=1 ;;
    rest8)
        echo --set training.use_galore=true --set optimizer.galore_residual=1 \
            --set training.use_8bit_optim=true
        ;;
    esac
}

for seed in $seeds; do
    for variant in $variants; do
        run=$out/${variant}_seed$seed
        [ ! -f "$run/done" ] || continue
        rm -rf "$run"
        # shellcheck disable=SC2046 # words of keys
        "$binary" train --config "$out/config.ini" --run-dir "$run" --data-path "$data" \
            --set "training.seed=$seed" $(keys "$variant") "$@" >&2
        touch "$run/done"
    done
done

value() { # run, key: of the last step
    tail -n 1 "$out/$1/metrics.jsonl" | sed -n "s/.*\"$2\":\([0-9.e+-]*\).*/\1/p"
}
echo "| variant | $(for s in $seeds; do printf 'seed %s | ' "$s"; done)mean | against full | optimizer, bytes |"
echo "|---|$(for s in $seeds mean gap bytes; do printf '%s' '---|'; done)"
for variant in $variants; do
    for seed in $seeds; do
        run=${variant}_seed$seed
        echo "$(value "$run" val_loss) $(value "full_seed$seed" val_loss) $(value "$run" optimizer)"
    done | awk -v variant="$variant" '
        { row = row sprintf(" %.4f |", $1); mean += $1; base += $2; bytes = $3 }
        END { printf "| %s |%s %.4f | %+.2f %% | %d |\n", variant, row, mean / NR,
                     100 * (mean / base - 1), bytes }'
done
