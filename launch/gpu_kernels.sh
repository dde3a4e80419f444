#!/usr/bin/env bash
# Writes the table of docs/gpu_kernels.md: registers, stack frame, spills and shared memory of every
# kernel, as ptxas reports them for one architecture; int8_hopper.cu is compiled for 90a, as in the
# build. Below it, where cuobjdump is found, the tensor-core and TMA instructions of that file's
# machine code. Needs nvcc, no GPU.
#
#   launch/gpu_kernels.sh [ARCH]     ARCH: 90 (the default), 80, 89 ...
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
cd "$root"
options 'ARCH...' "$@"
arch=${operands[0]:-90}
[[ $arch =~ ^[0-9]+$ ]] || usage "'$arch' is not an architecture"
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || fail 'there is no nvcc on the path or in /usr/local/cuda/bin'

echo '| kernel | file | registers | stack | spill stores | spill loads | static shared |'
echo '|---|---|---|---|---|---|---|'
for file in cuda/*.cu; do
    case $file in */matmul_lt.cu | */device_info.cu | */backend.cu) continue ;; esac
    this=$arch
    [ "$file" != cuda/int8_hopper.cu ] || this=90a
    "$nvcc" -std=c++17 -O3 "-arch=sm_$this" -Xptxas -v -Isrc -Icuda -c "$file" -o /dev/null 2>&1 |
        c++filt | awk -v file="$(basename "$file")" '
        /Compiling entry function/ {
            name = $0
            sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
            sub(/^void /, "", name); gsub(/\(anonymous namespace\)::/, "", name)
            sub(/\(.*/, "", name); gsub(/\(int\)/, "", name)
        }
        /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
        /Used [0-9]+ registers/ {
            shared = 0
            for (i = 1; i <= NF; i++) {
                if ($i == "Used") registers = $(i + 1)
                if ($i ~ /^smem/) shared = $(i - 2)
            }
            printf "| `%s` | %s | %s | %s | %s | %s | %s |\n", name, file, registers, stack,
                stores, loads, shared
        }'
done

command -v cuobjdump >/dev/null || exit 0
code=$(mktemp)
trap 'rm -f "$code"' EXIT
"$nvcc" -std=c++17 -O3 -arch=sm_90a -Isrc -Icuda -cubin -o "$code" cuda/int8_hopper.cu 2>/dev/null
echo
echo '| instruction of int8_hopper.cu | times |'
echo '|---|---|'
cuobjdump -sass "$code" |
    grep -oE '\b(IGMMA|HGMMA|IMMA|UTMALDG|USETMAXREG|SYNCS)[A-Z0-9.]*[0-9x]*[A-Z0-9.]*' | LC_ALL=C sort |
    uniq -c | awk '{ printf "| `%s` | %s |\n", $2, $1 }'
