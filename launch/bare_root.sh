# Bare roots of distributions, for launch/try_distributions.sh and launch/cross_aarch64.sh; to be
# sourced. Expects $root (the checkout), $dir (where roots are kept; '' for a passing one) and
# $mirror ('' for the system's own), and fail() of launch/shared.sh.

bare_root_ready() {
    [ "$(id -u)" -eq 0 ] || fail 'needs root, for debootstrap and chroot'
    command -v debootstrap >/dev/null || fail 'needs debootstrap: apt-get install debootstrap'
    asked_mirror=$mirror
    if [ -z "$mirror" ]; then
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 2>/dev/null | sed -n 1p)
        [ -n "$mirror" ] || fail 'apt has no sources here; name a mirror with --mirror'
    fi
    bare_root_passing=''
    if [ -n "$dir" ]; then
        mkdir -p "$dir"
        dir=$(cd "$dir" && pwd)
    else
        dir=$(mktemp -d /var/tmp/bare_root.XXXXXX)
        bare_root_passing=$dir
    fi
    trap bare_root_leave EXIT
}

bare_root_leave() { [ -z "$bare_root_passing" ] || rm -rf --one-file-system "$bare_root_passing"; }

# bare_root_make SUITE: $dir/SUITE, with a fresh clone of HEAD in /root/nanochat_dist.
bare_root_make() {
    local target=$dir/$1
    if [ ! -e "$target/root/ready" ]; then
        local from=$mirror components=main script=''
        case $1 in
        jammy | noble) # Ubuntu's
            from=${asked_mirror:-http://archive.ubuntu.com/ubuntu} components=main,universe
            [ -e "/usr/share/debootstrap/scripts/$1" ] || script=/usr/share/debootstrap/scripts/gutsy
            ;;
        esac
        debootstrap --variant=minbase --components="$components" "$1" "$target" "$from" $script
        touch "$target/root/ready"
    fi
    cp -L /etc/resolv.conf "$target/etc/resolv.conf"
    [ -s "$target/etc/hosts" ] || echo '127.0.0.1 localhost' >"$target/etc/hosts" # else asked of a name server
    rm -rf "$target/root/nanochat_dist" "$target"/tmp/*
    git clone --quiet --no-hardlinks "$root" "$target/root/nanochat_dist"
}

# inside SUITE COMMAND [VARIABLE=VALUE...]: in the clone, in namespaces of its own, so that no mount
# or process outlives it.
inside() {
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -e
        target=$1 command=$2
        shift 2
        mount -t proc proc "$target/proc"
        mount --rbind /sys "$target/sys"
        mount --rbind /dev "$target/dev"
        mount -t tmpfs tmpfs "$target/dev/shm"
        exec chroot "$target" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 \
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$@" bash -c "cd /root/nanochat_dist && $command"' \
        inside "$dir/$1" "${@:2}" </dev/null
}
