#!/usr/bin/env bash
# Fills a folder of at most 60 MB with all that launch/gpu_check.sh needs where there is a GPU and
# its driver, but perhaps no compiler, no MPI, no HDF5 and no network: the programs, device tests
# and benchmarks built for one architecture, every library they load but libc, the configurations,
# the losses of a CPU to compare with, and the scripts. cuBLASLt, NCCL and cuDNN are too large and
# are found there. It needs nvcc, no GPU; it runs on systems whose glibc is as new as this one's or
# newer.
#
#   launch/gpu_pack.sh DIR [--arch N] [--build DIR] [--jobs N]
#
#   --arch N     CUDA architecture: 90 (the default), 80, 89 ... or 90a
#   --build DIR  the build directory (build/gpu_pack)
#   --jobs N     compilations at once (as many as there are cores)
set -euo pipefail

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
cd "$root"
arch=90 build=build/gpu_pack jobs=$(cores)
options 'arch build jobs DIR...' "$@"
[ ${#operands[@]} -eq 1 ] || usage 'needs one directory'
dir=${operands[0]}
limit=$((60 * 1000 * 1000))
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DND_CUDA=ON -DBUILD_TESTING=OFF \
    "-DCMAKE_CUDA_ARCHITECTURES=$arch-real"
cmake --build "$build" --parallel "$jobs" --target nanochat_dist bench_throughput bench_ops \
    bench_gpu_attention device_tests

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
programs=(nanochat_dist bench/bench_throughput bench/bench_ops bench/bench_gpu_attention)
for program in "$build"/tests/cuda/device/cuda_*; do
    programs+=("${program#"$build"/}")
done
for program in "${programs[@]}"; do
    install -D -s "$build/$program" "$stage/$program"
done
grep -E '^ND_(CUDNN|NCCL)_INCLUDE_DIR:' "$build/CMakeCache.txt" >"$stage/CMakeCache.txt"
mkdir "$stage/configs"
cp -r configs/e3 "$stage/configs/"

# Open MPI finds its plugins below a prefix; those for networks of clusters stay away.
lib=usr/lib/$(gcc -print-multiarch)
prefix=(usr/share/openmpi "$lib/pmix2/lib/pmix")
for plugin in "/$lib"/openmpi/lib/openmpi3/mca_*.so; do
    case $plugin in
    *ucx* | *_ofi.so | *psm* | *openib* | *romio* | *spml* | *scoll* | *flux* | *slurm* | *portals*) ;;
    *) prefix+=("${plugin#/}") ;;
    esac
done
mkdir -p "$stage/usr/bin"
tar -C / -c "${prefix[@]}" | tar -C "$stage" -x
install -s "$(readlink -f "$(command -v orted)")" "$stage/usr/bin/orted"
install -s "$(readlink -f "$(command -v mpirun)")" "$stage/usr/bin/mpirun"

# What all of these load. libc's own parts must be the system's; libstdc++ and libgcc_s only serve
# where the system has none.
mkdir -p "$stage/lib/fallback"
mapfile -t loaded < <(find "$stage" -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + 2>/dev/null |
    awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u)
for library in "${loaded[@]}"; do
    case ${library##*/} in
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libutil.so.* | libresolv.so.* | libcuda.*) ;;
    libstdc++.so.* | libgcc_s.so.*) install "$library" "$stage/lib/fallback/" ;;
    *) install -s "$library" "$stage/lib/" ;;
    esac
done

# Minutes of a small machine: kept beside the build, by what the numbers follow from.
losses=$build/losses.$(cat configs/e3/small/*.ini "$build"/libnd_{core,optim,data,train}.a | sha256sum | cut -c 1-16)
for name in baseline full; do
    [ ! -d "$losses/$name.cpu" ] || continue
    rm -rf "$losses.part"
    "$stage/nanochat_dist" --config "configs/e3/small/$name.ini" --run-dir "$losses.part" \
        --dataset synthetic --n-samples 4096 --total-steps 50 --set hardware.target=cpu \
        --set hardware.precision=fp32 --set logging.checkpoint_at_end=false \
        --set logging.eval_interval=0 \
        --set logging.tensorboard=false >/dev/null
    mkdir -p "$losses"
    mv "$losses.part" "$losses/$name.cpu"
done
cp -r "$losses" "$stage/losses"

rm -f "$dir/programs.tar.xz"
tar -C "$stage" -c . | xz -T "$jobs" --lzma2=preset=2,dict=16MiB >"$dir/programs.tar.xz"
cp launch/gpu_check.sh launch/gpu_libraries.sh launch/shared.sh "$dir/"
mkdir -p "$dir/xz" # not every system has it
cp "$(command -v xz)" "$(ldd "$(command -v xz)" | awk '/liblzma/ { print $3 }')" "$dir/xz/"
bytes=$(du -cb "$dir" | tail -n 1 | cut -f 1)
echo "gpu_pack: ${#programs[@]} programs for sm_$arch, $(find "$stage/lib" -type f | wc -l) libraries," \
    "$(du -sm "$stage" | cut -f 1) MB unpacked, $((bytes / 1000000)) MB in $dir"
[ "$bytes" -le "$limit" ] || fail "more than the $((limit / 1000000)) MB that such a folder may have"
