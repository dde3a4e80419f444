#!/usr/bin/env bash
# Hosts on this machine for the time of one script: network namespaces joined by cables (veth) whose
# rate can be set. Two hosts have one cable between them, more have one each to a bridge. Everything
# lives in namespaces of its own (mounts, network, host names, processes), so that nothing of it is
# seen outside and all of it ends with the script.
#
#   bench/two_hosts.sh [--layout HxR] --check           exit 0 when this machine allows it, else 77 and the reason
#   bench/two_hosts.sh [--layout HxR] DIR SCRIPT ...    sources SCRIPT with the hosts up; DIR holds their state; what
#                                                       follows SCRIPT are its arguments
#
#   --layout HxR    H hosts with R ranks each (2x1)
#
# A host has R cores where the machine has enough for all; where not, the hosts share its cores
# evenly and a host's ranks share one. SCRIPT can call:
#   set_link GBIT [LATENCY_US]   throttles each cable, each way; a latency is added where the kernel has netem
#   cut_link                     the cable of host 1 is gone
#   link_bytes                   prints what has left the hosts so far, headers included
#   link_payload N               prints what has left host N and what has come to it, without the 66 bytes of
#                                Ethernet, IP and TCP before each packet's payload
#   on_host N COMMAND...         runs a command on host N, on its cores
#   mpirun_hosts COMMAND...      the ranks on their hosts, over TCP on the cables; shared memory within a host
#   mpirun_without_network COMMAND...   as many ranks on the same cores, all on one host, through shared memory:
#                                what they take longer on the hosts is what the cables cost
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../launch/shared.sh"

skip() {
    echo "skipped: $*"
    exit 77
}
machine_cores=$(cores)
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
    [ "$layout_hosts" -eq 2 ] || "${own_namespaces[@]}" ip link add bridge0 type bridge 2>/dev/null ||
        skip 'the kernel makes no bridge, which more than two hosts need'
    [ "$machine_cores" -ge 2 ] || skip 'two hosts need two cores'
}

layout=2x1
if [ "${1:-}" = --layout ]; then
    layout=${2:-}
    shift 2 || shift
fi
[[ $layout =~ ^([2-9])x([1-9])$ ]] ||
    usage "--layout is '$layout'; expected HOSTSxRANKS, as 2x1 or 4x1"
