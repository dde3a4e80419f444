#!/usr/bin/env bash
# Bytes that ranks send a step, by format: those that runs counted (comm_bytes of metrics.jsonl,
# mean of the last half of the steps) beside those of `plan`. A Markdown table on standard output.
#
#   bench/wire_bytes.sh --config FILE [--data-path DIR] [--out DIR] [--binary FILE] [--ranks 'N N ...']
#                       [--formats 'G,C,E ...'] [--steps N] [-- MORE ARGUMENTS OF nanochat_dist train]
#
#   --data-path DIR  packed shards (default: synthetic tokens)
#   --out DIR        where runs go (default: runs/wire_bytes); a finished run is not repeated
#   --ranks          default: '2 4'
#   --formats        grad_comm_dtype,weight_sync,embedding_sync of each row (default: seven of them)
#   --steps N        default: 64; for configurations with GaLore twice a multiple of galore_update_freq
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

config='' data_path='' out=runs/wire_bytes binary=build/release/nanochat_dist ranks='2 4' steps=64
formats='fp32,full,full fp32,full_base3,full fp32,delta,full bf16,delta,full int8,delta,full
    int8,full_base3,int8_delta int8,delta,int8_delta'
options 'config data-path out binary ranks formats steps' "$@"
[ -n "$config" ] || usage '--config is needed'
allow_root
mkdir -p "$out"
source=(--set data.dataset=synthetic --set data.n_samples=4096)
[ -z "$data_path" ] || source=(--set "data.data_path=$data_path")

head=''
for n in $ranks; do head+="$n ranks: MB | bytes a parameter | a rank | by plan | "; done
echo "| gradients, codes, embedding | $head"
echo "|---|$(for _ in $ranks; do printf -- '--:|--:|--:|--:|'; done)"
for format in $formats; do
    IFS=, read -r gradients codes embedding <<<"$format"
    printf '| `%s`, `%s`, `%s` |' "$gradients" "$codes" "$embedding"
    for n in $ranks; do
        run=$(basename "$config" .ini)_${n}_${gradients}_${codes}_${embedding}
        set=(--set dist.deterministic=off --set "dist.grad_comm_dtype=$gradients"
            --set "dist.weight_sync=$codes" --set "dist.embedding_sync=$embedding"
            --set logging.eval_interval=0 --set logging.checkpoint_interval=0 "${more[@]}")
        once "$run" mpirun --oversubscribe -np "$n" "$binary" --config "$config" "${source[@]}" "${set[@]}" \
            --total-steps "$steps" --run-dir "$out/$run" --resume none
        plan=$("$binary" plan --config "$config" --ranks "$n" "${source[@]}" "${set[@]}")
        counted=$(sed -n 's/.*"comm_bytes":\([0-9]*\).*/\1/p' "$out/$run/metrics.jsonl" |
            tail -n "$((steps / 2))" | awk '{ sum += $1 } END { printf "%.0f", sum / NR }')
        awk -v counted="$counted" -v ranks="$n" '
            /^wire a step/ { wire = 1 }
            wire && $1 == "sum" { planned = $2; parameters = $2 * 1e6 / $3 }
            END { printf " %.3f | %.3f | %.3f | %.3f |", counted / 1e6, counted / parameters,
                  counted / parameters / ranks, planned * 1e6 / parameters }' <<<"$plan"
    done
    echo
done
