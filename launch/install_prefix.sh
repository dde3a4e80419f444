#!/usr/bin/env bash
# Builds and installs nanochat_dist in a directory, without root. A C and a C++ compiler are the
# system's or an environment module's. MPI and HDF5 are too where `mpicc` and `h5cc` are on the path
# (or HDF5_ROOT is set); everything else that is missing, and these where they are missing, is
# downloaded as Debian packages and unpacked beside the program. Needs a Debian or Ubuntu system
# with apt-get and dpkg; nothing of it is changed. Started again, it builds what has changed, with
# the modules that are loaded then.
#
#   launch/install_prefix.sh PREFIX [--cuda] [--list]
#
#   --cuda   build the CUDA backend too (nvcc on the path)
#   --list   only print the packages that would be unpacked
#
# Then:  . PREFIX/env.sh && nanochat_dist --help       (env.sh loads the modules too)
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"
. "$root/launch/unpacked.sh"

cuda='' list=''
options 'cuda! list! PREFIX...' "$@"
[ ${#operands[@]} -eq 1 ] || usage 'needs one directory'
prefix=${operands[0]}
# Not what this shell has of an earlier run: that is not the system's, and may be replaced.
without_unpacked() { tr : '\n' <<<"$1" | grep -v '/packages/root/' | paste -sd: || true; }
PATH=$(without_unpacked "$PATH")
[ -z "${LD_LIBRARY_PATH:-}" ] || LD_LIBRARY_PATH=$(without_unpacked "$LD_LIBRARY_PATH")
[[ ${OPAL_PREFIX:-} != */packages/root/usr ]] || unset OPAL_PREFIX PMIX_INSTALL_PREFIX PRTE_PREFIX
# A compiler module may bring no cc and c++; the system's, which CMake would take, may be older.
if [ -z "${CC:-}${CXX:-}" ] && gcc=$(command -v gcc) && command -v g++ >/dev/null; then
    cc=$(command -v cc || true)
    [ "${gcc%/*}" = "${cc%/*}" ] || export CC=gcc CXX=g++
fi
for tool in "${CC:-cc}" "${CXX:-c++}"; do
    command -v "${tool%% *}" >/dev/null ||
        fail "no $tool on the path: load a compiler module, or ask for gcc and g++"
done
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null ||
        fail "no $tool: this is not a Debian or Ubuntu system. Use launch/container, or modules for all of: $(
            "$root/launch/install_deps.sh" --build --names | tr '\n' ' ')"
done
prefix=$(realpath -m -- "$prefix")
[[ $prefix != *[[:space:]:]* ]] ||
    fail "'$prefix' has a space or a colon in it, which pkg-config or the PATH cannot have"
umask 022 # what is installed is for all users
mkdir -p "$prefix"
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
mkdir -p "$state/lists/partial" "$state/archives/partial" # apt-get wants both
apt() {
    apt-get -q -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Dir::State::lists="$state/lists" \
        -o Dir::Cache="$state" -o Dir::Cache::archives="$state/archives" "$@"
}
say 'lists of packages'
# Without a network an earlier run's are used.
apt update >"$state/update" 2>&1 || true
[ -n "$(find "$state/lists" -name '*_Packages*' -print -quit)" ] ||
    { cat "$state/update" >&2; fail 'apt-get update got no lists of packages: is there a network?'; }
apt -s --no-install-recommends install "${packages[@]}" >"$state/plan" 2>"$state/log" ||
    { cat "$state/log" "$state/plan" "$state/update" >&2; fail "apt-get finds no way to install the packages; $(
        df -h --output=avail "$state" | tail -n 1 | tr -d ' ') are free in $state"; }
mapfile -t missing < <(awk '/^Inst / { print $2 }' "$state/plan")
if [ -n "$list" ]; then
    printf '%s\n' "${missing[@]}"
    exit 0
fi

cmake_arguments=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
    -DND_WERROR=OFF "-DND_CUDA=$([ -n "$cuda" ] && echo ON || echo OFF)"
    "-DCMAKE_INSTALL_PREFIX=$prefix")
environment=''
if [ ${#missing[@]} -gt 0 ]; then
    say "${#missing[@]} packages, unpacked in $state"
    versions=$(awk '/^Inst / { print $2, $3 }' "$state/plan")
    if [ "$(cat "$state/unpacked" 2>/dev/null)" != "$versions" ]; then # by an earlier run
        rm -rf "$state/unpacked" "$state/archives"
        mkdir -p "$state/archives/partial"
        (cd "$state/archives" && apt download "${missing[@]}" >"$state/log" 2>&1) ||
            { cat "$state/log" >&2; fail 'a download failed'; }
        unpack_packages "$state/root" "$state"/archives/*.deb
        rm -rf "$state/archives"
        printf '%s\n' "$versions" >"$state/unpacked"
    fi
    use_unpacked "$state/root"
    environment=$(unpacked_environment "$state/root")
fi

say "the build, in $state/build"
rm -f "$state/build/CMakeCache.txt" # which remembers where libraries were the last time
cmake -S . -B "$state/build" "${cmake_arguments[@]}" >"$state/log" 2>&1 ||
    { tail -n 30 "$state/log" >&2; fail "CMake failed; all it said is in $state/log"; }
cmake --build "$state/build" --parallel "$(cores)" --target nanochat_dist
cmake --install "$state/build" >"$state/log"
# Modules first, so that what was unpacked comes before them on the paths, as it did here.
{
    [ -z "${LOADEDMODULES:-}" ] || cat <<END
for nd_module in ${LOADEDMODULES//:/ }; do
    case ":\${LOADEDMODULES:-}:" in *":\$nd_module:"*) ;; *) module load "\$nd_module" ;; esac
done
END
    printf '%s\nexport PATH=%s/bin:$PATH\n' "$environment" "$prefix"
} >"$state/env.sh"
mv "$state/env.sh" "$prefix/env.sh"

say 'two ranks train a step'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$prefix/env.sh"
launcher 2
(cd "$work" && "${launch[@]}" nanochat_dist --config quickstart --dataset synthetic \
    --total-steps 1 --run-dir run) ||
    fail "the program is in $prefix, but two ranks do not train here, for the reason above.
  Where mpirun is for jobs only, start a job that sources $prefix/env.sh"
printf '\n== Done in %d s. In each shell:\n\n    . %s/env.sh\n' "$SECONDS" "$prefix"
