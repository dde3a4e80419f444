#!/usr/bin/env bash
# Two hosts on this machine for the time of one script: network namespaces joined by a cable (veth) whose
# rate can be set. Everything lives in namespaces of its own (mounts, network, host names, processes), so
# that nothing of it is seen outside and all of it ends with the script.
#
#   bench/two_hosts.sh --check           exit 0 when this machine allows it, else 77 and the reason
#   bench/two_hosts.sh DIR SCRIPT ...    sources SCRIPT with the hosts up; DIR holds their state; what follows
#                                        SCRIPT are its arguments
#
# SCRIPT can call:
#   set_link GBIT [LATENCY_US]   throttles the cable, each way; a latency is added where the kernel has netem
#   cut_link                     the cable is gone
#   link_bytes                   prints what has gone over the cable so far, both ways, headers included
#   on_host N COMMAND...         runs a command on host 1 or 2, on core N - 1
#   mpirun_hosts COMMAND...      one rank on each host, one core each, over TCP on the cable
set -euo pipefail

skip() {
    echo "skipped: $*"
    exit 77
}
own_namespaces=(unshare --mount --net --uts --pid --fork --kill-child --mount-proc)

check() {
    local command
    [ "$(id -u)" -eq 0 ] || skip 'network namespaces need root'
    for command in unshare nsenter ip tc mpirun taskset; do
        command -v "$command" >/dev/null ||
            skip "no $command (launch/install_deps.sh --build --cluster)"
    done
    "${own_namespaces[@]}" true 2>/dev/null || skip 'this machine does not allow namespaces (unshare)'
    "${own_namespaces[@]}" sh -c 'ip link add end1 type veth peer name end2 &&
        tc qdisc add dev end1 root tbf rate 1gbit burst 80kb latency 50ms' 2>/dev/null ||
        skip 'the kernel makes no veth device or throttles none (tc tbf)'
    [ "$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)" -ge 2 ] || skip 'two hosts need two cores'
}

if [ "${1:-}" != --inside ]; then
    case ${1:-} in
    --help | -h)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    esac
    check
    [ "${1:-}" != --check ] || exit 0
    [ $# -ge 2 ] || { echo "two_hosts: expected a directory and a script (see --help)" >&2; exit 2; }
    exec "${own_namespaces[@]}" "$0" --inside "$@"
fi
mkdir -p "$2"
dir=$(cd "$2" && pwd)
script=$3
shift 3

# MPI names its files by host and process, which are the same in every such namespace.
export TMPDIR=$dir/tmp
mkdir -p "$TMPDIR"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
printf '%s\n' '127.0.0.1 localhost' '10.98.0.1 host1' '10.98.0.2 host2' >"$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts
ip link set lo up
ip netns add host1
ip netns add host2
ip link add eth0 netns host1 type veth peer name eth0 netns host2
for n in 1 2; do
    ip -n host$n addr add 10.98.0.$n/24 dev eth0
    ip -n host$n link set eth0 up
    ip -n host$n link set lo up
done

set_link() {
    local rate=$1 latency=${2:-0} burst n
    # A burst is what may pass at once: half a millisecond's worth, at least a large frame's.
    burst=$(awk -v r="$rate" 'BEGIN { b = r * 1e9 / 8 * 0.0005; print int(b > 16384 ? b : 16384) }')
    for n in 1 2; do
        ip netns exec host$n tc qdisc del dev eth0 root 2>/dev/null || true
        ip netns exec host$n tc qdisc add dev eth0 root handle 1: tbf rate "${rate}gbit" \
            burst "${burst}b" limit $((burst + 4194304))
        [ "$latency" = 0 ] || ip netns exec host$n tc qdisc add dev eth0 parent 1: \
            netem delay "${latency}us" 2>/dev/null ||
            { echo "this kernel has no netem: the latency stays what it is"; latency=0; }
    done
}

cut_link() {
    ip -n host1 link set eth0 down
}

link_bytes() {
    local n sum=0
    for n in 1 2; do
        sum=$((sum + $(nsenter --net=/run/netns/host$n awk '$1 == "eth0:" { print $10 }' \
            /proc/net/dev)))
    done
    echo "$sum"
}

on_host() {
    local n=$1
    shift
    nsenter --net=/run/netns/host"$n" unshare --uts \
        sh -c 'hostname "$0" && exec taskset -c "$@"' host"$n" $((n - 1)) "$@"
}

# How mpirun starts its daemon on host 2: AGENT HOST COMMAND..., as ssh would.
cat >"$dir/agent" <<'END_AGENT'
#!/bin/sh
host=$1
shift
exec nsenter --net=/run/netns/"$host" unshare --uts \
    sh -c 'hostname "$0" && exec taskset -c 1 sh -c "$1"' "$host" "$*"
END_AGENT
chmod +x "$dir/agent"

# btl self,tcp: no shared memory between the two, though the kernel would allow it.
mpirun_hosts() {
    on_host 1 mpirun --host host1:1,host2:1 -np 2 --bind-to none --mca plm rsh \
        --mca plm_rsh_agent "$dir/agent" --mca pml ob1 --mca btl self,tcp \
        --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
        --mca orte_keep_fqdn_hostnames 1 "$@"
}

. "$script" "$@"
