#!/usr/bin/env bash
# Trains the same small run on 1, 2, 3, 4 and 8 ranks and prints a Markdown table: first and last
# loss, held-out loss, hash of the checkpointed state, bytes sent a step.
#
#   bench/ranks.sh [PROGRAM]
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

options '[PROGRAM]...' "$@"
program=$(realpath "${operands[0]:-build/release/nanochat_dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
allow_root

cat >"$work/config.ini" <<INI
[model]
hidden_dim = 128
num_layers = 4
num_heads = 4
num_kv_heads = 2
max_seq_len = 128
vocab_size = 512
[training]
total_steps = 60
micro_batch_size = 1
seq_length = 64
warmup_steps = 10
[data]
dataset = synthetic
[logging]
eval_interval = 0
checkpoint_interval = 0
INI

table() { # batch size, ranks...
    local batch=$1
    shift
    printf '\nbatch of %d sequences, one a micro-batch:\n\n' "$batch"
    echo '| ranks | loss of step 1 | loss of step 60 | held-out loss | state | KiB sent a step |'
    echo '|---|---|---|---|---|---|'
    for ranks in "$@"; do
        mpirun --oversubscribe -np "$ranks" "$program" --config "$work/config.ini" \
            --set training.batch_size="$batch" --run-dir "$work/$batch-$ranks" >/dev/null
        python3 - "$work/$batch-$ranks" "$ranks" <<'PY'
import json, sys
lines = [json.loads(l) for l in open(sys.argv[1] + "/metrics.jsonl")]
state = json.load(open(sys.argv[1] + "/checkpoints/latest/manifest.json"))["state_sha256"]
print(f"| {sys.argv[2]} | {lines[0]['loss']:.15f} | {lines[-1]['loss']:.15f} | "
      f"{lines[-1]['val_loss']:.15f} | {state[:16]} | {lines[-1]['comm_bytes'] / 1024:.0f} |")
PY
    done
}
table 8 1 2 4 8
table 24 1 2 3 4 8