layout_hosts=${BASH_REMATCH[1]} ranks_each=${BASH_REMATCH[2]}
if [ "${1:-}" != --inside ]; then
    case ${1:-} in
    --help | -h)
        print_help
        exit 0
        ;;
    --check) ;;
    -*) usage "unknown option '$1'" ;;
    esac
    check
    [ "${1:-}" != --check ] || exit 0
    [ $# -ge 2 ] || usage 'expected a directory and a script'
    exec "${own_namespaces[@]}" "$0" --layout "$layout" --inside "$@"
fi
mkdir -p "$2"
dir=$(cd "$2" && pwd)
script=$3
shift 3

# MPI names its files by host and process, which are the same in every such namespace: two scripts at
# once that share a directory for them, as the tests do, mistake one job for the other.
export TMPDIR=$dir/tmp OMPI_MCA_orte_top_session_dir=$dir/tmp
mkdir -p "$TMPDIR"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
printf '%s\n' '127.0.0.1 localhost' >"$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts
ip link set lo up
for ((n = 1; n <= layout_hosts; n++)); do
    echo "10.98.0.$n host$n" >>"$dir/hosts"
    ip netns add host$n
done
ends=() # of cables: NAMESPACE DEVICE
if [ "$layout_hosts" -eq 2 ]; then
    ip link add eth0 netns host1 type veth peer name eth0 netns host2
    ends=('host1 eth0' 'host2 eth0')
else
    ip netns add switch
    ip -n switch link add bridge0 type bridge
    ip -n switch link set bridge0 up
    for ((n = 1; n <= layout_hosts; n++)); do
        ip link add eth0 netns host$n type veth peer name port$n netns switch
        ip -n switch link set port$n master bridge0 up
        ends+=("host$n eth0" "switch port$n")
    done
fi
for ((n = 1; n <= layout_hosts; n++)); do
    ip -n host$n addr add 10.98.0.$n/24 dev eth0
    ip -n host$n link set eth0 up
    ip -n host$n link set lo up
    # Its cores, as taskset wants them.
    if [ "$machine_cores" -ge $((layout_hosts * ranks_each)) ]; then
        echo "$(((n - 1) * ranks_each))-$((n * ranks_each - 1))"
    else
        echo $(((n - 1) * machine_cores / layout_hosts))
    fi >"$dir/cores.host$n"
done

set_link() {
    local rate=$1 latency=${2:-0} burst segment end where
    # A burst is what may pass at once: half a millisecond's worth, at least a large frame's.
    burst=$(awk -v r="$rate" 'BEGIN { b = r * 1e9 / 8 * 0.0005; print int(b > 16384 ? b : 16384) }')
    # Segments that a burst holds pass whole, for cards to cut them: tbf would cut longer ones into
    # frames, which takes so much of a core that 1 Gbit/s comes out as 0.73.
    segment=$((burst < 65536 ? burst / 2 : 65536))
    for end in "${ends[@]}"; do
        read -ra where <<<"$end"
        ip -n "${where[0]}" link set "${where[1]}" gso_max_size $segment
        ip netns exec "${where[0]}" tc qdisc del dev "${where[1]}" root 2>/dev/null || true
        ip netns exec "${where[0]}" tc qdisc add dev "${where[1]}" root handle 1: tbf rate "${rate}gbit" \
            burst "${burst}b" limit $((burst + 4194304))
        [ "$latency" = 0 ] || [ "${where[0]}" = switch ] ||
            ip netns exec "${where[0]}" tc qdisc add dev "${where[1]}" parent 1: \
                netem delay "${latency}us" 2>/dev/null ||
            { echo "this kernel has no netem: the latency stays what it is"; latency=0; }
    done
}

cut_link() {
    ip -n host1 link set eth0 down
}

# counters N: bytes and packets that have come to host N, then those that have left it.
counters() {
    nsenter --net=/run/netns/host"$1" awk '$1 == "eth0:" { print $2, $3, $10, $11 }' /proc/net/dev
}

link_bytes() {
    local n sum=0 at
    for ((n = 1; n <= layout_hosts; n++)); do
        read -ra at < <(counters $n)
        sum=$((sum + at[2]))
    done
    echo "$sum"
}

link_payload() {
    local at
    read -ra at < <(counters "$1")
    echo "$((at[2] - 66 * at[3])) $((at[0] - 66 * at[1]))"
}

on_host() {
    local n=$1
    shift
    nsenter --net=/run/netns/host"$n" unshare --uts \
        sh -c 'hostname "$0" && exec taskset -c "$@"' host"$n" "$(cat "$dir/cores.host$n")" "$@"
}

# How mpirun starts its daemon on another host: AGENT HOST COMMAND..., as ssh would.
cat >"$dir/agent" <<END_AGENT
#!/bin/sh
host=\$1
shift
exec nsenter --net=/run/netns/"\$host" unshare --uts sh -c 'hostname "\$0" && exec taskset -c "\$1" sh -c "\$2"' \\
    "\$host" "\$(cat "$dir/cores.\$host")" "\$*"
END_AGENT
# A rank on one host, on the cores of the host that it would be on: COMMAND...
cat >"$dir/on_cores" <<END_ON_CORES
#!/bin/sh
exec taskset -c "\$(cat "$dir/cores.host\$((OMPI_COMM_WORLD_RANK / $ranks_each + 1))")" "\$@"
END_ON_CORES
chmod +x "$dir/agent" "$dir/on_cores"

all_ranks=$((layout_hosts * ranks_each))
mpi_options=(-np "$all_ranks" --map-by slot --bind-to none --mca pml ob1)
[ "$all_ranks" -le "$machine_cores" ] || mpi_options+=(--mca mpi_yield_when_idle 1)
places=$(for ((n = 1; n <= layout_hosts; n++)); do printf ',host%d:%d' $n "$ranks_each"; done)

# No shared memory between hosts, though the kernel would allow it: their names differ.
mpirun_hosts() {
    local within=self
    [ "$ranks_each" -eq 1 ] || within=self,vader
    on_host 1 mpirun --host "${places#,}" "${mpi_options[@]}" --mca plm rsh \
        --mca plm_rsh_agent "$dir/agent" --mca btl "$within,tcp" \
        --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
        --mca orte_keep_fqdn_hostnames 1 "$@"
}

mpirun_without_network() {
    nsenter --net=/run/netns/host1 unshare --uts \
        sh -c 'hostname host1 && exec "$@"' sh mpirun --host "host1:$all_ranks" "${mpi_options[@]}" \
        --mca btl self,vader "$dir/on_cores" "$@"
}

. "$script" "$@"
