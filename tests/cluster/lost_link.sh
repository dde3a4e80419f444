#!/usr/bin/env bash
# Two hosts train together, one rank each, and in the middle of it the link between them goes down.
#
#   tests/cluster/lost_link.sh --check                       exit 0 when this machine allows it,
#                                                            else 77
#   tests/cluster/lost_link.sh DIR PROGRAM CONFIG TIMEOUT [SECTION.KEY=VALUE...]
#
# Prints how mpirun ended; the milliseconds from the link's end to that, to the end of the last
# rank, and to that of mpirun's daemon on the other host; what of the job is left after 20 s more;
# what the ranks said.
set -euo pipefail
if ! declare -F cut_link >/dev/null; then
    . "$(dirname "$(readlink -f "$0")")/../../launch/shared.sh"
    case ${1:-} in --help | -h) print_help && exit ;; esac
    hosts=$(dirname "$(readlink -f "$0")")/../../bench/two_hosts.sh
    [ "${1:-}" != --check ] || exec "$hosts" --check
    exec timeout 120 "$hosts" "$1" "$(realpath "$0")" "$@"
fi
dir=$(realpath "$1") program=$2 config=$3 timeout=$4
shift 4
sets=()
for pair in "$@"; do sets+=(--set "$pair"); done
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# By default mpirun misses a host that is gone only after minutes (docs/distributed.md).
keepalive=(--mca oob_tcp_keepalive_time 1 --mca oob_tcp_keepalive_intvl 1
    --mca oob_tcp_keepalive_probes 1)

ranks() { pgrep -fc "^$program .*run-dir $dir/run" || true; }
now() { echo "${EPOCHREALTIME/./}"; }
export OMP_NUM_THREADS=1
mpirun_hosts "${keepalive[@]}" "$program" --config "$config" --run-dir "$dir/run" \
    --set "dist.timeout_seconds=$timeout" "${sets[@]}" >"$dir/out" 2>&1 &
job=$!
for ((i = 0; i < 600; i++)); do
    [ "$(wc -l 2>/dev/null <"$dir/run/metrics.jsonl" || echo 0)" -lt 10 ] || break
    sleep 0.05
done
echo "ranks $(ranks)"
cut_link
start=$(now)
last_rank=
for ((i = 0; i < 600; i++)); do
    [ -n "$last_rank" ] || [ "$(ranks)" -gt 0 ] || last_rank=$((($(now) - start) / 1000))
    kill -0 $job 2>/dev/null || [ -z "$last_rank" ] || break
    kill -0 $job 2>/dev/null || [ -n "${took:-}" ] || took=$((($(now) - start) / 1000))
    sleep 0.05
done
took=${took:-$((($(now) - start) / 1000))}
kill -KILL $job 2>/dev/null || true
code=0
wait $job || code=$?
echo "exit $code"
echo "took $took ms"
echo "ranks ended ${last_rank:-never} ms"
left() { pgrep -fa '^([^ ]*/)?(orted|mpirun|nanochat_dist) ' || true; }
for ((i = 0; i < 400; i++)); do
    [ -n "$(left)" ] || break
    sleep 0.05
done
echo "daemons ended $((($(now) - start) / 1000)) ms"
echo "left $(left | wc -l)"
cat "$dir/out"
