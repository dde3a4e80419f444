#!/usr/bin/env bash
# What overlapping communication with computation gains: two hosts (network namespaces), one rank
# and one thread each, joined by a link of a given speed. Runs with and without alternate; prints
# the medians of their steps, ms.
#
#   bench/overlap.sh --config FILE [--binary FILE] [--gbit RATE] [--rounds N] [-- MORE ARGUMENTS OF train]
#
#   --binary FILE    default: build/release/nanochat_dist
#   --gbit RATE      of the link, each way (1)
#   --rounds N       runs with and without (3)
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

config='' binary=build/release/nanochat_dist gbit=1 rounds=3
options 'config binary gbit rounds' "$@"
[ -n "$config" ] || usage '--config is needed'
on_two_hosts "$@"
set_link "$gbit"
export OMP_NUM_THREADS=1
for ((round = 1; round <= rounds; round++)); do
    for overlap in true false; do
        mpirun_hosts "$(realpath "$binary")" --config "$config" --run-dir "$work/$overlap-$round" \
            --set "dist.overlap_grad_reduce=$overlap" "${more[@]}" >"$work/out" 2>&1 ||
            { cat "$work/out"; exit 1; }
    done
done
python3 - "$work" "$gbit Gbit/s" <<'PY'
import glob, json, statistics, sys
print("| link | overlap | step | comm_wait | comm_busy | sent, MB |\n|---|---|---|---|---|---|")
for overlap in ("false", "true"):
    steps = []
    for path in glob.glob(f"{sys.argv[1]}/{overlap}-*/metrics.jsonl"):
        steps += [json.loads(line) for line in open(path)][2:]
    median = lambda key: statistics.median(s[key] for s in steps)
    print(f"| {sys.argv[2]} | {overlap} | {median('step_ms'):.1f} | {median('comm_wait_ms'):.1f} | "
          f"{median('comm_busy_ms'):.1f} | {median('comm_bytes') / 1e6:.1f} |")
PY
