#!/usr/bin/env bash
# Builds and installs nanochat_dist in a directory, without root. A C and a C++ compiler are the
# system's or an environment module's. MPI and HDF5 are too where `mpicc` and `h5cc` are on the path
# (or HDF5_ROOT is set); everything else that is missing, and these where they are missing, is
# downloaded as Debian packages and unpacked beside the program. Needs a Debian or Ubuntu system
# with apt-get and dpkg; nothing of it is changed.
#
#   launch/install_prefix.sh PREFIX [--cuda] [--list]
#
#   --cuda   build the CUDA backend too (nvcc on the path)
#   --list   only print the packages that would be unpacked
#
# Then:  . PREFIX/env.sh && nanochat_dist --help
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
. "$root/launch/unpacked.sh"

cuda='' list=''
options 'cuda! list! PREFIX...' "$@"
[ ${#operands[@]} -eq 1 ] || usage 'needs one directory'
prefix=${operands[0]}
for tool in cc c++; do
    command -v "$tool" >/dev/null ||
        fail "no $tool on the path: load a compiler module, or ask for gcc and g++"
done
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null ||
        fail "no $tool: this is not a Debian or Ubuntu system. Use launch/container, or modules for all of: $(
            "$root/launch/install_deps.sh" --build --names | tr '\n' ' ')"
done
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
[[ $prefix != *[[:space:]]* ]] || fail "'$prefix' has a space in it, which pkg-config cannot read"
cd "$root"

say() { printf '\n== [%d s] %s\n' "$SECONDS" "$*"; }

mapfile -t packages < <(
    skip='^(gcc|g\+\+'
    ! command -v mpicc >/dev/null || skip+='|openmpi-bin|libopenmpi-dev'
    [ -z "${HDF5_ROOT:-}" ] && ! command -v h5cc >/dev/null || skip+='|libhdf5-dev'
    launch/install_deps.sh --build --names | grep -vE "$skip)\$"
)
# apt-get with lists and downloads of its own.
state=$prefix/packages
mkdir -p "$state/lists/partial" "$state/archives/partial"
apt() {
    apt-get -q -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Dir::State::lists="$state/lists" \
        -o Dir::Cache="$state" -o Dir::Cache::archives="$state/archives" "$@"
}
say 'lists of packages'
[ -n "$(find "$state/lists" -name '*_Packages*' -print -quit)" ] || apt update >"$state/log" 2>&1 ||
    { cat "$state/log" >&2; fail 'apt-get update failed'; }
apt -s --no-install-recommends install "${packages[@]}" >"$state/plan" 2>"$state/log" ||
    { cat "$state/log" "$state/plan" >&2; fail 'apt-get finds no way to install the packages'; }
mapfile -t missing < <(awk '/^Inst / { print $2 }' "$state/plan")
if [ -n "$list" ]; then
    printf '%s\n' "${missing[@]}"
    exit 0
fi

cmake_arguments=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
    -DND_WERROR=OFF "-DND_CUDA=$([ -n "$cuda" ] && echo ON || echo OFF)"
    "-DCMAKE_INSTALL_PREFIX=$prefix")
: >"$prefix/env.sh"
if [ ${#missing[@]} -gt 0 ]; then
    say "${#missing[@]} packages, unpacked in $prefix/packages"
    (cd "$state/archives" && apt download "${missing[@]}" >"$state/log" 2>&1) ||
        { cat "$state/log" >&2; fail 'a download failed'; }
    unpack_packages "$state/root" "$state"/archives/*.deb
    rm -rf "$state/archives"
    use_unpacked "$state/root"
    unpacked_environment "$state/root" >"$prefix/env.sh"
fi
echo "export PATH=$prefix/bin:\$PATH" >>"$prefix/env.sh"

say "the build, in $state/build"
cmake -S . -B "$state/build" "${cmake_arguments[@]}" >"$state/log" 2>&1 ||
    { tail -n 30 "$state/log" >&2; fail "CMake failed; all it said is in $state/log"; }
cmake --build "$state/build" --parallel "$(cores)" --target nanochat_dist
cmake --install "$state/build"

say 'two ranks train a step'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$prefix/env.sh"
launcher 2
(cd "$work" && "${launch[@]}" nanochat_dist --config quickstart --dataset synthetic \
    --total-steps 1 --run-dir run)
printf '\n== Done in %d s. In each shell:\n\n    . %s/env.sh\n' "$SECONDS" "$prefix"
