# shellcheck shell=bash
# Two hosts on this machine, joined by one link: network namespaces with a veth pair. Sourced by scripts
# that run something under mpirun on both:
#
#   . two_hosts.sh; two_hosts_enter "$0" "$@"    starts the script again in namespaces of its own, with
#                                                which everything ends; exit 77 where that is not allowed
#   two_hosts_up DIR                             DIR holds what mpirun needs
#   two_hosts_mpirun ARGUMENT...                 mpirun on the first host, rank 0 there and rank 1 on the
#                                                second; replaces the shell
#   two_hosts_rate 1gbit                         how fast the link is
#   two_hosts_cut                                the link goes down

two_hosts_check() {
    skip() {
        echo "skipped: $*"
        exit 77
    }
    local own=(unshare --mount --net --uts --pid --fork --kill-child --mount-proc)
    [ "$(id -u)" -eq 0 ] || skip 'namespaces for two hosts need root'
    "${own[@]}" true 2>/dev/null || skip 'this machine does not allow namespaces (unshare)'
    command -v ip >/dev/null || skip 'no ip (iproute2)'
    "${own[@]}" ip link add eth0 type veth peer name eth1 2>/dev/null ||
        skip 'the kernel makes no veth device'
}

two_hosts_enter() {
    local script=$1
    shift
    [ "${TWO_HOSTS_INSIDE:-}" != yes ] || return 0
    two_hosts_check
    [ "${1:-}" != --check ] || exit 0
    export TWO_HOSTS_INSIDE=yes
    exec timeout "${TWO_HOSTS_SECONDS:-120}" \
        unshare --mount --net --uts --pid --fork --kill-child --mount-proc "$script" "$@"
}

two_hosts_up() {
    local n
    two_hosts_dir=$1
    mount --make-rprivate /
    # MPI names its files by host and process, which are the same in every such namespace.
    export TMPDIR=$two_hosts_dir/tmp
    mkdir -p "$TMPDIR"
    mount -t tmpfs tmpfs /run
    mkdir -p /run/netns
    for n in 1 2; do
        ip netns add h$n
        ip -n h$n link set lo up
    done
    ip link add eth0 netns h1 type veth peer name eth0 netns h2
    for n in 1 2; do
        ip -n h$n addr add 10.99.0.1$n/24 dev eth0
        ip -n h$n link set eth0 up
    done
    # Stands in for ssh.
    cat >"$two_hosts_dir/agent" <<'END'
#!/bin/sh
host=h${1##*.1}
shift
exec nsenter --net="/run/netns/$host" unshare --uts sh -c "hostname $host; exec sh -c '$*'"
END
    chmod +x "$two_hosts_dir/agent"
}

two_hosts_rate() {
    local n
    for n in 1 2; do
        ip netns exec h$n tc qdisc replace dev eth0 root tbf rate "$1" burst 256kb latency 50ms
    done
}

two_hosts_cut() {
    ip -n h1 link set eth0 down
}

# By default mpirun misses a host that is gone only after minutes (docs/distributed.md).
two_hosts_mpirun() {
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    exec nsenter --net=/run/netns/h1 unshare --uts sh -c 'hostname h1; exec "$@"' sh \
        mpirun --mca plm_rsh_agent "$two_hosts_dir/agent" --mca oob_tcp_if_include 10.99.0.0/24 \
        --mca btl_tcp_if_include 10.99.0.0/24 --mca btl self,tcp --bind-to none \
        --mca oob_tcp_keepalive_time 1 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 1 \
        -np 2 --host 10.99.0.11:1,10.99.0.12:1 "$@"
}
