#!/usr/bin/env bash
# The exact formats beside a bf16 all-reduce, in one run: two hosts (network namespaces), one rank and one thread
# each, joined by a link of a given speed. Plain data parallelism (bench_ddp) and this program, with and without
# shortened gradients, take turns; prints the medians of their steps, ms, and what they send.
#
#   bench/exact_and_ddp.sh --config FILE [--build DIR] [--gbit RATE] [--rounds N] [--batch N] [-- MORE ARGUMENTS]
#
#   --build DIR      default: build/release
#   --gbit RATE      of the link, each way (1)
#   --rounds N       of each (2)
#   --batch N        sequences of a step, an even number (2)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

config='' build=build/release gbit=1 rounds=2 batch=2
options 'config build gbit rounds batch' "$@"
[ -n "$config" ] || fail '--config is needed (see --help)'
on_two_hosts "$@"
build=$(realpath "$build")
set_link "$gbit"
export OMP_NUM_THREADS=1

# ours NAME ARGUMENTS...
ours() {
    local name=$1
    shift
    mpirun_hosts "$build/nanochat_dist" --config "$config" --run-dir "$work/$name-$round" --total-steps 8 \
        --set "training.batch_size=$batch" --set hardware.threads=1 --set logging.checkpoint_interval=0 \
        --set logging.checkpoint_at_end=false --set logging.eval_interval=0 "${more[@]}" "$@" \
        </dev/null >"$work/out" 2>&1 || { cat "$work/out"; exit 1; }
}
for ((round = 1; round <= rounds; round++)); do
    mpirun_hosts "$build/bench/bench_ddp" --config "$config" --set "training.batch_size=$((batch / 2))" \
        --set hardware.threads=1 "${more[@]}" --steps 4 </dev/null >"$work/ddp-$round" 2>&1 ||
        { cat "$work/ddp-$round"; exit 1; }
    ours whole --set dist.shorten_gradients=off
    ours exact
    ours delta --set dist.weight_sync=delta
done
python3 - "$work" "$gbit Gbit/s" <<'PY'
import glob, json, statistics, sys
work, link = sys.argv[1:]
print("| link | | steps, round by round | sent, MB |\n|---|---|---|---|")
ddp = [json.loads(open(path).read().strip().splitlines()[-1]) for path in sorted(glob.glob(f"{work}/ddp-*"))]
for kind in ("fp32", "bf16"):
    times = ", ".join(f"{d[kind + '_ms']:.0f}" for d in ddp)
    print(f"| {link} | {kind} all-reduce | {times} | {ddp[0][kind + '_bytes'] / 1e6:.2f} |")
for name in ("whole", "exact", "delta"):
    times, sent = [], []
    for path in sorted(glob.glob(f"{work}/{name}-*/metrics.jsonl")):
        steps = [json.loads(line) for line in open(path)][2:]
        times.append(f"{statistics.median(s['step_ms'] for s in steps):.0f}")
        sent += [s["comm_bytes"] for s in steps]
    print(f"| {link} | {name} | {', '.join(times)} | {statistics.median(sent) / 1e6:.2f} |")
PY
