#!/usr/bin/env bash
# Kills ranks of a run that launch/run.sh keeps going: 4 ranks on two hosts (bench/two_hosts.sh), a
# core each host. Every EVERY seconds one is killed at random, twice two at once, and in the middle
# the link between the hosts is cut instead, for 10 s. Before that the same run goes undisturbed.
# Prints every fault with the time from it to the next completed step, and at the end their median,
# the steps of the disturbed run as a part of those that the undisturbed one does in the same time,
# and whether both end in the same state.
#
#   bench/kills.sh DIR [SECONDS [EVERY]]     about 2 x SECONDS (300), a fault every EVERY (30)
set -euo pipefail
if ! declare -F cut_link >/dev/null; then
    . "$(dirname "$(readlink -f "$0")")/../launch/shared.sh"
    options 'DIR...' "$@"
    [ ${#operands[@]} -gt 0 ] || usage 'expected a directory'
    exec "$(dirname "$(readlink -f "$0")")/two_hosts.sh" "${operands[0]}" "$(realpath "$0")" \
        "$(dirname "$(realpath "$0")")" "${operands[1]:-300}" "${operands[2]:-30}"
fi
bench=$1 seconds=$2 every=$3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1

# As ssh: through the network, which a namespace alone does not need.
cat >"$dir/reach" <<END
#!/bin/sh
timeout 1 bash -c ">/dev/tcp/\$1/9" 2>&1 | grep -q refused || [ "\$1" = host1 ] || exit 255
exec "$dir/agent" "\$@"
END
chmod +x "$dir/reach"
export ND_AGENT=$dir/reach
export ND_MPIRUN_OPTIONS="--bind-to none --oversubscribe --mca plm rsh --mca plm_rsh_agent $dir/reach --mca pml ob1 \
--mca btl self,vader,tcp --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 --mca orte_keep_fqdn_hostnames 1"

train() { # NAME STEPS
    on_host 1 "$bench/../launch/run.sh" --hosts host1:2,host2:2 -- --config "$bench/kills.ini" \
        --run-dir "$dir/$1" --set "logging.snapshot_dir=/dev/shm/nd_kills.$$" --total-steps "$2"
}
rm -rf "$dir"/rate "$dir"/undisturbed "$dir"/disturbed
grep -m 1 'model name' /proc/cpuinfo
train rate 150 >"$dir/rate.log" 2>&1
steps=$(python3 "$bench/kills.py" rate "$dir/rate" "$seconds")
echo "$steps steps, about $seconds s"
train undisturbed "$steps" >"$dir/undisturbed.log" 2>&1
train disturbed "$steps" >"$dir/disturbed.log" 2>&1 &
job=$!
python3 "$bench/kills.py" kill "$dir/disturbed" "$every" "$steps" "$seconds"
code=0
wait $job || code=$?
echo "run.sh ended with $code; left in /dev/shm: $(ls -d /dev/shm/nd_kills.$$ 2>/dev/null | wc -l)"
python3 "$bench/kills.py" compare "$dir/undisturbed" "$dir/disturbed"
