#!/usr/bin/env bash
# Weak efficiency of two workers on two hosts joined by a slow link (bench/two_hosts.sh): seconds of
# a round of ranks alone over those of two that synchronize, each with the same batch, and what the
# round sends. Alternates between the two. The hosts are one machine's cores, which slow each other
# down: one rank alone runs on each at the same time.
#
#   bench/rare_sync_hosts.sh --data-path DIR [--out DIR] [--binary FILE] [--gbit G] [--every H] [--wire NAME]
#                            [--batch N] [--rounds N]
#
#   --data-path DIR  packed shards; the vocabulary is read from them
#   --out DIR        where runs go (default: runs/rare_sync_hosts)
#   --binary FILE    default: build/release/nanochat_dist
#   --gbit, --every, --wire, --batch, --rounds  default: 0.1, 30, int4, 16 sequences a rank, 1
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

data_path='' out=runs/rare_sync_hosts binary=build/release/nanochat_dist gbit=0.1 every=30 wire=int4 batch=16 rounds=1
options 'data-path out binary gbit every wire batch rounds' "$@"
need_shards
binary=$(realpath "$binary") data_path=$(realpath "$data_path")
mkdir -p "$out"
out=$(cd "$out" && pwd)

cat >"$out/script" <<'END_SCRIPT'
set_link "$1"
shift
alone=$1 two=$2 rounds=$3
shift 3
for round in $(seq "$rounds"); do
    on_host 2 "$@" --run-dir "$alone$round.2" --set "training.batch_size=$BATCH" >/dev/null &
    beside=$!
    on_host 1 "$@" --run-dir "$alone$round.1" --set "training.batch_size=$BATCH" >/dev/null
    wait "$beside"
    before=$(link_bytes)
    mpirun_hosts "$@" --run-dir "$two$round" --set "training.batch_size=$((2 * BATCH))" --set dist.workers=2 \
        --set "dist.sync_every=$EVERY" --set "dist.outer_comm_dtype=$WIRE" >/dev/null
    echo "link $(($(link_bytes) - before)) bytes in all, headers, start and end included"
done
END_SCRIPT
export BATCH=$batch EVERY=$every WIRE=$wire OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
keys "model.vocab_size=$(vocabulary "$data_path")" training.micro_batch_size=2 hardware.threads=1 \
    "training.total_steps=$every" logging.eval_samples=2 logging.eval_interval=0 logging.checkpoint_at_end=false \
    logging.tensorboard=false
"$root/bench/two_hosts.sh" "$out/hosts" "$out/script" "$gbit" "$out/alone" "$out/two" "$rounds" \
    "$binary" --config "$root/configs/e3/small/baseline.ini" --data-path "$data_path" --resume none "${set[@]}"

python3 - "$out" "$rounds" "$every" <<'END_PYTHON'
import json, statistics, sys
out, rounds, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def steps(name, suffixes):
    return [json.loads(line) for n in range(1, rounds + 1) for suffix in suffixes
            for line in open(f"{out}/{name}{n}{suffix}/metrics.jsonl")]
alone, two = steps("alone", (".1", ".2")), steps("two", ("",))
within = lambda run: statistics.median(s["step_ms"] for s in run if s["step"] not in (1, every))
# What the last step of a round takes beyond the others, by its own clock; its evaluation is no part
# of step_ms.
end = statistics.median(s["phases_ms"]["gather"]["max"] for s in two if s.get("round_ended"))
step, base = within(two), within(alone)
sent = sum(s["comm_bytes"] for s in two) / rounds / every / two[0]["parameters"] / two[0]["ranks"]
print(f"alone {base:.0f} ms a step; two workers {step:.0f} ms a step and {end:.0f} ms at the end of a round")
print(f"bytes a parameter, step and rank: {sent:.4f}")
print(f"weak efficiency {100 * every * base / (every * step + end):.1f} % measured; "
      f"{100 * every * base / (every * base + end):.1f} % if a step of two takes as long as one alone")
END_PYTHON
