#!/usr/bin/env bash
# Rehearses launch/gpu_check.sh without a GPU: starts the folder that launch/gpu_pack.sh filled in a
# bare root of a later distribution (no MPI, no HDF5, no compiler), with a driver that has no device
# (tests/cuda/driver_standin.c) and a script in nvidia-smi's place, three times: as root without
# Python, as root with NVIDIA's libraries in Python packages, and so as a user. Everything must go
# as far as CUDA's runtime, which finds no device: it does not accept a stand-in for one, so no
# kernel is launched. Needs root, a network, debootstrap and 3 GB of disk.
#
#   launch/gpu_rehearsal.sh PACK [--suite SUITE] [--dir DIR] [--mirror URL] [--nvidia DIR]
#
#   --suite SUITE  what debootstrap knows (trixie)
#   --dir DIR      keep the root and the logs there; a root that is there already is used again
#   --mirror URL   where the packages are (that of this system's own apt sources)
#   --nvidia DIR   where libcublasLt, libnccl, libcudnn* and libnvrtc* are (/usr/local/cuda/lib64)
#
# Prints what each run came to; exits 1 when one fell short.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
. "$root/launch/bare_root.sh"

suite=trixie dir='' mirror='' nvidia=/usr/local/cuda/lib64
options 'suite dir mirror nvidia PACK...' "$@"
[ ${#operands[@]} -eq 1 ] || usage 'needs one folder, PACK'
pack=${operands[0]}
[ -e "$pack/programs.tar.xz" ] || fail "no programs.tar.xz in '$pack' (see launch/gpu_pack.sh)"
[ -e "$nvidia/libcudnn.so.9" ] || nvidia=${nvidia/lib64/lib}
[ -e "$nvidia/libcudnn.so.9" ] || fail "no libcudnn.so.9 in $nvidia; name its folder with --nvidia"
bare_root_ready
bare_root_make "$suite"
target=$dir/$suite

# The driver lies where no loader looks, beside its nvidia-smi.
mkdir -p "$target"/srv/{pack,driver/bin,driver/lib64}
cp -r "$pack/." "$target/srv/pack/"
gcc -shared -fPIC -o "$target/srv/driver/lib64/libcuda.so.1" -Wl,-soname,libcuda.so.1 \
    "$root/tests/cuda/driver_standin.c"
cat >"$target/srv/driver/bin/nvidia-smi" <<'S'
#!/bin/sh
case "$*" in
-L) echo 'GPU 0: stand-in' ;;
*compute_cap*) echo 9.0 ;;
*name*) echo 'stand-in, no driver, 0 MiB' ;;
*) echo 'nvidia-smi: a stand-in' ;;
esac
S
chmod +x "$target/srv/driver/bin/nvidia-smi"

# As wheels lay them out; hard links where the disk is the same.
python_packages() {
    local site=$target/usr/lib/python3/dist-packages/nvidia part
    inside "$suite" 'command -v python3 >/dev/null ||
        { apt-get -q update && apt-get -q install -y --no-install-recommends python3-minimal; }'
    for part in cu13:cublasLt cu13:nvrtc nccl:nccl cudnn:cudnn; do
        mkdir -p "$site/${part%:*}/lib"
        for library in "$nvidia/lib${part#*:}"*.so.[0-9]*; do
            cp -lLf "$library" "$site/${part%:*}/lib/" 2>/dev/null ||
                cp -Lf "$library" "$site/${part%:*}/lib/"
        done
    done
}
tried() { # NAME WHO: both calls, as WHO (root or nobody)
    local as='' run="env PATH=\$PATH:/srv/driver/bin HOME=/tmp/$1 bash /srv/pack/gpu_check.sh --out /tmp/$1 --call"
    [ "$2" = root ] || as='setpriv --reuid=65534 --regid=65534 --clear-groups'
    inside "$suite" "mkdir -p /tmp/$1 && chmod 777 /tmp/$1; cd /tmp; $as $run 1; $as $run 2; true" \
        >"$dir/$1.log" 2>&1
}
short=false
# wants NAME FILE PATTERN: a line like it.
wants() {
    if grep -qE "$3" "$target/tmp/$1/$2"; then
        echo "$1: $(grep -m 1 -E "$3" "$target/tmp/$1/$2")"
    else
        echo "$1: FELL SHORT: no '$3' in $2"
        short=true
    fi
}
judge() { # NAME LIBRARIES
    local word
    wants "$1" raw1.txt '^nanochat_dist [0-9]'
    wants "$1" raw1.txt 'target = cuda, but this host has no CUDA device: no CUDA-capable device'
    wants "$1" raw1.txt '^SKIPPED: no CUDA device'
    wants "$1" raw2.txt 'no CUDA device'
    wants "$1" report2.md '^failed:|not run:'
    tar -tzf "$target/tmp/$1/runs1.tar.gz" >"$target/tmp/$1/kept"
    wants "$1" kept 'runs/seed/metrics.jsonl' # a step on the CPU: MPI, HDF5, oneDNN
    for word in $2; do
        wants "$1" raw1.txt "^$word +[0-9]"
    done
    if grep -nE 'GLIBC|error while loading|cannot execute|OPAL ERROR|PMIX ERROR' \
        "$target/tmp/$1"/raw?.txt "$dir/$1.log"; then
        echo "$1: FELL SHORT: see above"
        short=true
    fi
}

tried bare root
judge bare ''
python_packages
for who in root nobody; do
    tried "packages_$who" $who
    judge "packages_$who" 'cuBLASLt NCCL cuDNN NVRTC'
done
! $short
