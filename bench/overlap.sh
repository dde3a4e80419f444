#!/usr/bin/env bash
# What overlapping communication with computation gains: two hosts (network namespaces), one rank and one
# thread each, joined by a link of a given speed. Runs with and without alternate; prints the medians of
# their steps, ms.
#
#   bench/overlap.sh PROGRAM CONFIG RATE ROUNDS [SECTION.KEY=VALUE...]     e.g. build/release/... 1gbit 3
set -euo pipefail
export TWO_HOSTS_SECONDS=1200
. "$(dirname "$0")/../tests/cluster/two_hosts.sh"
two_hosts_enter "$0" "$@"
program=$(realpath "$1") config=$(realpath "$2") rate=$3 rounds=$4
shift 4
sets=()
for pair in "$@"; do sets+=(--set "$pair"); done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
two_hosts_up "$work"
two_hosts_rate "$rate"
export OMP_NUM_THREADS=1
for ((round = 1; round <= rounds; round++)); do
    for overlap in true false; do
        (two_hosts_mpirun "$program" --config "$config" --run-dir "$work/$overlap-$round" \
            --set "dist.overlap=$overlap" "${sets[@]}") >"$work/out" 2>&1 ||
            { cat "$work/out"; exit 1; }
    done
done
python3 - "$work" "$rate" <<'PY'
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
