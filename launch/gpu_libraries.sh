# Where launch/gpu_check.sh has its programs and libraries from; to be sourced. Expects $here (their
# folder), $work (a temporary one), $pack, $deps, $build, $root and cmake_arguments as they stand
# there, and may change them.

system_libraries=${LD_LIBRARY_PATH:-} # Python's; none of ours is meant for it
use_libraries() { export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$1; }
has_library() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q "$1"; }
python() { LD_LIBRARY_PATH=$system_libraries python3 "$@"; }

# Open MPI below another prefix than it was built for.
relocate_mpi() {
    export OPAL_PREFIX=$1 PMIX_INSTALL_PREFIX=$1 PRTE_PREFIX=$1 PATH=$1/bin:$PATH
    # Plugins for networks that the machine has no libraries for.
    export OMPI_MCA_mca_base_component_show_load_errors=0 PMIX_MCA_pcompress_base_silence_warning=1
}

# What was built elsewhere, with all that it loads.
unpack_programs() {
    mkdir "$work/pack"
    LD_LIBRARY_PATH=$pack/xz "$pack/xz/xz" -dc "$pack/programs.tar.xz" |
        tar -x -C "$work/pack" || return 1
    build=$work/pack root=$work/pack
    LD_LIBRARY_PATH=$build/lib${system_libraries:+:$system_libraries}
    # The system's are newer, and libraries of CUDA may want them so.
    { has_library 'libstdc++\.so\.6 ' && has_library 'libgcc_s\.so\.1 '; } ||
        use_libraries "$build/lib/fallback"
    relocate_mpi "$build/usr"
    export LD_LIBRARY_PATH
    "$build/nanochat_dist" --version # fails most often because libc is older than the builder's
}

# The packages, unpacked below the build directory, and what finds them there.
use_packages() {
    . "$here/unpacked.sh"
    unpack_packages "$build/deps" "$deps"/*.deb || return 1
    use_unpacked "$build/deps"
    cmake_arguments+=(-DBUILD_TESTING=OFF)
    mpirun --version # fails most often because libc is older than the packages'
}

# The first files of NVIDIA's Python packages that are like each of the patterns below nvidia/.
in_python() {
    python - "$@" 2>/dev/null <<'P'
import glob, os, site, sys
bases = site.getsitepackages() + [site.getusersitepackages()] + sys.path
for pattern in sys.argv[1:]:
    found = (f for b in bases for f in glob.glob(os.path.join(b, "nvidia", pattern), recursive=True))
    print(next(found, ""))
P
}
# cuBLASLt, NCCL, cuDNN and what it compiles with are the machine's own: beside CUDA or in Python
# packages. Says which are nowhere.
find_nvidia() {
    local names=(libcublasLt.so libnccl.so libcudnn.so libnvrtc.so) headers=(cublasLt.h nccl.h cudnn_graph.h)
    local found=() includes='' i path folder
    # The driver's own folder, where the loader does not know it.
    if path=$(command -v nvidia-smi) && ! has_library 'libcuda\.so\.1 '; then
        folder=$(dirname "$(dirname "$(readlink -f "$path")")")/lib64
        [ ! -e "$folder/libcuda.so.1" ] || use_libraries "$folder"
    fi
    mapfile -t found < <(in_python '**/libcublasLt.so.*' '**/libnccl.so.*' '**/libcudnn.so.*' \
        '**/libnvrtc.so.*' "${headers[@]/#/**/}")
    for i in "${!names[@]}"; do
        for folder in /usr/local/cuda/lib64 /usr/local/cuda/lib "$(dirname "${found[i]:-/}")"; do
            path=$(compgen -G "$folder/${names[i]}*" | head -n 1)
            [ -z "$path" ] || break
        done
        if [ -n "$path" ]; then
            use_libraries "${path%/*}"
        elif ! has_library "${names[i]}"; then
            echo "no ${names[i]}: not beside CUDA, not in a Python package, not where the loader looks"
        fi
    done
    for i in "${!headers[@]}"; do
        path=${found[${#names[@]} + i]:-}
        [ -z "$path" ] || [ -e "/usr/local/cuda/include/${headers[i]}" ] || includes=${includes:+$includes;}${path%/*}
    done
    [ -z "$includes" ] || cmake_arguments+=("-DND_CUDA_INCLUDE_DIRS=$includes")
}
