#!/usr/bin/env bash
# Held-out loss with rounded gradients and a rounded change of the embedding between ranks, at equal tokens
# and over several seeds: a table on standard output. int8_delta is int8 with
# embedding_wire = int8_delta; full_* has every system of the E3 suite, with GaLore of rank 32.
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

data='' out=runs/bench_wire_loss binary=build/release/nanochat_dist seeds='1 2 3' ranks=2
formats='fp32 bf16 int8 int8_delta full_fp32 full_int8 full_int8_delta'
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
    --ranks) ranks=$2 && shift 2 ;;
    *)
        echo "bench_wire_loss: unknown option '$1' (see --help)" >&2
        exit 2
        ;;
    esac
done
[ -n "$data" ] || { echo "bench_wire_loss: --data-path is needed (see --help)" >&2; exit 2; }
vocab=$("$binary" info "$(find "$data" -name '*.h5' | sort | head -n 1)" |
    sed -n 's/^vocab_size *//p' | head -n 1)
mkdir -p "$out"

cat >"$out/config.ini" <<END
[model]
hidden_dim = 128
num_layers = 2
num_heads = 4
num_kv_heads = 2
ffn_mult = 3
max_seq_len = 128
vocab_size = $vocab
[training]
total_steps = 200
batch_size = 8
micro_batch_size = 4
seq_length = 128
learning_rate = 0.02
warmup_steps = 20
stable_ratio = 0.6
min_lr_ratio = 0.0
[dist]
deterministic = off
[hardware]
threads = 1
[logging]
log_interval = 100
eval_interval = 0
eval_samples = 512
checkpoint_interval = 0
tensorboard = false
END

full=(training.use_galore=true training.galore_rank=32 training.galore_update_freq=8
    training.use_8bit_optim=true training.use_collider=true training.use_mtp=true
    training.mtp_n_tokens=4 training.entropy_weight=0.01 hardware.gradient_checkpointing=true)

for seed in $seeds; do
    for format in $formats; do
        run=$out/${format}_seed$seed
        [ ! -f "$run/done" ] || continue
        set=(--set "training.seed=$seed")
        case $format in full_*) for key in "${full[@]}"; do set+=(--set "$key"); done ;; esac
        case $format in *_delta) set+=(--set dist.embedding_wire=int8_delta) ;; esac
        wire=${format#full_}
        mpirun --oversubscribe -np "$ranks" "$binary" --config "$out/config.ini" --data-path "$data" \
            --run-dir "$run" --resume none --set "dist.gradient_wire=${wire%_delta}" "${set[@]}" "$@" >&2
        touch "$run/done"
    done
done

echo "| format | $(for seed in $seeds; do printf 'seed %s | ' "$seed"; done)mean |"
echo "|---|$(for _ in $seeds mean; do printf -- '--:|'; done)"
for format in $formats; do
    for seed in $seeds; do
        sed -n 's/.*"val_loss":\([0-9.]*\).*/\1/p' "$out/${format}_seed$seed/metrics.jsonl" | tail -n 1
    done | awk -v format="$format" '
        { row = row sprintf(" %.4f |", $1); sum += $1 }
        END { printf "| %s |%s %.4f |\n", format, row, sum / NR }'
done
