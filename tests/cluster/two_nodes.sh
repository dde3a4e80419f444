#!/usr/bin/env bash
# A Slurm of two nodes on this machine, for the time of one script. The nodes are network namespaces
# that a bridge joins; everything lives in namespaces of its own (mounts, network, host name,
# processes), so that nothing of it is seen outside and all of it ends with the script.
#
#   tests/cluster/two_nodes.sh --check          exit 0 when this machine allows it, else 77 and the
#                                               reason
#   tests/cluster/two_nodes.sh DIR SCRIPT ...   sources SCRIPT with the cluster up; DIR holds its
#                                               state
#
# SCRIPT can call `node_start N`, `node_kill N` and `nodes_wait`. Partitions: low (the default),
# whose jobs those in the partition high preempt and requeue. A node has one processor.
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../launch/shared.sh"

skip() {
    echo "skipped: $*"
    exit 77
}
own_namespaces=(unshare --mount --net --uts --pid --fork --kill-child --mount-proc)

check() {
    local command
    [ "$(id -u)" -eq 0 ] || skip 'namespaces for a cluster need root'
    "${own_namespaces[@]}" true 2>/dev/null || skip 'this machine does not allow namespaces (unshare)'
    for command in ip nsenter munged slurmctld slurmd sbatch; do
        command -v "$command" >/dev/null ||
            skip "no $command (launch/install_deps.sh --cluster)"
    done
    "${own_namespaces[@]}" sh -c 'ip link add br0 type bridge && ip link add to_n1 type veth peer name eth0' \
        2>/dev/null || skip 'the kernel makes no bridge or veth device'
}

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
    # A cluster that hangs ends here, with all its processes.
    exec timeout 400 "${own_namespaces[@]}" "$0" --inside "$@"
fi
dir=$2
mkdir -p "$dir/controller"
dir=$(cd "$dir" && pwd)
script=$3
shift 3

mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/munge /run/node
hostname controller
printf '%s\n' '127.0.0.1 localhost' '10.99.0.1 controller' '10.99.0.11 n1' '10.99.0.12 n2' >"$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts

ip link set lo up
ip link add br0 type bridge
ip addr add 10.99.0.1/24 dev br0
ip link set br0 up
for n in 1 2; do
    ip netns add n$n
    ip link add to_n$n type veth peer name eth0 netns n$n
    ip link set to_n$n master br0
    ip -n n$n addr add 10.99.0.1$n/24 dev eth0
    ip -n n$n link set eth0 up
    ip -n n$n link set lo up
done

head -c 1024 /dev/urandom >/run/munge/key
chmod 400 /run/munge/key
munged --force --key-file /run/munge/key --socket /run/munge/socket --pid-file /run/munge/pid \
    --log-file /run/munge/log --seed-file /run/munge/seed

# Nodes are found dead within seconds; a job that is told to end has five of them.
cat >"$dir/slurm.conf" <<END
ClusterName=two_nodes
SlurmctldHost=controller(10.99.0.1)
AuthInfo=socket=/run/munge/socket
SlurmUser=root
StateSaveLocation=$dir/controller
SlurmdSpoolDir=/run/node/spool
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/node/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
SlurmdTimeout=5
MessageTimeout=3
KillWait=5
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1
NodeName=n1 NodeAddr=10.99.0.11 CPUs=1
NodeName=n2 NodeAddr=10.99.0.12 CPUs=1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=off
END
# PMIx keeps files by job, which two nodes must not share.
echo PMIxCliTmpDirBase=/run/node >"$dir/mpi.conf"
export SLURM_CONF=$dir/slurm.conf

# `ip netns exec` would mount another /sys, in which slurmd finds no cgroups; nsenter leaves it.
node_start() {
    ip link set "to_n$1" up
    # Not a job of this shell, which would tell of its death.
    (nsenter --net="/run/netns/n$1" unshare --mount --uts bash -c "hostname n$1
        mount -t tmpfs tmpfs /run/node && mkdir /run/node/spool && exec slurmd -D -N n$1" \
        >>"$dir/slurmd_n$1.log" 2>&1 &)
}

# As when the power fails: the link goes down, and every process of the node at once.
node_kill() {
    local process namespace
    namespace=$(stat -Lc %i "/run/netns/n$1")
    ip link set "to_n$1" down
    for process in /proc/[0-9]*; do
        if [ "$(stat -Lc %i "$process/ns/net" 2>/dev/null)" = "$namespace" ]; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
}

nodes_wait() {
    local i
    for ((i = 0; i < 150; i++)); do
        [ "$(sinfo --noheader --Node --partition low -o %T 2>/dev/null | grep -c -x idle)" -ne 2 ] ||
            return 0
        sleep 0.2
    done
    echo "the nodes are not idle after 30 s:"
    sinfo --Node || true
    tail -n 5 "$dir"/*.log
    return 1
}

slurmctld -D >"$dir/slurmctld.log" 2>&1 &
node_start 1
node_start 2
nodes_wait
. "$script" "$@"
