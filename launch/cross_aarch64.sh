#!/usr/bin/env bash
# Cross-compiles for ARM (aarch64) and runs the suites of core, optim, data and dist, ranks under
# mpirun included, in qemu's user emulation. Compiler and build tools are native; libraries, mpirun
# and the program are ARM's. All is in a bare root that debootstrap makes; on the machine itself
# only the kernel's table of foreign programs (binfmt_misc) gets an entry while this runs, where it
# has none for aarch64. Needs root, a network, 5 GB of disk, and the packages debootstrap and
# qemu-user-static.
#
#   launch/cross_aarch64.sh [--dir DIR] [--suite SUITE] [--mirror URL] [--only REGEX] [--cpu CPU]
#
#   --dir DIR      keep the root and the log of the tests there, and use again what is there
#   --suite SUITE  of Debian (trixie)
#   --mirror URL   where the packages are (that of this system's own apt sources)
#   --only REGEX   the test programs to build and run, by module/name (those four modules)
#   --cpu CPU      what qemu emulates: neoverse-n1 has dot products but no SVE (all that it knows)
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
. "$root/launch/bare_root.sh"

dir='' suite=trixie mirror='' cpu='' only='^(core|optim|data|dist)/test_[a-z0-9_]*$'
options 'dir suite mirror only cpu' "$@"
bare_root_ready
command -v qemu-aarch64-static >/dev/null || fail 'needs qemu: apt-get install qemu-user-static'

binfmt=/proc/sys/fs/binfmt_misc ours=''
[ -e $binfmt/register ] || mount -t binfmt_misc none $binfmt
if ! grep -qs '^magic 7f454c460201010*0200b7' $binfmt/*; then
    ours=$binfmt/nd-aarch64
    # Magic and mask of an aarch64 ELF, as qemu-user-static's own file in /usr/share/binfmts has
    # them.
    head='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":nd-aarch64:M::$head:$mask:$(command -v qemu-aarch64-static):F" >$binfmt/register
fi
leave() {
    [ -z "$ours" ] || echo -1 >"$ours"
    bare_root_leave
}
trap leave EXIT

# libopenmpi-dev is unpacked, not installed: it wants a Fortran compiler of its own architecture,
# which would take the place of the native cross compiler.
libraries='libpmix-dev libhwloc-dev libevent-dev libhdf5-dev libiniparser-dev libjansson-dev libssl-dev
libdnnl-dev liblapacke-dev libopenblas-serial-dev libsentencepiece-dev libprotobuf-dev libprotobuf-c-dev
libcriterion-dev openmpi-bin'
bare_root_make "$suite"
inside "$suite" "set -e
    dpkg --add-architecture arm64
    apt-get -q update
    apt-get -q install -y --no-install-recommends cmake ninja-build pkg-config protobuf-c-compiler procps \
        gcc-aarch64-linux-gnu g++-aarch64-linux-gnu $(printf '%s:arm64 ' $libraries)
    cd /tmp
    apt-get -q -o APT::Sandbox::User=root download libopenmpi-dev:arm64
    dpkg -x libopenmpi-dev_*_arm64.deb /" >"$dir/packages.log" 2>&1 ||
    { tail -n 20 "$dir/packages.log" >&2; fail "installing failed: $dir/packages.log"; }
inside "$suite" "set -e
    export PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig
    cmake --preset release -DND_CUDA=OFF -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
        -DMPI_C_COMPILER=/usr/bin/mpicc.openmpi
    tests=\$(ctest --test-dir build/release -N --tests-regex '$only' |
        sed -n 's#^ *Test *\\#[0-9]*: \\(.*\\)/\\(.*\\)#\\1_\\2#p')
    cmake --build --preset release --parallel $(cores) --target nanochat_dist ranks_comm ranks_faults \$tests"
log=$dir/aarch64.tests.log
said=0
inside "$suite" "ctest --preset release --tests-regex '$only' --timeout 3000" \
    ${cpu:+"QEMU_CPU=$cpu"} 2>&1 |
    tee "$log" || said=1
echo "cross_aarch64: $log has what failed, if anything"
exit $said
