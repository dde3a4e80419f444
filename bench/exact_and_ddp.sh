#!/usr/bin/env bash
# The exact formats beside a bf16 all-reduce, in one run: two hosts (network namespaces), one rank
# and one thread each, joined by a link of a given speed. Plain data parallelism (bench_ddp) and
# this program, with and without compressed gradients, take turns; prints their steps, ms, and what
# they send.
#
#   bench/exact_and_ddp.sh --config FILE [--build DIR] [--gbit 'RATE...'] [--rounds N] [--batch N] [--steps N]
#                          [--kinds 'KIND...'] [-- MORE ARGUMENTS]
#
#   --build DIR        default: build/release
#   --gbit 'RATE...'   of the link, each way (1); rates take turns too
#   --rounds N         of each (2)
#   --batch N          sequences of a step, an even number (2)
#   --steps N          of this program (8), whose first two do not count; bench_ddp takes half as many
#   --kinds 'KIND...'  of whole (grad_compression = off), exact (the default) and delta (weight_sync = delta)
#                      ('whole exact delta')
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

config='' build=build/release gbit=1 rounds=2 batch=2 steps=8 kinds='whole exact delta'
options 'config build gbit rounds batch steps kinds' "$@"
[ -n "$config" ] || usage '--config is needed'
declare -A settings=([whole]=dist.grad_compression=off [exact]=dist.weight_sync=full [delta]=dist.weight_sync=delta)
for kind in $kinds; do
    [ -n "${settings[$kind]:-}" ] || usage "--kinds has '$kind'; expected whole, exact or delta"
done
on_two_hosts "$@"
build=$(realpath "$build")
export OMP_NUM_THREADS=1

# on_both NAME COMMAND...: what it prints goes to $work/NAME.
on_both() {
    local name=$1
    shift
    mpirun_hosts "$@" --config "$config" --set hardware.threads=1 "${more[@]}" </dev/null >"$work/$name" 2>&1 ||
        { cat "$work/$name"; exit 1; }
}
for ((round = 1; round <= rounds; round++)); do
    for rate in $gbit; do
        set_link "$rate"
        on_both "ddp-$rate-$round" "$build/bench/bench_ddp" --set "training.batch_size=$((batch / 2))" \
            --steps $((steps / 2))
        for kind in $kinds; do
            on_both out "$build/nanochat_dist" --run-dir "$work/$kind-$rate-$round" --total-steps "$steps" \
                --set "training.batch_size=$batch" --set logging.checkpoint_interval=0 \
                --set logging.checkpoint_at_end=false --set logging.eval_interval=0 --set "${settings[$kind]}"
        done
    done
done
sed -n 's/^model name[^:]*: /CPU: /p' /proc/cpuinfo | head -n 1
python3 - "$work" "$rounds" "$kinds" "$gbit" <<'PY'
import json, statistics, sys
work, rounds, kinds, rates = sys.argv[1], range(1, int(sys.argv[2]) + 1), sys.argv[3].split(), sys.argv[4].split()

def row(rate, name, times, sent):
    each = ', '.join(f'{t:.0f}' for t in times)
    print(f"| {rate} | {name} | {each} | {statistics.median(times):.0f} | {sent / 1e6:.2f} |")

print("| link, Gbit/s | | steps, round by round, ms | median | sent, MB |\n|---|---|---|---|---|")
for rate in rates:
    ddp = [json.loads(open(f"{work}/ddp-{rate}-{r}").read().strip().splitlines()[-1]) for r in rounds]
    for kind in ("fp32", "bf16"):
        row(rate, f"{kind} all-reduce", [d[kind + "_ms"] for d in ddp], ddp[0][kind + "_bytes"])
    for name in kinds:
        runs = [[json.loads(line) for line in open(f"{work}/{name}-{rate}-{r}/metrics.jsonl")][2:] for r in rounds]
        row(rate, name, [statistics.median(s["step_ms"] for s in steps) for steps in runs],
            statistics.median(s["comm_bytes"] for steps in runs for s in steps))
PY
