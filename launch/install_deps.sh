#!/usr/bin/env bash
# Installs the Debian packages that building, testing and the quickstart need, and only those that
# are missing. Asks nothing. Without arguments: all but those of --cluster and --fuzz.
#
#   launch/install_deps.sh [--build] [--test] [--quickstart] [--report] [--cluster] [--fuzz]
#                          [--check] [--names]
#
#   --build        what compiling and running nanochat_dist needs
#   --test         what launch/test.sh and launch/coverage.sh need besides
#   --quickstart   the text that launch/quickstart.sh trains on
#   --report       what `nanochat_dist report` runs on
#   --cluster      a Slurm of two nodes on this machine, for tests/cluster
#   --fuzz         what launch/fuzz.sh needs
#   --names        install nothing; print the names of the packages
#   --check        install nothing; name what is missing and exit 1 when something is
set -euo pipefail

# group, package, what for
packages='
build gcc                  compiles the C sources
build g++                  compiles the bridge to SentencePiece
build cmake                configures the build
build ninja-build          runs the build
build pkg-config           tells CMake where libraries are
build openmpi-bin          mpirun, which starts the ranks
build libopenmpi-dev       messages between ranks
build libhdf5-dev          shards and checkpoints
build libiniparser-dev     configuration files
build libjansson-dev       JSON Lines in, manifests out
build zlib1g-dev           texts that gzip compressed
build libzstd-dev          texts that zstd compressed
build libssl-dev           SHA-256 of shards and checkpoints
build libdnnl-dev          int8, bf16 and fp32 matrix products
build liblapacke-dev       eigenvectors of small matrices for the subspaces of GaLore
build libopenblas-serial-dev  LAPACK itself, without threads of its own
build libsentencepiece-dev training and reading tokenizers
build libprotobuf-dev      asked for by SentencePiece in its pkg-config file from Debian 13 on
build libprotobuf-c-dev    TensorBoard event files
build protobuf-c-compiler  generates their encoder
test  libcriterion-dev     the test framework
test  zstd                 makes compressed texts to read
test  procps               finds the processes that tests stop and kill
test  clang-format         checks the layout of the sources
test  cppcheck             looks for mistakes without running anything
test  python3          runs the commands of the docs, reads checkpoints in tests
test  gcovr                adds up line coverage
fuzz clang                 libFuzzer and its sanitizers
quickstart rust-src        65 MB of Rust to learn from (/usr/src/rustc-*)
report python3             tables and pictures of runs (no further package)
cluster slurmctld          the scheduler
cluster slurmd             what runs on its nodes
cluster slurm-client       sbatch, srun, scontrol
cluster munge              lets them trust each other
cluster iproute2           networks of namespaces
'

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/shared.sh"

groups=' ' check=false names=false
for argument in "$@"; do
    case $argument in
    --build | --test | --quickstart | --report | --cluster | --fuzz) groups+="${argument#--} " ;;
    --check) check=true ;;
    --names) names=true ;;
    --help | -h)
        print_help
        exit 0
        ;;
    *) usage "unknown option '$argument'" ;;
    esac
done
[ "$groups" = ' ' ] && groups=' build test quickstart report '

wanted() { awk -v groups="$groups" 'NF && index(groups, " " $1 " ") { print $2 }' <<<"$packages"; }

if $names; then
    wanted
    exit 0
fi
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    printf 'install_deps: this is not a Debian system (no dpkg-query and apt-get). ' >&2
    printf 'What these packages hold is needed, under whatever name:\n' >&2
    wanted | sed 's/^/  /' >&2
    exit 1
fi

installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null |
    awk '$2 == "installed" { print $1 }')
mapfile -t missing < <(wanted | grep -vxF -f <(printf '%s\n' "$installed") || true)
if [ ${#missing[@]} -eq 0 ]; then
    echo "dependencies: all $(wanted | wc -l) packages are installed"
    exit 0
fi

echo "dependencies: ${#missing[@]} of $(wanted | wc -l) packages are missing:"
for package in "${missing[@]}"; do
    awk -v package="$package" \
        '$2 == package { $1 = $2 = ""; printf "  %-22s %s\n", package, substr($0, 3) }' \
        <<<"$packages"
done
$check && exit 1

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
        fail "installing needs root, and there is no sudo here. As root, run:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    if [ ! -t 0 ] && ! sudo -n true 2>/dev/null; then
        fail "installing needs root; sudo wants a password and there is no terminal to ask on. Run:
  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    fi
    as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() { # shows apt's own words only when it fails
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null && return
    tail -n 20 "$log" >&2
    fail "'$*' failed; its last words are above. Without a network, install the packages by hand."
}
run apt-get -q update
run apt-get -q install -y --no-install-recommends "${missing[@]}"
echo "dependencies: installed ${missing[*]}"
